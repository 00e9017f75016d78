"""`unnoise cascade`: draw small pictures with one model and enlarge them with others, in one go."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from unnoise.cli import steering
from unnoise.config.requests import GenerateRequest, UpsamplerOptions

if TYPE_CHECKING:
    import torch

    from unnoise.cascade import Link
    from unnoise.cli.sample import Meter
    from unnoise.generate import Progress
    from unnoise.planning import Plan

T = TypeVar("T")
_DEFAULT = GenerateRequest()
_ENLARGED = UpsamplerOptions()
_EACH = "Once for all models, or once a model in order."


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="cascade")(cascade)


def cascade(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL UPSAMPLER...", help="A model and the upsamplers after it, in order."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; the same command continues there.")],
    n: Annotated[int, typer.Option("-n", help="How many pictures.")] = _DEFAULT.n,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Class name or index; repeat for several in turn. Default: all in turn."),
    ] = None,
    guidance: steering.Guidance = "",
    scale: steering.Scale = None,
    classifier: steering.Classifier = "",
    guide_at: steering.GuideAt = _DEFAULT.guide_at,
    weaker: steering.Weaker = "",
    weaker_scale: steering.WeakerScale = _DEFAULT.weaker_scale,
    guidance_interval: steering.GuidanceInterval = None,
    guidance_course: steering.GuidanceCourse = _DEFAULT.guidance_course,
    conditional: steering.Conditional = True,
    sampler: Annotated[list[str] | None, typer.Option(help=f"As of `sample`. {_EACH}")] = None,
    steps: Annotated[list[str] | None, typer.Option(help=f"As of `sample`. {_EACH}")] = None,
    eta: Annotated[list[float] | None, typer.Option(help=f"As of `sample`. {_EACH}")] = None,
    solver_order: Annotated[list[int] | None, typer.Option(help=f"As of `sample`. {_EACH}")] = None,
    clip: Annotated[list[str] | None, typer.Option(help=f"As of `sample`. {_EACH}")] = None,
    low_res_noise: Annotated[
        list[float] | None,
        typer.Option(help="Sigma of noise on the small pictures. Once, or once an upsampler in order."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Picture k depends on seed and k alone.")] = _DEFAULT.seed,
    first: Annotated[int, typer.Option(metavar="K", help="Index of the first picture.")] = _DEFAULT.first,
    npz: Annotated[bool, typer.Option("--npz", help="An npz file a size instead of PNGs.")] = False,
    grid: Annotated[bool, typer.Option(help="Write grid.png too.")] = True,
    batch_size: Annotated[int, typer.Option(help="Pictures drawn side by side.")] = _DEFAULT.batch_size,
    exact: Annotated[
        bool, typer.Option("--exact", help="Pictures equal to the bit, however they are batched.")
    ] = False,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="As of `sample`, once a model in order; '' for one that needs none."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _DEFAULT.device,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = _DEFAULT.precision,
) -> None:
    """Draw with a model and enlarge with upsamplers; guidance is the first model's alone.

    The same command continues an interrupted job.
    """
    count = len(models)
    given = {"sampler": sampler, "steps": steps, "eta": eta, "solver_order": solver_order, "clip": clip}
    each = {name: _each(name, values, getattr(_DEFAULT, name), count) for name, values in given.items()}
    noises = _each("low_res_noise", low_res_noise, _ENLARGED.low_res_noise, count - 1)
    presets = _each("preset", preset, "", count)
    stages = [{name: values[k] for name, values in each.items()} for k in range(count)]
    base = {
        **stages[0], "n": n, "labels": label or [], "seed": seed, "first": first,
        "batch_size": batch_size, "exact": exact, "precision": precision,
        **steering.guidance_values(
            guidance=guidance, scale=scale, classifier=classifier, guide_at=guide_at, weaker=weaker,
            weaker_scale=weaker_scale, guidance_interval=guidance_interval,
            guidance_course=guidance_course, conditional=conditional,
        ),
    }  # fmt: skip
    from unnoise.cli.sample import Meter, explained, stoppable
    from unnoise.config.load import from_dict

    with stoppable():
        from unnoise import __version__, distributed
        from unnoise.cascade import chain, run_cascade
        from unnoise.job import Job

        request = from_dict(GenerateRequest, base)
        options = [
            from_dict(UpsamplerOptions, {**stage, "low_res_noise": noise})
            for stage, noise in zip(stages[1:], noises, strict=True)
        ]
        with distributed.processes(device) as chosen:
            links = [_link(path, preset, chosen) for path, preset in zip(models, presets, strict=True)]
            plans = chain(links, request, options)
            steering.refuse_idle(plans[0].request)
            with Meter(n, show=distributed.is_main()) as meter:
                job = Job(
                    out=out, weights=links[-1].weights, npz=npz, grid=grid,
                    about={"Software": f"unnoise {__version__}", "model-sha256": links[-1].weights},
                    on_begin=meter.begin, on_step=_within(plans, len(plans) - 1, meter), on_batch=meter.batch,
                )  # fmt: skip
                with explained(meter, out):
                    written = run_cascade(plans, job, on_step=lambda stage: _within(plans, stage, meter))
            if distributed.is_main():
                typer.echo(f"{meter.summary()}: {written}")
                if grid:
                    typer.echo(f"grid: {out / 'grid.png'}")


def _link(path: Path, preset: str, device: "torch.device") -> "Link":
    import hashlib

    from unnoise.cascade import Link
    from unnoise.cli.choose import settled
    from unnoise.model import load_model
    from unnoise.modelfile import find_model

    file = find_model(path)
    preset = settled(file, preset)
    with open(file, "rb") as content:
        weights = hashlib.file_digest(content, "sha256").hexdigest()
    return Link(load_model(file, device, preset=preset), str(path), f"{weights} {preset}".strip())


def _within(plans: "Sequence[Plan]", stage: int, meter: "Meter") -> "Callable[[Progress], None]":
    """Tells the meter of a stage's steps as steps of the whole cascade."""
    done, steps = (sum(plan.steps for plan in part) for part in (plans[:stage], plans))
    return lambda progress: meter.step(replace(progress, step=done + progress.step, steps=steps))


def _each(name: str, given: list[T] | None, default: T, count: int) -> list[T]:
    """A value for each of `count` models: the default, one for all, or as given."""
    values = given or [default]
    if len(values) == 1:
        return values * count
    if len(values) != count:
        what = "upsamplers" if name == "low_res_noise" else "models"
        raise ValueError(
            f"--{name.replace('_', '-')} is given {len(values)} times for {count} {what}; once or once each"
        )
    return values

"""`unnoise evaluate`: samples against a reference, or two evaluations against each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unnoise.cli import reading, steering
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.outputs import check_folder

if TYPE_CHECKING:
    from unnoise.metrics.evaluate import Stage

_DEFAULT = EvaluateRequest()
_DRAWN = GenerateRequest()
_DRAWING = frozenset({
    "sampler", "steps", "eta", "guidance", "scale", "classifier", "guide_at", "weaker", "weaker_scale",
    "guidance_interval", "guidance_course", "conditional", "truncation", "label", "preset", "draw_batch_size",
})  # fmt: skip
"""Options that say how a model is drawn from."""
_MEASURING = frozenset({
    "against", "features", "weights", "n", "size", "channels", "evaluator", "paired", "consistency", "lpips",
    "neighbours", "half", "block", "bootstrap", "floor", "extrapolate", "set_", "cache", "batch_size", "seed",
    "device",
})  # fmt: skip
"""Options that say how pictures are measured."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="evaluate")(evaluate)


def evaluate(
    context: typer.Context,
    samples: Annotated[
        list[str],
        typer.Argument(
            metavar="SAMPLES",
            help="A folder, zip, npz, data set, model file or run directory; or two evaluations (.json).",
        ),
    ],
    against: Annotated[
        str, typer.Option(help="A folder, zip, npz, data set, or a reference file with mu and sigma.")
    ] = "",
    features: Annotated[
        str, typer.Option(help="inception, effnet-lite0, unnoise-small, hf:NAME, or auto.")
    ] = _DEFAULT.features,
    weights: Annotated[str, typer.Option(help="Weights of the feature network.")] = "",
    n: Annotated[int | None, typer.Option("-n", help="Samples; default all, and 50,000 of a model.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and report.html; default: print only.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Crop pictures to squares of this side.")] = None,
    channels: Annotated[int | None, typer.Option(help="Read pictures as grey (1) or RGB (3).")] = None,
    evaluator: Annotated[
        str, typer.Option(help="Whose IS, precision and recall: adm or torch-fidelity.")
    ] = _DEFAULT.evaluator,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired", help="Samples reconstruct the reference in order: rFID, PSNR, SSIM and LPIPS."
        ),
    ] = False,
    consistency: Annotated[
        int | None,
        typer.Option(metavar="FACTOR", help="Pairs were enlarged so much: PSNR after shrinking them again."),
    ] = None,
    lpips: Annotated[str, typer.Option(help="LPIPS weights on VGG16.")] = "",
    neighbours: Annotated[
        int | None,
        typer.Option(help="Pictures a side for precision, recall, density, coverage; default all."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="ADM's float16 distances.")] = False,
    block: Annotated[int, typer.Option(help="Rows of a block of distances; bounds memory.")] = _DEFAULT.block,
    bootstrap: Annotated[
        int, typer.Option(help="Replicates behind the intervals; 0 for none.")
    ] = _DEFAULT.bootstrap,
    floor: Annotated[bool, typer.Option(help="Measure real against real pictures too.")] = True,
    extrapolate: Annotated[bool, typer.Option(help="The distance at infinitely many samples too.")] = True,
    sampler: Annotated[str, typer.Option(help="For a model: as of `sample`.")] = _DRAWN.sampler,
    steps: Annotated[str, typer.Option(help="For a model: its steps.")] = _DRAWN.steps,
    eta: Annotated[float, typer.Option(help="For a model: as of `sample`.")] = _DRAWN.eta,
    guidance: steering.Guidance = "",
    scale: steering.Scale = None,
    classifier: steering.Classifier = "",
    guide_at: steering.GuideAt = _DRAWN.guide_at,
    weaker: steering.Weaker = "",
    weaker_scale: steering.WeakerScale = _DRAWN.weaker_scale,
    guidance_interval: steering.GuidanceInterval = None,
    guidance_course: steering.GuidanceCourse = _DRAWN.guidance_course,
    conditional: steering.Conditional = True,
    truncation: Annotated[float | None, typer.Option(help="For a GAN: as of `sample`.")] = _DRAWN.truncation,
    label: Annotated[list[str] | None, typer.Option(help="For a model: its classes in turn.")] = None,
    preset: Annotated[
        str, typer.Option(help="For a published .pt file: what network it is for, if it cannot be told.")
    ] = "",
    draw_batch_size: Annotated[
        int, typer.Option(help="For a model: pictures drawn side by side.")
    ] = _DRAWN.batch_size,
    set_: reading.Set = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for features and decoded pictures; default the user's cache.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures through the feature network at once.")] = 32,
    seed: Annotated[int, typer.Option(help="Of drawn samples, subsets and the bootstrap.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Measure samples against real pictures. The same command continues an interrupted evaluation."""
    if out is not None:
        check_folder(out)
    if all(name.endswith(".json") for name in samples):
        _refuse_given(context, _MEASURING | _DRAWING, "the comparison of two evaluations, which are measured")
        _compare([Path(name) for name in samples], out)
        return
    if len(samples) != 1:
        raise ValueError(f"{len(samples)} samples were named; evaluate one, or compare two .json evaluations")
    if not against:
        raise ValueError("--against is missing; name the real pictures or a reference file")
    if out is not None and (out / "report.html").exists() and not (out / "evaluation.json").exists():
        raise ValueError(f"{out / 'report.html'} is there and not from this command; choose another folder")
    from unnoise.config.load import from_dict, to_dict

    how, own = reading.settings_of_data(set_ or [], size=size, channels=channels, cache=cache)
    values = {
        "samples": samples[0], "against": against, "features": features, "weights": weights, "n": n,
        **own, "data": to_dict(how), "evaluator": evaluator, "paired": paired,
        "consistency": consistency, "lpips": lpips, "preset": preset,
        "neighbours": neighbours, "half": half, "block": block, "bootstrap": bootstrap, "floor": floor,
        "extrapolate": extrapolate,
        "batch_size": batch_size, "seed": seed, "device": device,
        "generate": {
            "sampler": sampler, "steps": steps, "eta": eta, "truncation": truncation, "labels": label or [],
            "batch_size": draw_batch_size, "seed": seed,
            **steering.guidance_values(
                guidance=guidance, scale=scale, classifier=classifier, guide_at=guide_at, weaker=weaker,
                weaker_scale=weaker_scale, guidance_interval=guidance_interval,
                guidance_course=guidance_course, conditional=conditional,
            ),
        },
    }  # fmt: skip
    from unnoise import distributed
    from unnoise.cli.choose import settled
    from unnoise.cli.sample import stoppable
    from unnoise.metrics.evaluate import evaluate_together
    from unnoise.metrics.report import page, save_page, sheets
    from unnoise.metrics.sources import draws

    if not draws(samples[0]):
        _refuse_given(context, _DRAWING, f"{samples[0]}, whose pictures are drawn already")
    if samples[0].endswith((".pt", ".pth")) and Path(samples[0]).is_file():
        values["preset"] = settled(Path(samples[0]), preset)
    request = from_dict(EvaluateRequest, values)
    with stoppable():
        with distributed.processes(device), _meter() as stage:
            found = evaluate_together(request, on_progress=stage)
        if found is None:
            return
        for line in found.lines():
            typer.echo(line, err=line.startswith("warning: "))
        if out is not None:
            found.save(out / "evaluation.json")
            save_page(out / "report.html", page(found, sheets(request, found)))
            typer.echo(f"written: {out / 'evaluation.json'} and {out / 'report.html'}")


def _refuse_given(context: typer.Context, names: frozenset[str], what: str) -> None:
    """Refuse options among `names` that were given, where they would be passed over."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            named = "/".join([*option.opts, *option.secondary_opts])
            raise ValueError(f"{named} says nothing of {what}; leave it out")


def _compare(paths: list[Path], out: Path | None) -> None:
    from unnoise.metrics.report import comparison_page, save_page
    from unnoise.metrics.result import compare, read_evaluation

    if len(paths) != 2:
        raise ValueError(f"{len(paths)} evaluations were named; compare two")
    found = compare(*(read_evaluation(path) for path in paths))
    for line in found.lines():
        typer.echo(line)
    if out is not None:
        save_page(out / "comparison.html", comparison_page(str(paths[0]), str(paths[1]), found))
        typer.echo(f"written: {out / 'comparison.html'}")


@contextmanager
def _meter() -> Iterator["Stage"]:
    """A progress line on stderr, of the first process, when that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from unnoise.distributed import is_first

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal and is_first()
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        tasks: dict[str, object] = {}

        def stage(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"features of the {what}", total=total)
            progress.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield stage

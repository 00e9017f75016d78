"""`unnoise sample`: draw pictures with a trained model into a folder."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from unnoise.cli import steering
from unnoise.config.requests import GenerateRequest

if TYPE_CHECKING:
    from unnoise.generate import ImageBatch, Progress

_DEFAULT = GenerateRequest()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="sample")(sample)


def sample(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model file, a run directory or a published .pt file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; the same command continues there.")],
    n: Annotated[
        int | None, typer.Option("-n", help="How many pictures; default 16, or every small one.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Class name or index; repeat for several in turn. Default: all in turn."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="For a model of captions: words; repeat for several in turn.")
    ] = None,
    text_encoder: Annotated[
        str, typer.Option(help="Folder of the model's frozen text encoder, where it lies elsewhere now.")
    ] = _DEFAULT.text_encoder,
    given: Annotated[
        str, typer.Option(help="For a model that is told pictures or parts of them: such pictures.")
    ] = _DEFAULT.given,
    boxes: Annotated[
        str, typer.Option(help="Their boxes, for a model of layouts: a json in COCO's form.")
    ] = _DEFAULT.given_boxes,
    maps: Annotated[
        str, typer.Option(help="Their semantic maps: a folder of PNGs of the same names.")
    ] = _DEFAULT.given_maps,
    sampler: Annotated[
        str, typer.Option(help="ddim, ddpm, euler, heun, plms, dpmpp-2m, dpmpp-3m or unipc.")
    ] = _DEFAULT.sampler,
    steps: Annotated[
        str,
        typer.Option(
            help="A count, ddim25, even25, sections 90,60,60,20,20, quad50, trailing50, logsnr20, karras20, "
            "ldm50."
        ),
    ] = _DEFAULT.steps,
    eta: Annotated[
        float, typer.Option(help="Noise of ddim, dpmpp-2m and dpmpp-3m: 0 none, 1 as much as ddpm.")
    ] = _DEFAULT.eta,
    temperature: Annotated[
        float, typer.Option(help="Factor of the noise of ddim and ddpm.")
    ] = _DEFAULT.temperature,
    solver_order: Annotated[
        int, typer.Option(help="Of unipc: 2, or 3 without guidance.")
    ] = _DEFAULT.solver_order,
    guidance: steering.Guidance = "",
    scale: steering.Scale = None,
    classifier: steering.Classifier = "",
    guide_at: steering.GuideAt = _DEFAULT.guide_at,
    weaker: steering.Weaker = "",
    weaker_scale: steering.WeakerScale = _DEFAULT.weaker_scale,
    guidance_interval: steering.GuidanceInterval = None,
    guidance_course: steering.GuidanceCourse = _DEFAULT.guidance_course,
    conditional: steering.Conditional = True,
    truncation: Annotated[
        float | None,
        typer.Option(help="Of a GAN: no number of z larger than this; less diversity, more quality."),
    ] = _DEFAULT.truncation,
    clip: Annotated[
        str, typer.Option(help="Of the predicted picture: auto, none, static or dynamic.")
    ] = _DEFAULT.clip,
    low_res: Annotated[
        str, typer.Option(help="For an upsampler: a folder, zip, npz or data set of small pictures.")
    ] = _DEFAULT.low_res,
    shrink: Annotated[bool, typer.Option("--shrink", help="Those are large: shrink them first.")] = False,
    low_res_noise: Annotated[
        float, typer.Option(help="Sigma of noise on the small pictures, up to that of the training.")
    ] = _DEFAULT.low_res_noise,
    height: Annotated[
        int | None, typer.Option(help="Of the pictures, in pixels, where other than that of training.")
    ] = _DEFAULT.height,
    width: Annotated[int | None, typer.Option(help="As --height.")] = _DEFAULT.width,
    patch: Annotated[
        int | None,
        typer.Option(help="Denoise and decode large pictures in overlapping squares of so many pixels."),
    ] = _DEFAULT.patch,
    seed: Annotated[int, typer.Option(help="Picture k depends on seed and k alone.")] = _DEFAULT.seed,
    first: Annotated[int, typer.Option(metavar="K", help="Index of the first picture.")] = _DEFAULT.first,
    npz: Annotated[bool, typer.Option("--npz", help="One npz file in ADM's layout instead of PNGs.")] = False,
    grid: Annotated[bool, typer.Option(help="Write grid.png too.")] = True,
    frames: Annotated[bool, typer.Option("--frames", help="Write denoising.gif too.")] = False,
    batch_size: Annotated[int, typer.Option(help="Pictures drawn side by side.")] = _DEFAULT.batch_size,
    exact: Annotated[
        bool, typer.Option("--exact", help="Pictures equal to the bit, however they are batched.")
    ] = False,
    preset: Annotated[
        str, typer.Option(help="What network a .pt file is for, if it cannot be told: a preset or a .yaml.")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _DEFAULT.device,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = _DEFAULT.precision,
) -> None:
    """Draw pictures with a trained model. The same command continues an interrupted job."""
    values = {
        "n": _DEFAULT.n if n is None else n, "labels": label or [],
        "prompts": prompt or [], "text_encoder": text_encoder,
        "given": given, "given_boxes": boxes, "given_maps": maps,
        "sampler": sampler, "steps": steps, "eta": eta, "temperature": temperature,
        "solver_order": solver_order, "truncation": truncation, "clip": clip,
        "seed": seed, "first": first, "batch_size": batch_size, "exact": exact,
        "precision": precision, "low_res": low_res, "shrink": shrink, "low_res_noise": low_res_noise,
        "height": height, "width": width, "patch": patch,
        **steering.guidance_values(
            guidance=guidance, scale=scale, classifier=classifier, guide_at=guide_at, weaker=weaker,
            weaker_scale=weaker_scale, guidance_interval=guidance_interval,
            guidance_course=guidance_course, conditional=conditional,
        ),
    }  # fmt: skip
    with stoppable():
        import hashlib

        from unnoise import __version__, distributed
        from unnoise.cli.choose import settled
        from unnoise.config.load import from_dict
        from unnoise.drawing import load
        from unnoise.job import Job, run_job
        from unnoise.modelfile import find_model
        from unnoise.planning import every_small_picture, plan

        request = from_dict(GenerateRequest, values)
        file = find_model(model)
        preset = settled(file, preset)
        with distributed.processes(device) as chosen:
            ready = plan(load(file, chosen, preset=preset), request)
            steering.refuse_idle(ready.request)
            if n is None:
                ready = every_small_picture(ready)
            with open(file, "rb") as content:
                weights = hashlib.file_digest(content, "sha256").hexdigest()
            about = {"Software": f"unnoise {__version__}", "model-sha256": weights}
            with Meter(ready.request.n, show=distributed.is_main()) as meter:
                identity = f"{weights} {preset}".strip()
                job = Job(
                    out=out, weights=identity, npz=npz, grid=grid, frames=frames, about=about,
                    on_begin=meter.begin, on_step=meter.step, on_batch=meter.batch,
                )  # fmt: skip
                with explained(meter, out):
                    written = run_job(ready, job)
            if distributed.is_main():
                typer.echo(f"{meter.summary()}: {written}")
                if grid:
                    typer.echo(f"grid: {out / 'grid.png'}")


@contextlib.contextmanager
def explained(meter: "Meter", out: Path) -> Iterator[None]:
    """What stops a job while it draws is said in one line, with the way to go on."""
    try:
        yield
    except Stopped:
        _say(f"stopped; {meter.done} pictures were drawn now, the same command continues")
        raise
    except FloatingPointError as error:
        _say(str(error))
        raise typer.Exit(1) from None
    except OSError as error:
        hint = f"{error.strerror or error}; the same command continues when that is put right"
        raise OSError(error.errno, hint, error.filename or str(out)) from None


class Stopped(BaseException):
    """A signal asked to stop."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise Stopped inside, and leave with exit status 130 or 143."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Meter:
    """The progress line on stderr, when that is a terminal, and the count of pictures."""

    def __init__(self, wanted: int, *, show: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.wanted, self.todo, self.done = wanted, 0, 0
        self.began = time.monotonic()
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("drawing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
            disable=not (show and console.is_terminal),
        )
        self.task = self.progress.add_task("", total=wanted, facts="", start=False)

    def __enter__(self) -> "Meter":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, todo: int) -> None:
        """So many pictures are to be drawn by this process."""
        self.todo, self.began = todo, time.monotonic()
        self.progress.update(self.task, total=todo)
        self.progress.start_task(self.task)

    def step(self, progress: "Progress") -> None:
        """A batch is one step further."""
        from unnoise.words import duration

        part = self.done + min(len(progress.ids), self.todo - self.done) * progress.step / progress.steps
        rate = part / max(time.monotonic() - self.began, 1e-9)
        facts = f"{rate:.3g} pictures/s  {duration((self.todo - part) / rate)} left"
        self.progress.update(self.task, completed=part, facts=facts)

    def batch(self, batch: "ImageBatch") -> None:
        """A batch is written."""
        self.count(len(batch))

    def count(self, pictures: int) -> None:
        """So many pictures are written."""
        self.done += pictures

    def spent(self) -> str:
        """The time since the first picture was begun, for people."""
        from unnoise.words import duration

        return duration(time.monotonic() - self.began)

    def summary(self) -> str:
        """What was done, for people."""
        there = f", {self.wanted} with those that were there" if self.done < self.wanted else ""
        return f"{self.done} pictures drawn in {self.spent()}{there}"


def _say(text: str) -> None:
    print(f"unnoise: {text}", file=sys.stderr)

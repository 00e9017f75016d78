"""`unnoise edit`: what a model makes of pictures."""

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unnoise.config.requests import EditRequest, GenerateRequest

if TYPE_CHECKING:
    from unnoise.cli.sample import Meter
    from unnoise.edit.folder import Folder

_EDIT, _DRAWN = EditRequest(), GenerateRequest()

edit = typer.Typer(
    name="edit",
    help="Edit pictures with a trained model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model file, a run directory or a published .pt file.")
]
Pictures = Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Pictures, or folders of them.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; the same command continues there.")]
Label = Annotated[
    list[str] | None,
    typer.Option(help="Class of the pictures by name or index: one for all, or one each. Default: none."),
]
Sampler = Annotated[str, typer.Option(help="As of `sample`.")]
Steps = Annotated[str, typer.Option(help="Of the whole way from noise, as of `sample`.")]
Eta = Annotated[float, typer.Option(help="Noise of the samplers that can do without, as of `sample`.")]
Guidance = Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1 is off.")]
Classifier = Annotated[str, typer.Option(help="A noisy classifier that guides towards the label.")]
Scale = Annotated[float | None, typer.Option(help="Of the classifier's gradient.")]
Seed = Annotated[int, typer.Option(help="A result depends on its picture, the seed and its number alone.")]
Fit = Annotated[
    str,
    typer.Option(
        help="Pictures of another size: refuse, crop (resize, cut the middle) or pad (repeat edges)."
    ),
]
Grey = Annotated[
    bool, typer.Option("--grey", help="Take coloured pictures as grey, for a model of grey ones.")
]
Background = Annotated[str, typer.Option(help="Colour that transparent pixels are laid over.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any field of the EditRequest, such as generate.clip=none."
    ),
]
BatchSize = Annotated[int, typer.Option(help="Pictures through the network side by side.")]
Preset = Annotated[str, typer.Option(help="What network a .pt file is for, if it cannot be told.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(edit)


@edit.command()
def vary(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    strength: Annotated[
        float, typer.Option(help="How far to go towards noise: 0 leaves a picture, 1 nothing of it.")
    ] = _EDIT.strength,
    n: Annotated[int, typer.Option("-n", help="Variants of each picture.")] = 4,
    first: Annotated[int, typer.Option(metavar="K", help="Number of the first variant.")] = _DRAWN.first,
    label: Label = None,
    sampler: Sampler = _DRAWN.sampler,
    steps: Steps = _DRAWN.steps,
    eta: Eta = _DRAWN.eta,
    guidance: Guidance = _DRAWN.guidance,
    classifier: Classifier = _DRAWN.classifier,
    scale: Scale = _DRAWN.scale,
    seed: Seed = _DRAWN.seed,
    fit: Fit = _EDIT.fit,
    grey: Grey = False,
    background: Background = _EDIT.background,
    settings: Settings = None,
    batch_size: BatchSize = _DRAWN.batch_size,
    preset: Preset = "",
    device: Device = _DRAWN.device,
    precision: Precision = _DRAWN.precision,
) -> None:
    """Draw variations of pictures: noised as far as the strength says, and drawn from there again."""
    values = {
        "kind": "vary", "strength": strength, "fit": fit, "grey": grey, "background": background,
        "generate": {
            "n": n, "first": first, "labels": label or [], "sampler": sampler, "steps": steps, "eta": eta,
            "guidance": guidance, "classifier": classifier, "scale": scale, "seed": seed,
            "batch_size": batch_size, "precision": precision,
        },
    }  # fmt: skip
    with working(model, out, values, settings, device, preset) as work:
        from unnoise.edit.jobs import vary_files

        vary_files(work.folder, pictures)
        work.say_done("variant", "drawn")


@edit.command()
def invert(
    model: ModelFile,
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="PICTURE", help="Pictures, folders of them, or noise files (.safetensors) to draw."
        ),
    ],
    out: Out,
    corrections: Annotated[
        int, typer.Option(help="Network calls that correct each step; each gives one order more.")
    ] = _EDIT.corrections,
    label: Label = None,
    sampler: Sampler = _DRAWN.sampler,
    steps: Steps = _DRAWN.steps,
    guidance: Guidance = _DRAWN.guidance,
    classifier: Classifier = _DRAWN.classifier,
    scale: Scale = _DRAWN.scale,
    fit: Fit = _EDIT.fit,
    grey: Grey = False,
    background: Background = _EDIT.background,
    settings: Settings = None,
    batch_size: BatchSize = _DRAWN.batch_size,
    preset: Preset = "",
    device: Device = _DRAWN.device,
    precision: Precision = _DRAWN.precision,
) -> None:
    """Find the noise that a model draws pictures from, draw from it, and say what was lost on the way."""
    values = {
        "kind": "invert", "corrections": corrections, "fit": fit, "grey": grey, "background": background,
        "generate": {
            "labels": label or [], "sampler": sampler, "steps": steps, "guidance": guidance,
            "classifier": classifier, "scale": scale, "batch_size": batch_size, "precision": precision,
        },
    }  # fmt: skip
    with working(model, out, values, settings, device, preset) as work:
        from unnoise.edit.jobs import invert_files

        found = invert_files(work.folder, pictures)
        work.say_done("picture", "done")
        for name, lost in found.items():
            typer.echo(f"{name}: PSNR {lost.psnr:.1f} dB, {_grey_levels(lost.mean, lost.largest)}")
        if len(found) > 1:
            lost = found.values()
            mean, largest = sum(each.mean for each in lost) / len(lost), max(each.largest for each in lost)
            decibels = statistics.median(each.psnr for each in lost)
            typer.echo(f"all {len(found)}: median PSNR {decibels:.1f} dB, {_grey_levels(mean, largest)}")


@edit.command()
def interpolate(
    model: ModelFile,
    out: Out,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PICTURE", help="Ends: pictures, or noise files of `edit invert`."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="S,...", help="Ends that are drawn: 7, or 7:3 for picture 3 of seed 7.")
    ] = "",
    mix: Annotated[
        str,
        typer.Option(help="x_T: on the sphere, in the noise; x_t: pictures half-way to noise, by strength."),
    ] = _EDIT.mix,
    strength: Annotated[float, typer.Option(help="Of x_t: how far to go towards noise.")] = _EDIT.strength,
    frames: Annotated[
        int, typer.Option(help="Pictures from one end to the next, both counted.")
    ] = _EDIT.frames,
    animation: Annotated[bool, typer.Option("--animation", help="Write animation.gif too.")] = False,
    corrections: Annotated[
        int, typer.Option(help="Of x_T: network calls that correct each step from a picture to its noise.")
    ] = _EDIT.corrections,
    label: Label = None,
    sampler: Sampler = _DRAWN.sampler,
    steps: Steps = _DRAWN.steps,
    eta: Eta = _DRAWN.eta,
    guidance: Guidance = _DRAWN.guidance,
    classifier: Classifier = _DRAWN.classifier,
    scale: Scale = _DRAWN.scale,
    seed: Seed = _DRAWN.seed,
    fit: Fit = _EDIT.fit,
    grey: Grey = False,
    background: Background = _EDIT.background,
    settings: Settings = None,
    batch_size: BatchSize = _DRAWN.batch_size,
    preset: Preset = "",
    device: Device = _DRAWN.device,
    precision: Precision = _DRAWN.precision,
) -> None:
    """Draw the way between pictures or seeds, as a strip, single pictures and an animation.

    Between ends of two classes the class changes half-way.
    """
    values = {
        "kind": "interpolate", "mix": mix, "strength": strength, "frames": frames, "corrections": corrections,
        "seeds": [seed for seed in seeds.split(",") if seed], "fit": fit, "grey": grey,
        "background": background,
        "generate": {
            "labels": label or [], "sampler": sampler, "steps": steps, "eta": eta, "guidance": guidance,
            "classifier": classifier, "scale": scale, "seed": seed, "batch_size": batch_size,
            "precision": precision,
        },
    }  # fmt: skip
    with working(model, out, values, settings, device, preset) as work:
        from unnoise.edit.jobs import interpolate_files

        interpolate_files(work.folder, pictures or [], animation=animation)
        work.say_done("picture", "drawn")


@dataclass(frozen=True)
class Work:
    """A command at work: its folder, its progress line, and what could not be used."""

    folder: "Folder"
    meter: "Meter"
    broken: list[str]

    def say_done(self, thing: str, done: str) -> None:
        """How many things were done, and where they are."""
        from unnoise.edit.folder import SHEET

        things = thing if self.meter.done == 1 else f"{thing}s"
        typer.echo(f"{self.meter.done} {things} {done} in {self.meter.spent()}: {self.folder.out}")
        if (self.folder.out / SHEET).exists():
            typer.echo(f"before and after: {self.folder.out / SHEET}")


@contextlib.contextmanager
def working(
    model: Path, out: Path, values: dict[str, Any], settings: Sequence[str] | None, device: str, preset: str
) -> Iterator[Work]:
    """The model loaded and the request checked; exit status 1 when a picture could not be used."""
    from unnoise.cli.sample import Meter, Stopped, stoppable

    with stoppable():
        import hashlib

        from unnoise import __version__
        from unnoise.cli.choose import settled
        from unnoise.config.load import from_dict, override
        from unnoise.distributed import choose_device
        from unnoise.edit.folder import Folder
        from unnoise.edit.plan import plan_edit
        from unnoise.model import load_model
        from unnoise.modelfile import find_model

        request = from_dict(EditRequest, override(values, settings or [], EditRequest))
        file = find_model(model)
        preset = settled(file, preset)
        ready = plan_edit(load_model(file, choose_device(device), preset=preset), request)
        with open(file, "rb") as content:
            weights = hashlib.file_digest(content, "sha256").hexdigest()
        about = {"Software": f"unnoise {__version__}", "model-sha256": weights}
        broken: list[str] = []

        def on_broken(problem: str) -> None:
            broken.append(problem)
            _say(problem)

        with Meter(1, show=True) as meter:
            folder = Folder(
                out=out, edit=ready, weights=f"{weights} {preset}".strip(), about=about,
                on_begin=meter.begin, on_step=meter.step, on_result=meter.count, on_broken=on_broken,
            )  # fmt: skip
            try:
                yield Work(folder, meter, broken)
            except Stopped:
                _say(f"stopped; {meter.done} results were written now, the same command continues")
                raise
            except FloatingPointError as error:
                _say(str(error))
                raise typer.Exit(1) from None
        if broken:
            _say(f"{len(broken)} {'picture' if len(broken) == 1 else 'pictures'} could not be used")
            raise typer.Exit(1)


def _grey_levels(mean: float, largest: int) -> str:
    return f"{mean:.2f} grey levels in the mean, {largest} at most"


def _say(text: str) -> None:
    print(f"unnoise: {text}", file=sys.stderr)

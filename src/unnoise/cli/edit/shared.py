"""What all edits have in common on the command line: their arguments, and the options of how they draw."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from unnoise.config.requests import EditRequest, GenerateRequest

EDIT, DRAWN = EditRequest(), GenerateRequest()

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
Feather = Annotated[
    int, typer.Option(help="Of a model of latents: pixels around the hole that pass into the picture.")
]


@dataclass(frozen=True, kw_only=True)
class Hole:
    """Where to draw."""

    mask: Annotated[
        str,
        typer.Option(
            help="Where to draw: a picture, white there; a folder of such of the same names; or alpha."
        ),
    ] = EDIT.mask
    box: Annotated[
        str, typer.Option(metavar="LEFT,TOP,WIDTH,HEIGHT", help="Where to draw: a rectangle, in pixels.")
    ] = ""
    strokes: Annotated[
        str,
        typer.Option(metavar="FILE", help='Where to draw: json, [{"width": 6, "points": [[3, 4], ...]}].'),
    ] = EDIT.strokes

    def fields(self) -> dict[str, Any]:
        """Fields of the EditRequest."""
        return {"mask": self.mask, "box": parse_box(self.box), "strokes": self.strokes}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How what is known is held while the rest is drawn."""

    method: Annotated[str, typer.Option(help="auto, told, replace, repaint, dps, pigdm or particles.")] = (
        EDIT.method
    )
    jump: Annotated[int, typer.Option(help="Of repaint: steps that it goes back at a time.")] = EDIT.jump
    repeats: Annotated[int | None, typer.Option(help="Of repaint: times that it walks each stretch; 10.")] = (
        EDIT.repeats
    )
    pull: Annotated[float | None, typer.Option(help="Of dps and pigdm: strength; 2 and 1.")] = EDIT.pull
    particles: Annotated[int, typer.Option(help="Of particles: pictures that are drawn for each result.")] = (
        EDIT.particles
    )

    def fields(self) -> dict[str, Any]:
        """Fields of the EditRequest."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Which results of each picture."""

    n: Annotated[int, typer.Option("-n", help="Results of each picture.")] = 4
    first: Annotated[int, typer.Option(metavar="K", help="Number of the first result.")] = DRAWN.first

    def fields(self) -> dict[str, Any]:
        """Fields of the GenerateRequest."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The options of every edit, in the order of its help."""

    label: Annotated[
        list[str] | None,
        typer.Option(help="Class of the pictures by name or index: one for all, or one each. Default: none."),
    ] = None
    prompt: Annotated[
        list[str] | None, typer.Option(help="For a model of captions: words, one for all, or one each.")
    ] = None
    text_encoder: Annotated[
        str, typer.Option(help="Folder of the model's frozen text encoder, where it lies elsewhere now.")
    ] = DRAWN.text_encoder
    given: Annotated[
        str,
        typer.Option(
            help="For a model that is told boxes or maps: a folder of pictures that have some, one for all "
            "or one of the name of each."
        ),
    ] = DRAWN.given
    boxes: Annotated[str, typer.Option(help="Their boxes: a json in COCO's form.")] = DRAWN.given_boxes
    maps: Annotated[str, typer.Option(help="Their semantic maps: a folder of PNGs of the same names.")] = (
        DRAWN.given_maps
    )
    sampler: Annotated[str, typer.Option(help="As of `sample`.")] = DRAWN.sampler
    steps: Annotated[str, typer.Option(help="Of the whole way from noise, as of `sample`.")] = DRAWN.steps
    eta: Annotated[float, typer.Option(help="Noise of the samplers that can do without, as of `sample`.")] = (
        DRAWN.eta
    )
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1 is off.")] = 1.0
    classifier: Annotated[str, typer.Option(help="A noisy classifier that guides towards the label.")] = (
        DRAWN.classifier
    )
    scale: Annotated[float | None, typer.Option(help="Of the classifier's gradient.")] = DRAWN.scale
    seed: Annotated[
        int, typer.Option(help="A result depends on its picture, the seed and its number alone.")
    ] = DRAWN.seed
    fit: Annotated[
        str,
        typer.Option(
            help="Pictures of another size: refuse, crop (resize, cut the middle), pad (repeat edges), tile "
            "(keep the size, draw in overlapping squares)."
        ),
    ] = EDIT.fit
    grey: Annotated[
        bool, typer.Option("--grey", help="Take coloured pictures as grey, for a model of grey ones.")
    ] = EDIT.grey
    background: Annotated[str, typer.Option(help="Colour that transparent pixels are laid over.")] = (
        EDIT.background
    )
    patch: Annotated[
        int | None, typer.Option(help="Side of those squares, or of such for a large picture, in pixels.")
    ] = DRAWN.patch
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any field of the EditRequest, such as generate.clip=none."),
    ] = None
    batch_size: Annotated[int, typer.Option(help="Pictures through the network side by side.")] = (
        DRAWN.batch_size
    )
    exact: Annotated[
        bool, typer.Option("--exact", help="Results equal to the bit, however they are batched.")
    ] = DRAWN.exact
    preset: Annotated[str, typer.Option(help="What network a .pt file is for, if it cannot be told.")] = ""
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = DRAWN.device
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = DRAWN.precision

    def request(self, own: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
        """An EditRequest as plain data: these options, a verb's own, and its own of how it draws."""
        same = (
            "text_encoder",
            "given",
            "sampler",
            "steps",
            "eta",
            "guidance",
            "classifier",
            "scale",
            "seed",
            "patch",
        )
        generate = {name: getattr(self, name) for name in (*same, "batch_size", "exact", "precision")}
        generate |= {"given_boxes": self.boxes, "given_maps": self.maps}
        generate |= {"labels": self.label or [], "prompts": self.prompt or [], **drawn}
        shared = {"fit": self.fit, "grey": self.grey, "background": self.background}
        return {**shared, **own, "generate": generate}


def verb(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a verb of `unnoise edit`: each of its keyword-only arguments, such as `shared`, stands
    for the options of a dataclass, but for those that mean nothing to it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        given = list(inspect.signature(function, eval_str=True).parameters.values())
        own = [each for each in given if each.kind is not inspect.Parameter.KEYWORD_ONLY]
        groups = {each.name: each.annotation for each in given[len(own) :]}
        options = {name: _options(group, without) for name, group in groups.items()}

        def command(**values: Any) -> None:
            made = {
                name: group(**{each.name: values.pop(each.name) for each in options[name]})
                for name, group in groups.items()
            }
            function(**values, **made)

        keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        signature = inspect.Signature([*keyword, *itertools.chain.from_iterable(options.values())])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        command.__doc__ = function.__doc__
        edit.command(name=function.__name__)(command)
        return function

    return register


def _options(group: type, without: Collection[str]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
        )
        for each in dataclasses.fields(group)
        if each.name not in without
    ]


def parse_box(text: str) -> tuple[int, ...] | None:
    """The numbers of "3,4,10,8"; None for none at all."""
    if not text:
        return None
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError:
        raise ValueError(
            f"box={text!r} is no rectangle; write left,top,width,height in pixels, such as 8,8,12,10"
        ) from None
    return left, top, width, height

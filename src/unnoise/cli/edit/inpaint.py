"""`unnoise edit inpaint` and `outpaint`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import (
    DRAWN,
    EDIT,
    Box,
    Feather,
    First,
    Jump,
    Mask,
    Method,
    ModelFile,
    N,
    Out,
    Particles,
    Pictures,
    Pull,
    Repeats,
    Shared,
    Strokes,
    parse_box,
    verb,
)
from unnoise.cli.edit.work import redraw


@verb()
def inpaint(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    mask: Mask = EDIT.mask,
    box: Box = "",
    strokes: Strokes = EDIT.strokes,
    feather: Feather = EDIT.feather,
    method: Method = EDIT.method,
    jump: Jump = EDIT.jump,
    repeats: Repeats = EDIT.repeats,
    pull: Pull = EDIT.pull,
    particles: Particles = EDIT.particles,
    n: N = 4,
    first: First = DRAWN.first,
    *,
    shared: Shared,
) -> None:
    """Draw what is in the holes of pictures; all around them stays byte for byte."""
    own = {
        "kind": "inpaint", "mask": mask, "box": parse_box(box), "strokes": strokes, "feather": feather,
        "method": method, "jump": jump, "repeats": repeats, "pull": pull, "particles": particles,
    }  # fmt: skip
    redraw(model, pictures, out, shared, own, n=n, first=first)


@verb()
def outpaint(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    left: Annotated[int, typer.Option(help="Pixels to add on this side.")] = EDIT.left,
    right: Annotated[int, typer.Option(help="Pixels to add on this side.")] = EDIT.right,
    top: Annotated[int, typer.Option(help="Pixels to add on this side.")] = EDIT.top,
    bottom: Annotated[int, typer.Option(help="Pixels to add on this side.")] = EDIT.bottom,
    feather: Feather = EDIT.feather,
    method: Method = EDIT.method,
    jump: Jump = EDIT.jump,
    repeats: Repeats = EDIT.repeats,
    pull: Pull = EDIT.pull,
    particles: Particles = EDIT.particles,
    n: N = 4,
    first: First = DRAWN.first,
    *,
    shared: Shared,
) -> None:
    """Draw what is around pictures, on any side and as much as wanted; they themselves stay byte for byte."""
    own = {
        "kind": "outpaint", "left": left, "right": right, "top": top, "bottom": bottom, "feather": feather,
        "method": method, "jump": jump, "repeats": repeats, "pull": pull, "particles": particles,
    }  # fmt: skip
    redraw(model, pictures, out, shared, own, n=n, first=first)

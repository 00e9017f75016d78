"""`unnoise edit inpaint` and `outpaint`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, Feather, Hole, ModelFile, Out, Pictures, Results, Shared, Way, verb
from unnoise.cli.edit.work import redraw


@verb()
def inpaint(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    feather: Feather = EDIT.feather,
    *,
    hole: Hole,
    way: Way,
    results: Results,
    shared: Shared,
) -> None:
    """Draw what is in the holes of pictures; all around them stays byte for byte."""
    own = {"kind": "inpaint", "feather": feather, **hole.fields(), **way.fields()}
    redraw(model, pictures, out, shared, own, results)


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
    *,
    way: Way,
    results: Results,
    shared: Shared,
) -> None:
    """Draw what is around pictures, on any side and as much as wanted; they themselves stay byte for byte."""
    own = {
        "kind": "outpaint", "left": left, "right": right, "top": top, "bottom": bottom, "feather": feather,
        **way.fields(),
    }  # fmt: skip
    redraw(model, pictures, out, shared, own, results)

"""`unnoise edit stroke`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import (
    DRAWN,
    EDIT,
    Box,
    Feather,
    First,
    Mask,
    ModelFile,
    N,
    Out,
    Pictures,
    Shared,
    Strokes,
    parse_box,
    verb,
)
from unnoise.cli.edit.work import redraw


@verb()
def stroke(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    strength: Annotated[
        float, typer.Option(help="How far to go towards noise: 0 leaves a picture, 1 nothing of it.")
    ] = EDIT.strength,
    repeats: Annotated[int | None, typer.Option(help="Times that it goes there and back; 1.")] = EDIT.repeats,
    mask: Mask = EDIT.mask,
    box: Box = "",
    strokes: Strokes = EDIT.strokes,
    feather: Feather = EDIT.feather,
    n: N = 4,
    first: First = DRAWN.first,
    *,
    shared: Shared,
) -> None:
    """Make pictures of what was painted over them, or only in a hole: all around it stays byte for byte."""
    own = {
        "kind": "stroke", "strength": strength, "repeats": repeats, "mask": mask, "box": parse_box(box),
        "strokes": strokes, "feather": feather,
    }  # fmt: skip
    redraw(model, pictures, out, shared, own, n=n, first=first)

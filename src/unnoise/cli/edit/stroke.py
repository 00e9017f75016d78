"""`unnoise edit stroke`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, Feather, Hole, ModelFile, Out, Pictures, Results, Shared, verb
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
    feather: Feather = EDIT.feather,
    *,
    hole: Hole,
    results: Results,
    shared: Shared,
) -> None:
    """Make pictures of what was painted over them, or only in a hole: all around it stays byte for byte."""
    own = {"kind": "stroke", "strength": strength, "repeats": repeats, "feather": feather, **hole.fields()}
    redraw(model, pictures, out, shared, own, results)

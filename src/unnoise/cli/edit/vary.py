"""`unnoise edit vary`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import DRAWN, EDIT, First, ModelFile, N, Out, Pictures, Shared, verb
from unnoise.cli.edit.work import redraw


@verb()
def vary(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    strength: Annotated[
        float, typer.Option(help="How far to go towards noise: 0 leaves a picture, 1 nothing of it.")
    ] = EDIT.strength,
    n: N = 4,
    first: First = DRAWN.first,
    *,
    shared: Shared,
) -> None:
    """Draw variations of pictures: noised as far as the strength says, and drawn from there again."""
    redraw(model, pictures, out, shared, {"kind": "vary", "strength": strength}, n=n, first=first)

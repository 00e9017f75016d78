"""`unnoise edit vary`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, ModelFile, Out, Pictures, Results, Shared, verb
from unnoise.cli.edit.work import redraw


@verb()
def vary(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    strength: Annotated[
        float, typer.Option(help="How far to go towards noise: 0 leaves a picture, 1 nothing of it.")
    ] = EDIT.strength,
    *,
    results: Results,
    shared: Shared,
) -> None:
    """Draw variations of pictures: noised as far as the strength says, and drawn from there again."""
    redraw(model, pictures, out, shared, {"kind": "vary", "strength": strength}, results)

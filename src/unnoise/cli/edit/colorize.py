"""`unnoise edit colorize`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import (
    DRAWN,
    EDIT,
    First,
    Jump,
    Method,
    ModelFile,
    N,
    Out,
    Particles,
    Pictures,
    Pull,
    Repeats,
    Shared,
    verb,
)
from unnoise.cli.edit.work import redraw


@verb(without=("grey",))
def colorize(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    palette: Annotated[
        str, typer.Option(help="A picture whose colours to lead towards, of any size.")
    ] = EDIT.palette,
    palette_pull: Annotated[float, typer.Option(help="How strongly; 0 is off.")] = EDIT.palette_pull,
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
    """Draw the colours of grey pictures; of pictures in colour, others."""
    own = {
        "kind": "colorize", "palette": palette, "palette_pull": palette_pull, "method": method, "jump": jump,
        "repeats": repeats, "pull": pull, "particles": particles,
    }  # fmt: skip
    redraw(model, pictures, out, shared, own, n=n, first=first)

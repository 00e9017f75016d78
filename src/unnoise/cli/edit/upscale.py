"""`unnoise edit upscale`."""

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


@verb()
def upscale(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    factor: Annotated[
        int | None, typer.Option(help="How many times larger; an upsampler knows its own.")
    ] = EDIT.factor,
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
    """Draw the detail of small pictures, with any model, or one that was trained for it: an upsampler.

    Says how near a result is to its picture once it is shrunk again.
    """
    own = {
        "kind": "upscale", "factor": factor, "method": method, "jump": jump, "repeats": repeats, "pull": pull,
        "particles": particles,
    }  # fmt: skip
    for name, decibels in redraw(model, pictures, out, shared, own, n=n, first=first).items():
        typer.echo(f"{name}: consistency {decibels:.1f} dB")

"""`unnoise edit upscale`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, ModelFile, Out, Pictures, Results, Shared, Way, verb
from unnoise.cli.edit.work import redraw


@verb()
def upscale(
    model: ModelFile,
    pictures: Pictures,
    out: Out,
    factor: Annotated[
        int | None, typer.Option(help="How many times larger; not for an upsampler, which knows.")
    ] = EDIT.factor,
    *,
    way: Way,
    results: Results,
    shared: Shared,
) -> None:
    """Draw the detail of small pictures.

    MODEL is any model, which then holds what the small picture says, or an upsampler, which is told it. Says
    how near a result is to its picture once it is shrunk again.
    """
    own = {"kind": "upscale", "factor": factor, **way.fields()}
    for name, decibels in redraw(model, pictures, out, shared, own, results).items():
        typer.echo(f"{name}: consistency {decibels:.1f} dB")

"""`unnoise edit colorize`."""

from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, ModelFile, Out, Pictures, Results, Shared, Way, verb
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
    *,
    way: Way,
    results: Results,
    shared: Shared,
) -> None:
    """Draw the colours of grey pictures; of pictures in colour, others."""
    own = {"kind": "colorize", "palette": palette, "palette_pull": palette_pull, **way.fields()}
    redraw(model, pictures, out, shared, own, results)

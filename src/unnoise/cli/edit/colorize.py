"""`unnoise edit colorize`."""

from unnoise.cli.edit.shared import (
    DRAWN,
    EDIT,
    First,
    Jump,
    Method,
    ModelFile,
    N,
    Out,
    Pictures,
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
    method: Method = EDIT.method,
    jump: Jump = EDIT.jump,
    repeats: Repeats = EDIT.repeats,
    n: N = 4,
    first: First = DRAWN.first,
    *,
    shared: Shared,
) -> None:
    """Draw the colours of grey pictures; of pictures in colour, others."""
    own = {"kind": "colorize", "method": method, "jump": jump, "repeats": repeats}
    redraw(model, pictures, out, shared, own, n=n, first=first)

"""`unnoise edit interpolate`."""

from pathlib import Path
from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, ModelFile, Out, Shared, verb
from unnoise.cli.edit.work import working


@verb(without=("patch", "exact"))
def interpolate(
    model: ModelFile,
    out: Out,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PICTURE", help="Ends: pictures, or noise files of `edit invert`."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="S,...", help="Ends that are drawn: 7, or 7:3 for picture 3 of seed 7.")
    ] = "",
    mix: Annotated[
        str,
        typer.Option(help="x_T: on the sphere, in the noise; x_t: pictures half-way to noise, by strength."),
    ] = EDIT.mix,
    strength: Annotated[float, typer.Option(help="Of x_t: how far to go towards noise.")] = EDIT.strength,
    frames: Annotated[
        int, typer.Option(help="Pictures from one end to the next, both counted.")
    ] = EDIT.frames,
    animation: Annotated[bool, typer.Option("--animation", help="Write animation.gif too.")] = False,
    corrections: Annotated[
        int, typer.Option(help="Of x_T: network calls that correct each step from a picture to its noise.")
    ] = EDIT.corrections,
    *,
    shared: Shared,
) -> None:
    """Draw the way between pictures or seeds, as a strip, single pictures and an animation.

    Between ends of two classes the class changes half-way.
    """
    own = {
        "kind": "interpolate", "mix": mix, "strength": strength, "frames": frames, "corrections": corrections,
        "seeds": [seed for seed in seeds.split(",") if seed],
    }  # fmt: skip
    with working(model, out, shared, own) as work:
        from unnoise.edit.jobs import interpolate_files

        interpolate_files(work.folder, pictures or [], animation=animation)
        work.say_done("picture", "drawn")

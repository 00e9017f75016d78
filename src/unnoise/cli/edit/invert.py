"""`unnoise edit invert`."""

import statistics
from pathlib import Path
from typing import Annotated

import typer

from unnoise.cli.edit.shared import EDIT, ModelFile, Out, Shared, verb
from unnoise.cli.edit.work import working


@verb(without=("seed", "eta", "patch", "exact"))
def invert(
    model: ModelFile,
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="PICTURE", help="Pictures, folders of them, or noise files (.safetensors) to draw."
        ),
    ],
    out: Out,
    corrections: Annotated[
        int, typer.Option(help="Network calls that correct each step; each gives one order more.")
    ] = EDIT.corrections,
    *,
    shared: Shared,
) -> None:
    """Find the noise that a model draws pictures from, draw from it, and say what was lost on the way."""
    with working(model, out, shared, {"kind": "invert", "corrections": corrections}) as work:
        from unnoise.edit.jobs import invert_files

        found = invert_files(work.folder, pictures)
        work.say_done("picture", "done")
        for name, lost in found.items():
            typer.echo(f"{name}: PSNR {lost.psnr:.1f} dB, {_grey_levels(lost.mean, lost.largest)}")
        if len(found) > 1:
            trips = found.values()
            mean, largest = sum(each.mean for each in trips) / len(trips), max(each.largest for each in trips)
            decibels = statistics.median(each.psnr for each in trips)
            typer.echo(f"all {len(found)}: median PSNR {decibels:.1f} dB, {_grey_levels(mean, largest)}")


def _grey_levels(mean: float, largest: int) -> str:
    return f"{mean:.2f} grey levels in the mean, {largest} at most"

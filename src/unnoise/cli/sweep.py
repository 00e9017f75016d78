"""`unnoise sweep`: a grid over the options of drawing, measured, with the figures of its trade-offs."""

from pathlib import Path
from typing import Annotated

import typer

from unnoise.cli import reading
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.config.studies import POINT_SAMPLES, SweepRequest

_MEASURED = EvaluateRequest()
_DRAWN = GenerateRequest()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="sweep")(sweep)


def sweep(
    out: Annotated[Path, typer.Option(help="Folder of the sweep; the same command continues there.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Model files, run directories or a run's checkpoints."),
    ] = None,
    against: Annotated[
        str, typer.Option(help="A folder, zip, npz, data set, or a reference file with mu and sigma.")
    ] = "",
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUES", help="An axis: guidance=1,1.5,2, or steps=25;90,60,60,20,20."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of drawing that is the same everywhere; or data.labels=none.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]PATH", help="Others' samples (npz, zip, folder, evaluation.json)."),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Pictures a point.")] = POINT_SAMPLES,
    seed: Annotated[int, typer.Option(help="Of the noise, the same in every point.")] = _DRAWN.seed,
    features: Annotated[str, typer.Option(help="As of `evaluate`.")] = _MEASURED.features,
    weights: Annotated[str, typer.Option(help="Weights of the feature network.")] = "",
    size: Annotated[int | None, typer.Option(help="Crop pictures to squares of this side.")] = None,
    channels: Annotated[int | None, typer.Option(help="Read pictures as grey (1) or RGB (3).")] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="Pictures a side for precision, recall, density, coverage.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(help="Replicates behind the intervals; 0 for none.")
    ] = _MEASURED.bootstrap,
    floor: Annotated[bool, typer.Option(help="Measure real against real pictures too.")] = True,
    batch_size: Annotated[int, typer.Option(help="Pictures drawn side by side.")] = _DRAWN.batch_size,
    preset: Annotated[str, typer.Option(help="What network a .pt file is for, as of `sample`.")] = "",
    cache: Annotated[str | None, typer.Option(help="Folder for features; default the user's cache.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _DRAWN.device,
) -> None:
    """Sweep options of drawing and draw the trade-offs. The same command continues an interrupted sweep."""
    from unnoise.cli.sample import stoppable
    from unnoise.cli.studying import command_line, meter, refuse_processes

    refuse_processes()
    with stoppable():
        from unnoise.studies.grid import with_options
        from unnoise.studies.sweep import sweep as run
        from unnoise.studies.sweep_report import save_report
        from unnoise.studies.swept import aligned

        of_data, of_drawing = reading.apart(set_ or [])
        how, own = reading.settings_of_data(of_data, size=size, channels=channels, cache=cache)
        drawn = GenerateRequest(seed=seed, batch_size=batch_size, device=device)
        request = SweepRequest(
            models=tuple(models or ()),
            grid=tuple(grid or ()),
            also=tuple(also or ()),
            generate=with_options(drawn, of_drawing),
            evaluate=EvaluateRequest(
                against=against, features=features, weights=weights, n=n,
                neighbours=neighbours, bootstrap=bootstrap, floor=floor, extrapolate=False, data=how, **own,
                seed=seed, device=device,
            ),
            preset=preset,
        )  # fmt: skip
        with meter() as (stage, say):
            found = run(request, out, stage=stage, say=say)
        for line in aligned(found.table()):
            typer.echo(line)
        for text in found.warnings:
            typer.echo(f"warning: {text}", err=True)
        typer.echo(
            f"written: {save_report(found, out, command_line())}, sweep.json, sweep.csv, figures/*.svg"
        )

"""`unnoise ablate`: the variants of a grid trained at equal compute and measured."""

from pathlib import Path
from typing import Annotated

import typer

from unnoise.config.requests import EvaluateRequest
from unnoise.config.studies import POINT_SAMPLES
from unnoise.outputs import check_folder

_MEASURED = EvaluateRequest()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="ablate")(ablate)


def ablate(
    grid: Annotated[
        Path, typer.Argument(metavar="GRID", help="A .yaml of a base and variants, as in docs/sweeps.md.")
    ],
    data: Annotated[str, typer.Option(help="As of `train`.")],
    out: Annotated[Path, typer.Option(help="Folder of the ablation; the same command continues there.")],
    minutes: Annotated[float | None, typer.Option(help="Of training, for each variant.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of training, instead of minutes.")] = None,
    against: Annotated[str, typer.Option(help="Reference; default the training pictures.")] = "",
    n: Annotated[int, typer.Option("-n", help="Pictures that a variant is measured on.")] = POINT_SAMPLES,
    features: Annotated[str, typer.Option(help="As of `evaluate`.")] = _MEASURED.features,
    weights: Annotated[str, typer.Option(help="Weights of the feature network.")] = "",
    bootstrap: Annotated[
        int, typer.Option(help="Replicates behind the intervals; 0 for none.")
    ] = _MEASURED.bootstrap,
    cache: Annotated[str | None, typer.Option(help="Folder for features; default the user's cache.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _MEASURED.device,
) -> None:
    """Train variants of a recipe at equal compute and print what each changes. Continues when repeated."""
    from unnoise.cli.progress import TrainProgress
    from unnoise.cli.sample import stoppable
    from unnoise.cli.studying import command_line, meter, refuse_processes

    refuse_processes()
    check_folder(out, "ablation")
    with stoppable():
        from dataclasses import replace

        from unnoise.config.load import read_config
        from unnoise.config.studies import AblationGrid, AblationRequest
        from unnoise.studies.ablate import measure_variants, prepare, train_variants
        from unnoise.studies.ablate_report import READING, save_report
        from unnoise.studies.swept import aligned

        if not grid.is_file():
            raise ValueError(f"{grid} does not exist; name a .yaml of variants")
        settings = read_config(AblationGrid, grid)
        on_device = {} if device == "auto" else {"device": device}
        request = AblationRequest(
            grid=replace(
                settings,
                set=settings.set | on_device,
                generate=replace(settings.generate, device=device),
            ),
            data=data,
            minutes=minutes,
            steps=steps,
            evaluate=EvaluateRequest(
                against=against, features=features, weights=weights, n=n, bootstrap=bootstrap,
                extrapolate=False, cache=cache, device=device,
            ),
        )  # fmt: skip
        with meter() as (stage, _):
            prepared = prepare(request, stage=stage)
        trained = []
        for variant, result in train_variants(prepared, out, lambda name, run: TrainProgress(run)):
            trained.append((variant, result))
            typer.echo(f"{variant.name}: {result.message or f'{result.steps} steps'}", err=True)
            if result.stopped in ("SIGINT", "SIGTERM"):
                raise typer.Exit(result.exit_status)
        with meter() as (stage, say):
            found = measure_variants(prepared, trained, out, stage=stage, say=say)
        for line in aligned(found.table(found.metrics[:1])):
            typer.echo(line)
        typer.echo(READING)
        for text in found.warnings:
            typer.echo(f"warning: {text}", err=True)
        typer.echo(f"written: {save_report(found, out, command_line())}, ablation.json, figures/*.svg")
        if any(row.failed for row in found.rows):
            raise typer.Exit(1)

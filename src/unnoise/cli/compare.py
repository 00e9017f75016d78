"""`unnoise compare`: a pixel diffusion model, a latent one and a GAN, trained for one time and measured."""

import re
from pathlib import Path
from typing import Annotated

import typer

from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.config.studies import POINT_SAMPLES, CompareRequest
from unnoise.outputs import check_folder

_MEASURED = EvaluateRequest()
_DEFAULT = CompareRequest()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="compare")(compare)


def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As of `train`.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; the same command continues there.")],
    budget: Annotated[
        str,
        typer.Option(help="Of training, for each model: 30m, 90s, 1.5h; a first stage is in its model's."),
    ] = "30m",
    models: Annotated[str, typer.Option(help="Which of pixel, latent, gan.")] = ",".join(_DEFAULT.models),
    pixel: Annotated[
        str, typer.Option(help="Recipe of the pixel model: a preset or a .yaml.")
    ] = _DEFAULT.pixel,
    stage: Annotated[str, typer.Option(help="Recipe of the first stage.")] = _DEFAULT.stage,
    latent: Annotated[str, typer.Option(help="Recipe of the latent model.")] = _DEFAULT.latent,
    gan: Annotated[str, typer.Option(help="Recipe of the GAN; default gan-28 or gan-64.")] = _DEFAULT.gan,
    stage_share: Annotated[
        float, typer.Option(help="Of the latent model's time, for its first stage.")
    ] = _DEFAULT.stage_share,
    guidance: Annotated[
        str, typer.Option(help="Scales that the diffusion models are swept over.")
    ] = "1.5,2,3,4",
    truncation: Annotated[
        str, typer.Option(help="Truncations that the GAN is swept over.")
    ] = "0.3,0.5,0.7,1,1.5",
    steps: Annotated[
        str, typer.Option(help="Of the diffusion models, as of `sample`.")
    ] = _DEFAULT.generate.steps,
    n: Annotated[int, typer.Option("-n", help="Pictures that a point is measured on.")] = POINT_SAMPLES,
    against: Annotated[str, typer.Option(help="Reference; default the training pictures.")] = "",
    size: Annotated[int | None, typer.Option(help="Side of the pictures, pixels.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3.")] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the pictures, for all models.")
    ] = False,
    features: Annotated[str, typer.Option(help="As of `evaluate`.")] = _MEASURED.features,
    weights: Annotated[str, typer.Option(help="Weights of the feature network.")] = "",
    bootstrap: Annotated[
        int, typer.Option(help="Replicates behind the intervals; 0 for none.")
    ] = _MEASURED.bootstrap,
    seed: Annotated[int, typer.Option(help="Of training and of what is drawn.")] = _DEFAULT.seed,
    cache: Annotated[str | None, typer.Option(help="Folder for features; default the user's cache.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _MEASURED.device,
) -> None:
    """Train three kinds of models for the same time and compare them. Continues when repeated."""
    from unnoise.cli.progress import TrainProgress
    from unnoise.cli.sample import stoppable
    from unnoise.cli.studying import command_line, meter, refuse_processes

    refuse_processes()
    minutes = minutes_of(budget)
    check_folder(out, "comparison")
    with stoppable():
        from unnoise.studies.compare import measure_all, train_all
        from unnoise.studies.compare_report import save_report
        from unnoise.studies.contenders import prepare
        from unnoise.studies.swept import aligned
        from unnoise.words import duration

        request = CompareRequest(
            data=data, minutes=minutes, stage_share=stage_share,
            pixel=pixel, stage=stage, latent=latent, gan=gan,
            models=tuple(name.strip() for name in models.split(",") if name.strip()),
            guidance=_numbers("guidance", guidance), truncation=_numbers("truncation", truncation),
            size=size, channels=channels, flip=flip, seed=seed,
            generate=GenerateRequest(steps=steps),
            evaluate=EvaluateRequest(
                against=against, features=features, weights=weights, n=n, bootstrap=bootstrap,
                extrapolate=False, cache=cache, seed=seed, device=device,
            ),
        )  # fmt: skip
        with meter() as (told, _):
            prepared = prepare(request, stage=told)
        trained = {}
        left = sum(prepared.seconds(training.name) for training in prepared.trainings)
        typer.echo(f"{len(prepared.trainings)} trainings, {duration(left)} in all, then drawing", err=True)
        for training, result in train_all(prepared, out, lambda name, run: TrainProgress(run)):
            trained[training.name] = result
            left -= prepared.seconds(training.name)
            done = result.message or f"{result.steps} steps in {duration(result.seconds)}"
            typer.echo(f"{training.name}: {done}; {duration(left)} of training left", err=True)
            if result.stopped:
                raise typer.Exit(result.exit_status)
        with meter() as (told, say):
            found = measure_all(prepared, trained, out, stage=told, say=say)
        for rows in (found.costs(), found.table()):
            for line in aligned(rows):
                typer.echo(line)
        for text in found.warnings:
            typer.echo(f"warning: {text}", err=True)
        page = save_report(found, prepared.dataset, out, command_line())
        typer.echo(f"written: {page}, comparison.json, figures/*.svg")


def minutes_of(budget: str) -> float:
    """Minutes of a text such as 30m, 90s, 1.5h, 1h30m; a number alone is minutes."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|m|s|)", budget.strip().lower())
    if not parts or "".join(a + b for a, b in parts) != re.sub(r"\s", "", budget.lower()):
        raise ValueError(f"budget={budget!r} is no time; write it as 30m, 90s or 1h30m")
    return sum(float(number) * {"h": 60, "m": 1, "": 1, "s": 1 / 60}[unit] for number, unit in parts)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in text.split(",") if value.strip())
    except ValueError:
        raise ValueError(f"{name}={text!r} are no numbers; write them as 1,1.5,2") from None

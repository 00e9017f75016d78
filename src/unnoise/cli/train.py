"""`unnoise train`: a preset or a YAML file, data, and a run directory."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="train")(train)


def train(
    recipe: Annotated[str, typer.Argument(metavar="PRESET_OR_CONFIG", help="A preset or a .yaml file.")],
    data: Annotated[
        str | None,
        typer.Option(help="Folder, .zip, .npz, idx file, hf:NAME, or fashion-mnist."),
    ] = None,
    first_stage: Annotated[
        str | None,
        typer.Option(help="A first stage's file or run directory: learn its latents instead of pixels."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(help="A model of the same recipe whose weights are the beginning: fine-tuning."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/PRESET-N, a new one.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting; may be repeated.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps, in place of the recipe's steps or minutes.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Take as many steps as fit into this time.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step, over all processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random in the run.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    compile_: Annotated[str | None, typer.Option("--compile", help="auto, on or off.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse data with a broken picture.")] = False,
) -> None:
    """Train a model, or a classifier, on your pictures. The same command continues an interrupted run."""
    options: dict[str, Any] = {
        "data.source": data,
        "first_stage": first_stage,
        "start_from": start_from,
        "steps": steps,
        "minutes": minutes,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "precision": precision,
        "compile": compile_,
        "data.strict": strict or None,
    }
    named = [(key, value) for key, value in options.items() if value is not None]
    if steps is not None and minutes is None:
        named.append(("minutes", None))  # a recipe's own minutes would decide the steps
    assignments = [*named, *(set_ or [])]

    from unnoise.cli.progress import TrainProgress
    from unnoise.cli.runs import new_run
    from unnoise.config.load import read_config
    from unnoise.config.schema import TrainConfig
    from unnoise.presets import load_preset

    is_file = recipe.endswith((".yaml", ".yml"))
    if is_file and not Path(recipe).is_file():
        raise ValueError(f"{recipe} does not exist; name a YAML file or a preset (see `unnoise presets`)")
    config = (
        read_config(TrainConfig, Path(recipe), assignments)
        if is_file
        else load_preset(recipe, assignments).config
    )
    if not config.data.source:
        raise ValueError("no data named; add --data FOLDER (or --data fashion-mnist-10k to try it out)")
    if out is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("several processes need one run directory; name it with --out")
    named_run = new_run(Path("runs"), Path(recipe).stem) if out is None else contextlib.nullcontext(out)

    from unnoise.distributed import is_first
    from unnoise.train import train as run

    with named_run as out, TrainProgress(out, shown=is_first()) as progress:
        result = run(config, out, on_event=progress)
    progress.summary(result)
    if result.stopped is None and is_first():
        from unnoise.train.report import report_run

        report = report_run(out, result)
        if report:
            progress.say(f"report: {report}")
    raise typer.Exit(result.exit_status or bool(progress.broken))

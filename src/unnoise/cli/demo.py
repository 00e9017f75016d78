"""`unnoise demo`: the whole way in one command, on pictures that ship with the package."""

from pathlib import Path
from typing import Annotated

import typer

DATA = "fashion-mnist-10k"
PRESET = "demo-28"
COLUMNS, ROWS = 10, 8
"""Of the grid: a column a class."""
STEPS, GUIDANCE = 25, 2.0


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="demo")(demo)


def demo(
    minutes: Annotated[float, typer.Option(help="Time for training; drawing takes seconds more.")] = 3.5,
    out: Annotated[Path, typer.Option(help="Where the numbered runs are.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Of everything random in the run.")] = 0,
) -> None:
    """Train on small pictures of clothes, draw new ones, write a report to look at."""
    import io
    import time

    from unnoise.cli.progress import TrainProgress
    from unnoise.cli.runs import next_run
    from unnoise.generate import sample
    from unnoise.model import load_model
    from unnoise.presets import load_preset
    from unnoise.train import train
    from unnoise.train.report import write_report
    from unnoise.train.run import stored_config
    from unnoise.words import duration

    begun = time.monotonic()
    config = load_preset(PRESET, [("data.source", DATA), ("minutes", minutes), ("seed", seed)]).config
    run = next_run(out, "demo")
    with TrainProgress(run) as progress:
        result = train(config, run, on_event=progress)
    if result.stopped:
        progress.say(result.message)
        raise typer.Exit(result.exit_status)

    progress.say("drawing a grid")
    model = load_model(run)
    sheet = sample(model, n=COLUMNS * ROWS, steps=str(STEPS), guidance=GUIDANCE, seed=seed).grid(COLUMNS)
    sheet.save(run / "grid.png")
    png = io.BytesIO()
    sheet.save(png, format="PNG")

    spent = time.monotonic() - begun
    report = write_report(
        run,
        stored_config(run) or config,
        title="A diffusion model that draws clothes",
        facts={
            "trained for": duration(result.seconds),
            "altogether": duration(spent),
            "steps": f"{result.steps:,}",
            "parameters": f"{sum(p.numel() for p in model.network.parameters()) / 1e6:.2f} million",
            "pictures it learned from": "10,000",
        },
        grids=[
            (
                png.getvalue(),
                f"{len(model.classes)} classes, one a column; DDIM with {STEPS} steps, "
                f"classifier-free guidance {GUIDANCE:g}, seed {seed}.",
            )
        ],
        command=f"unnoise train {PRESET} --data {DATA} --steps {result.steps} --seed {seed} --out ANOTHER",
    )
    typer.echo(f"pictures: {run / 'grid.png'}")
    typer.echo(f"report:   {report}")
    progress.say(f"draw more: unnoise sample {run} -n 64 --label sneaker --guidance 2 --out {run / 'drawn'}")

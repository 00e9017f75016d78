"""`unnoise demo`: the whole way in one command, on pictures that ship with the package."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unnoise.config.requests import EvaluateRequest
    from unnoise.config.schema import TrainConfig
    from unnoise.metrics.result import Evaluation
    from unnoise.model import Model

DATA = "fashion-mnist-10k"
PRESET = "demo-28"
COLUMNS, REAL_ROWS = 10, 2
"""Of a sheet: a column a class."""
SAMPLER, STEPS, GUIDANCE = "ddim", 25, 2.0
FEATURES = "unnoise-small"
ABOUT = (
    "Every picture began as pure noise. The network has learned to say what noise was added to a picture; "
    "taking a little of it away, again and again, leaves something that could have been among the pictures "
    "it learned from, 28x28 photographs of clothes (Fashion-MNIST, Zalando SE, MIT licence)."
)
FEWEST, MOST = 20, 100_000
"""Pictures that can be measured at all, and in a demo."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="demo")(demo)


def demo(
    minutes: Annotated[float, typer.Option(help="Time for training; the rest takes under a minute.")] = 3.5,
    samples: Annotated[int, typer.Option(help="Pictures to draw and measure.")] = 200,
    out: Annotated[Path, typer.Option(help="Where the numbered runs are.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Of everything random in the run.")] = 0,
) -> None:
    """Train on small pictures of clothes, draw new ones, measure them, write a report to look at."""
    if samples < FEWEST:
        raise ValueError(f"samples={samples} is too few to measure; use {FEWEST} or more")
    if samples > MOST:
        raise ValueError(f"samples={samples} is too many for a demo; use up to {MOST:,}")
    import time

    from unnoise.cli.progress import TrainProgress
    from unnoise.cli.runs import new_run
    from unnoise.cli.sample import stoppable
    from unnoise.config.requests import EvaluateRequest
    from unnoise.metrics.evaluate import evaluate
    from unnoise.model import load_model
    from unnoise.presets import load_preset
    from unnoise.train import train
    from unnoise.train.check import check
    from unnoise.train.run import stored_config
    from unnoise.words import duration

    begun = time.monotonic()
    config = load_preset(PRESET, [("data.source", DATA), ("minutes", minutes), ("seed", seed)]).config
    check(config, processes=1)
    with new_run(out, "demo") as run, TrainProgress(run) as progress:
        result = train(config, run, on_event=progress)
    if result.stopped:
        progress.say(result.message)
        raise typer.Exit(result.exit_status)

    with stoppable():
        model = load_model(run)
        progress.say(f"drawing {samples} pictures")
        _draw(model, run, samples, seed)
        progress.say("measuring them")
        asked = EvaluateRequest(samples=str(run / "drawn"), against=DATA, features=FEATURES, seed=seed)
        evaluation = evaluate(asked)
        evaluation.save(run / "evaluation.json")
    facts = {
        "trained for": duration(result.seconds),
        "altogether": duration(time.monotonic() - begun),
        "steps": f"{result.steps:,}",
        "parameters": f"{sum(p.numel() for p in model.network.parameters()) / 1e6:.2f} million",
        "training pictures": "10,000",
    }
    report = _report(run, stored_config(run) or config, facts, asked, evaluation)
    for line in evaluation.lines():
        typer.echo(line)
    typer.echo(f"pictures: {run / 'drawn' / 'grid.png'}")
    typer.echo(f"report:   {report}")
    progress.say(f"draw more: {_more(run)}")


def _more(run: Path) -> str:
    return f"unnoise sample {run} -n 64 --label sneaker --guidance {GUIDANCE:g} --out {run / 'sneakers'}"


def _draw(model: "Model", run: Path, samples: int, seed: int) -> None:
    """Pictures in run/drawn, as `unnoise sample` leaves them."""
    from unnoise import __version__
    from unnoise.config.requests import GenerateRequest
    from unnoise.job import Job, run_job
    from unnoise.metrics.weights import file_hash
    from unnoise.modelfile import find_model
    from unnoise.planning import plan

    request = GenerateRequest(n=samples, sampler=SAMPLER, steps=str(STEPS), guidance=GUIDANCE, seed=seed)
    weights = file_hash(find_model(run))
    about = {"Software": f"unnoise {__version__}", "model-sha256": weights}
    run_job(plan(model, request), Job(out=run / "drawn", weights=weights, about=about))


def _report(
    run: Path,
    config: "TrainConfig",
    facts: dict[str, str],
    asked: "EvaluateRequest",
    evaluation: "Evaluation",
) -> Path:
    """The page of the run with what was drawn and how good it is."""
    from unnoise import html
    from unnoise.metrics import report
    from unnoise.train.report import write_report

    drawn = (run / "drawn" / "grid.png").read_bytes()
    repeat = f"unnoise train {PRESET} --data {DATA} --steps {config.steps} --seed {config.seed} --out ANOTHER"
    return write_report(
        run,
        config,
        title="A diffusion model that draws clothes",
        facts=facts,
        sections=[
            html.section(
                "Drawn by the model",
                html.paragraph(ABOUT),
                html.picture(
                    drawn,
                    f"A class a column. {SAMPLER.upper()} with {STEPS} steps, classifier-free guidance "
                    f"{GUIDANCE:g}, seed {config.seed}.",
                ),
                html.picture(_real(config.seed), "Real pictures of the same classes."),
            ),
            report.metrics_section(evaluation, html.paragraph(report.lead(evaluation))),
            report.memorisation_section(evaluation, report.sheets(asked, evaluation)),
        ],
        closing=[
            report.protocol_section(evaluation),
            html.section("What to do next", html.code(_next(run))),
        ],
        command=repeat,
    )


def _real(seed: int) -> bytes:
    """A sheet of real pictures, a column a class."""
    import numpy as np

    from unnoise.config.schema import DataConfig
    from unnoise.data import open_data
    from unnoise.images import grid
    from unnoise.metrics.report import png

    data = open_data(DataConfig(source=DATA))
    assert data.labels is not None
    random = np.random.default_rng(seed)
    columns = [random.permutation(np.flatnonzero(data.labels == k))[:REAL_ROWS] for k in range(COLUMNS)]
    chosen = np.stack(columns, 1).reshape(-1)
    return png(grid(data.take(chosen).pixels, COLUMNS, [data.classes[k] for k in data.labels[chosen]]))


def _next(run: Path) -> str:
    measure = f"unnoise evaluate {run} --against {DATA} --features {FEATURES}"
    return f"""\
# draw more, of one class
{_more(run)}

# watch pictures come out of the noise: denoising.gif
unnoise sample {run} -n 20 --frames --out {run / "film"}

# measure more of them
{measure} \\
    -n 1000 --guidance {GUIDANCE:g} --out {run / "evaluation"}

# train on your own pictures: a folder, with a sub-folder a class if there are classes
unnoise train fashion-28 --data my/pictures --minutes 10 --out runs/mine"""

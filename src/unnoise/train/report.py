"""The report of a run: what was trained on what, its loss, its pictures, its time, in one HTML file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise import __version__, html
from unnoise.config.resolve import settings_yaml
from unnoise.config.schema import TrainConfig
from unnoise.model import write_atomically
from unnoise.train import noisy_report
from unnoise.train.events import TrainResult
from unnoise.train.run import stored_config
from unnoise.words import duration


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a kill cut short is left out."""
    path = run / "metrics.jsonl"
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def report_run(run: Path, result: TrainResult) -> Path | None:
    """The report of a finished run with its last grid; None without grids, and for a plain classifier."""
    config = stored_config(run)
    grids = sorted((run / "samples").glob("step-*.png"))
    if config is None or config.kind == "classifier" or not grids:
        return None
    recipe = config.preset or "config.yaml"
    heading = "Drawn by the model"
    caption = f"Drawn from the average, DDIM with {config.sample_steps} steps."
    if config.kind == "noisy_classifier":
        heading, caption = noisy_report.HEADING, noisy_report.CAPTION
    return write_report(
        run,
        config,
        title=f"{recipe} on {config.data.source}",
        facts={
            "trained for": duration(result.seconds),
            "steps": f"{result.steps:,}",
            "pictures a step": f"{config.batch_size:,}",
            "skipped steps": f"{result.skipped:,}",
        },
        heading=heading,
        grids=[(grids[-1].read_bytes(), caption)],
        sections=noisy_report.sections(run, read_log(run)) if config.kind == "noisy_classifier" else (),
        command=f"unnoise train {run / 'config.yaml'} --out ANOTHER",
    )


def write_report(
    run: Path,
    config: TrainConfig,
    *,
    title: str,
    facts: dict[str, str],
    grids: Sequence[tuple[bytes, str]],
    command: str,
    heading: str = "Drawn by the model",
    sections: Sequence[str] = (),
) -> Path:
    """Write run/report.html: the facts, PNG grids with their captions, loss curves, settings.

    heading: of the grids; sections: built ones, to stand after them.
    """
    log = [line for line in read_log(run) if "loss" in line]
    steps = [line["step"] for line in log]
    curves = {"all t": (steps, [line["loss"] for line in log])}
    for quarter, name in enumerate(("1st quarter of t", "2nd", "3rd", "4th")):
        key = f"loss/q{quarter}"
        with_quarter = [line for line in log if key in line]
        if with_quarter:
            curves[name] = ([line["step"] for line in with_quarter], [line[key] for line in with_quarter])
    text = html.page(
        title,
        f"A run of unnoise {__version__}, in {run}.",
        html.facts(facts),
        html.section(heading, *(html.picture(png, caption) for png, caption in grids)),
        *sections,
        html.section(
            "Loss",
            html.line_chart(
                curves,
                x_label="step",
                y_label="loss",
                log_y=True,
                caption="Means over the steps between two points; the 1st quarter of t is nearly clean.",
            ),
        ),
        html.section(
            "Settings",
            html.paragraph("The same command on the same data repeats this run."),
            html.code(command),
            html.code(settings_yaml(config), summary="config.yaml, complete"),
        ),
    )
    path = run / "report.html"
    write_atomically(path, text.encode())
    return path

"""The report of a run: what was trained on what, its loss, its pictures, its time, in one HTML file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unnoise import __version__, html
from unnoise.chart import Chart, Curve
from unnoise.config.resolve import settings_yaml
from unnoise.config.schema import TrainConfig
from unnoise.modelfile import write_atomically
from unnoise.train import autoencoder_report, gan_report, noisy_report
from unnoise.train.evaluation import PREFIX
from unnoise.train.events import TrainResult
from unnoise.train.run import stored_config
from unnoise.words import duration

CHARTS = (
    (
        ("FD", "FID"),
        "distance",
        "Frechet distance of few pictures, biased alike at every step: lower is better",
    ),
    (
        ("KID",),
        "distance",
        "Kernel distance of the same pictures: lower is better, 0 for equal distributions",
    ),
    (("precision", "recall"), "share", "Precision and recall of the same pictures: higher is better"),
)
"""Families of metrics that share a chart, its axis, its caption."""

WHOLE = {"gan": "generator", "autoencoder": "loss"}
"""Kind of training -> name of its whole loss, where that is no mean over t."""
SIGNED = {
    "gan": "a game's losses have no goal.",
    "autoencoder": "a negative log-likelihood, which falls below 0 where its variance is learned.",
}
"""Kind of training whose loss may be negative -> what to say of it."""
QUARTERS = "the 1st quarter of t is nearly clean."
"""What to say of the others."""


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
    if config.kind == "autoencoder":
        heading, caption = autoencoder_report.HEADING, autoencoder_report.CAPTION
    if config.kind == "gan":
        heading, caption = gan_report.HEADING, gan_report.CAPTION
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
        sections=[
            html.section(heading, html.picture(grids[-1].read_bytes(), caption)),
            *(noisy_report.sections(run, read_log(run)) if config.kind == "noisy_classifier" else ()),
            *(gan_report.sections(read_log(run)) if config.kind == "gan" else ()),
            *(autoencoder_report.sections(config.autoencoder, read_log(run)) if config.autoencoder else ()),
        ],
        command=f"unnoise train {run / 'config.yaml'} --out ANOTHER",
    )


def evaluation_section(log: Sequence[dict[str, Any]]) -> str:
    """Curves of what was measured while it learned; "" where nothing was."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in log:
        for key, value in line.items():
            if key.startswith(PREFIX) and value is not None:
                points.setdefault(key.removeprefix(PREFIX), []).append((line["step"], value))
    charts = []
    for families, label, caption in CHARTS:
        curves = [
            Curve(name=name, x=[x for x, _ in found], y=[y for _, y in found], marked=True)
            for name, found in points.items()
            if name.split("[")[0] in families
        ]
        if curves:
            chart = Chart(
                curves=curves, x_label="step", y_label=label, caption=caption, width=470, height=270
            )
            charts.append(html.figure(chart))
    return html.section("Measured while it learned", html.side_by_side(charts)) if charts else ""


def write_report(
    run: Path,
    config: TrainConfig,
    *,
    title: str,
    facts: dict[str, str],
    sections: Sequence[str],
    command: str,
    closing: Sequence[str] = (),
) -> Path:
    """Write run/report.html: facts, sections, the run's curves, closing sections, settings.

    command: what repeats the run.
    """
    log = read_log(run)
    text = html.page(
        title,
        f"A run of unnoise {__version__}, in {run}.",
        html.facts(facts),
        *sections,
        evaluation_section(log),
        html.section("Loss", html.figure(_loss(config, log))),
        *closing,
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


def _loss(config: TrainConfig, log: Sequence[Mapping[str, Any]]) -> Chart:
    """What was minimised, by the quarter of t where there is one."""
    names = {"loss": WHOLE.get(config.kind, "all t")}
    names |= {
        f"loss/q{quarter}": name for quarter, name in enumerate(("1st quarter of t", "2nd", "3rd", "4th"))
    }
    curves = []
    for key, name in names.items():
        lines = [line for line in log if key in line and "loss" in line]
        if lines or key == "loss":
            curves.append(
                Curve(name=name, x=[line["step"] for line in lines], y=[line[key] for line in lines])
            )
    return Chart(
        curves=curves,
        x_label="step",
        y_label="loss",
        log_y=config.kind not in SIGNED,
        caption=f"Means over the steps between two points; {SIGNED.get(config.kind, QUARTERS)}",
    )

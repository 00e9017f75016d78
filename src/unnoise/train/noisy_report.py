"""What a report says of a classifier of noisy pictures: how often it is right, and whether it knows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise import html
from unnoise.chart import Chart, Curve

HEADING = "What it says"
CAPTION = (
    "Held-out pictures as they are, then at several t, with the answers; a wrong one has a question mark."
)
NAMES = {
    "all": "all t",
    "q0": "1st quarter of t",
    "q1": "2nd quarter",
    "q2": "3rd quarter",
    "q3": "4th quarter",
}
"""Part of the schedule, as in the log -> its name for people; the 1st quarter is nearly clean."""


def sections(run: Path, log: Sequence[dict[str, Any]]) -> list[str]:
    """Accuracy by quarter of t, its course, and reliability; nothing for a run without a validation."""
    found = sorted((run / "samples").glob("step-*.json"))
    if not found:
        return []
    measured = json.loads(found[-1].read_text(encoding="utf-8"))
    return [
        html.section("Accuracy on held-out pictures", _table(measured), html.figure(_course(log))),
        html.section(
            "Calibration",
            html.paragraph(
                "Guidance follows the gradient of its log-probability: where it is surer than it is right, "
                "the same scale pulls harder."
            ),
            html.figure(_reliability(measured)),
        ),
    ]


def _table(measured: dict[str, Any]) -> str:
    header = ["", "pictures", "cross-entropy", *measured["all"]["accuracy"], "calibration error"]
    rows = [
        [
            NAMES[part],
            f"{numbers['pictures']:,}",
            f"{numbers['loss']:.4f}",
            *(f"{100 * share:.1f} %" for share in numbers["accuracy"].values()),
            f"{numbers['calibration_error']:.3f}",
        ]
        for part, numbers in measured.items()
    ]
    return html.table(header, rows)


def _course(log: Sequence[dict[str, Any]]) -> Chart:
    curves = []
    for part, name in NAMES.items():
        key = "validation/accuracy@1" + ("" if part == "all" else f"/{part}")
        lines = [line for line in log if line.get(key) is not None]
        if lines:
            curves.append(
                Curve(name=name, x=[line["step"] for line in lines], y=[line[key] for line in lines])
            )
    return Chart(
        curves=curves, x_label="step", y_label="accuracy@1", caption="Of the average of the weights."
    )


def _reliability(measured: dict[str, Any]) -> Chart:
    curves = [Curve(name="calibrated", x=[0, 1], y=[0, 1], dashed=True)]
    for part, numbers in measured.items():
        table = numbers["reliability"]
        if part != "all":
            curves.append(Curve(name=NAMES[part], x=table["confidence"], y=table["accuracy"], marked=True))
    return Chart(
        curves=curves,
        x_label="probability given to the answer",
        y_label="share of right answers",
        caption="Answers in bins by their probability; below the dashed line it is too sure of itself.",
    )

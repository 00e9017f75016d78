"""What a report says of a GAN's game: who is winning, and how many different pictures are still drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

from unnoise import html
from unnoise.chart import Chart, Curve

HEADING = "Drawn by the generator"
CAPTION = "Drawn from the average, with standing statistics; a class is a column where they are few."
CHARTS: tuple[tuple[Mapping[str, str], str, str], ...] = (
    (
        {"d/real": "real", "d/fake": "drawn"},
        "score",
        "What the discriminator says of real and drawn pictures: at 1 and -1 it asks for no more",
    ),
    (
        {"d/accuracy": "told right", "health/overfitting": "known by heart"},
        "share",
        "Share of pictures that it tells right (0.5: by chance), and how far it favours what it learned from",
    ),
    (
        {"health/diversity": "diversity", "health/near_copies": "near copies"},
        "share",
        "How much pictures of a class differ beside real ones, and how many nearly repeat another: 0 and 1 "
        "when collapsed",
    ),
    (
        {
            f"health/{owner}/{name}": f"{owner}, {name}"
            for owner in ("generator", "discriminator")
            for name in ("first", "ratio")
        },
        "value",
        "The largest singular value of any weight, and the largest ratio of a first to a second: they jump "
        "before a collapse",
    ),
)
"""(name in the log -> name of the curve, axis, caption)."""


def sections(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """The course of the game."""
    charts = []
    for names, label, caption in CHARTS:
        curves = [
            Curve(name=title, x=[x for x, _ in points], y=[y for _, y in points])
            for name, title in names.items()
            if (points := [(line["step"], line[name]) for line in log if line.get(name) is not None])
        ]
        chart = Chart(curves=curves, x_label="step", y_label=label, caption=caption, width=470, height=270)
        charts.append(html.figure(chart))
    return [html.section("The game", html.side_by_side(charts))]

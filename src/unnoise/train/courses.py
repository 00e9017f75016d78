"""Charts of how numbers of the log went, for the reports of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unnoise import html
from unnoise.chart import Chart, Curve


@dataclass(frozen=True, kw_only=True)
class Course:
    """Curves that share a chart."""

    curves: Mapping[str, str]
    """Name in the log -> name of the curve."""
    label: str
    """Of the axis."""
    caption: str


def figures(log: Sequence[Mapping[str, Any]], courses: Sequence[Course]) -> str:
    """A chart of each course that the log has anything of, side by side; "" for none."""
    charts = []
    for course in courses:
        curves = [
            Curve(name=title, x=[x for x, _ in points], y=[y for _, y in points])
            for name, title in course.curves.items()
            if (points := [(line["step"], line[name]) for line in log if line.get(name) is not None])
        ]
        if curves:
            chart = Chart(
                curves=curves, x_label="step", y_label=course.label, caption=course.caption,
                width=470, height=270,
            )  # fmt: skip
            charts.append(html.figure(chart))
    return html.side_by_side(charts) if charts else ""

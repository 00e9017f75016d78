"""What a sweep found: points with their evaluations, as JSON, CSV and a table for people."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unnoise import __version__
from unnoise.metrics.result import Evaluation, Metric, number
from unnoise.modelfile import write_atomically
from unnoise.studies.grid import Axis

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A point of the grid, measured."""

    name: str
    """Such as "guidance=2, steps=25": the axes that have several values."""
    texts: dict[str, str]
    """Axis -> its value here, as it was written."""
    request: dict[str, Any]
    steps: int
    """Steps from noise to picture."""
    training_step: int
    """Optimiser steps behind the model."""
    evaluation: Evaluation
    folder: Path
    """Where its pictures and its evaluation are."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All points of a sweep, and other people's samples beside them."""

    axes: tuple[Axis, ...]
    """Those that have several values."""
    points: tuple[Swept, ...]
    also: tuple[tuple[str, Evaluation], ...]
    """(name, evaluation) of samples that nobody here drew."""
    against: str
    n: int
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> list[Metric]:
        """The first point's: names and directions that all share."""
        return list(self.points[0].evaluation.metrics)

    @property
    def floors(self) -> dict[str, float]:
        """Metric -> the same between real and real pictures, one for all points as their N is equal."""
        return {m.name: m.floor for p in self.points for m in p.evaluation.metrics if m.floor is not None}

    def best(self, metric: Metric) -> Swept:
        """The point that is best by a metric."""
        sign = 1 if metric.better == "lower" else -1
        return min(self.points, key=lambda p: sign * p.evaluation[metric.name].value)

    def tied(self, metric: Metric) -> list[Swept]:
        """Points whose interval of a metric meets the best one's, the best included."""
        best = self.best(metric)
        span = best.evaluation[metric.name].interval
        if span is None:
            return [best]
        return [p for p in self.points if _meet(p.evaluation[metric.name].interval, span)]

    def rows(self) -> list[tuple[str, Evaluation]]:
        """Every line of the table."""
        return [(p.name or "the model", p.evaluation) for p in self.points] + list(self.also)

    def save(self, out: Path) -> None:
        """Write sweep.json and sweep.csv."""
        write_atomically(out / "sweep.json", self.to_json().encode())
        write_atomically(out / "sweep.csv", self.to_csv().encode())

    def to_json(self) -> str:
        """Everything, as JSON."""
        content = {
            "unnoise_sweep": FORMAT,
            "unnoise": __version__,
            "against": self.against,
            "n": self.n,
            "axes": {axis.name: list(axis.texts) for axis in self.axes},
            "floors": self.floors,
            "points": [
                {
                    "name": p.name,
                    "options": p.texts,
                    "request": p.request,
                    "steps": p.steps,
                    "training_step": p.training_step,
                    "folder": str(p.folder),
                    "metrics": [asdict(m) for m in p.evaluation.metrics],
                    "protocol": p.evaluation.protocol,
                }
                for p in self.points
            ],
            "also": [
                {"name": name, "metrics": [asdict(m) for m in e.metrics], "protocol": e.protocol}
                for name, e in self.also
            ],
            "warnings": list(self.warnings),
        }
        return json.dumps(content, indent=1, default=str) + "\n"

    def to_csv(self) -> str:
        """A line for each point and each of the other samples; metrics with both ends of their interval."""
        names = [m.name for m in self.metrics]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        spans = [column for name in names for column in (name, f"{name} low", f"{name} high")]
        writer.writerow(["samples", *(axis.name for axis in self.axes), "n", *spans])
        for k, (name, evaluation) in enumerate(self.rows()):
            options = self.points[k].texts if k < len(self.points) else {}
            found = {m.name: m for m in evaluation.metrics}
            cells: list[Any] = [name, *(options.get(axis.name, "") for axis in self.axes)]
            cells.append(evaluation.protocol.get("samples_n", ""))
            for m in (found.get(metric) for metric in names):
                cells += [m.value, *(m.interval or ("", ""))] if m else ["", "", ""]
            writer.writerow(cells)
        return text.getvalue()

    def table(self) -> list[list[str]]:
        """A header and rows for people; the feature network that all names share stands once, in the corner.

        * marks the best of a metric, and what the intervals cannot tell from it.
        """
        names = [m.name for m in self.metrics]
        network = self.points[0].evaluation.protocol["features"]
        marked = {m.name: {p.name for p in self.tied(m)} for m in self.metrics}
        table = [[f"[{network}]", *(name.removesuffix(f"[{network}]") for name in names)]]
        for k, (name, evaluation) in enumerate(self.rows()):
            found = {m.name: m for m in evaluation.metrics}
            ours = k < len(self.points)
            stars = ["*" if ours and name in marked[m] else "" for m in names]
            table.append(
                [name, *(with_span(found.get(m)) + star for m, star in zip(names, stars, strict=True))]
            )
        if self.floors:
            table.append(["real vs real", *(number(self.floors.get(name)) for name in names)])
        return table


def _meet(a: tuple[float, float] | None, b: tuple[float, float]) -> bool:
    return a is not None and a[0] <= b[1] and b[0] <= a[1]


def with_span(metric: Metric | None) -> str:
    """Such as "12.3 ± 0.4", for people; the half width of an interval that was cut is its longer half."""
    if metric is None:
        return ""
    if metric.interval is None:
        return number(metric.value)
    return f"{number(metric.value)} ± {margin(metric):.2g}"


def summary(name: str, evaluation: Evaluation) -> str:
    """The first metrics, for a line of progress."""
    numbers = ", ".join(f"{m.name} {with_span(m)}" for m in evaluation.metrics[:2])
    return f"{name}: {numbers}" if name else numbers


def margin(metric: Metric) -> float:
    """Half width of the interval; the longer half where an end was cut at what is possible."""
    assert metric.interval is not None
    return max(metric.interval[1] - metric.value, metric.value - metric.interval[0])


def aligned(table: list[list[str]]) -> list[str]:
    """Rows as lines of equally wide columns."""
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]

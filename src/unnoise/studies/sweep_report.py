"""A sweep as figures and a self-contained page: every metric against every option that was swept, precision
against recall, the pictures of every point.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from unnoise import __version__, html
from unnoise.chart import Chart, Curve, svg
from unnoise.metrics.features import family
from unnoise.metrics.report import meaning, save_page
from unnoise.metrics.result import Evaluation, Metric, number
from unnoise.studies.grid import MODEL, Axis
from unnoise.studies.points import SAMPLES, strip
from unnoise.studies.swept import Sweep, Swept

WIDTH, HEIGHT = 480, 300
SHOWN = 12
"""Pictures of each point on the page."""
SIDE = 64
"""Pixels of the page that a picture is wide."""
UNBROKEN = "\u00a0±\u00a0"
LOG_RATIO = 20
"""Positive values that reach so many times the smallest are drawn on a logarithmic axis."""
PLANES = (("recall", ("precision",)), ("is", ("fid", "fd")))
"""(across, up): metrics that are traded for one another (arXiv 2105.05233, Figure 5)."""


def figures(sweep: Sweep) -> dict[str, Chart]:
    """File name -> chart: metrics that are traded for one another, then all of them against every axis."""
    found = {}
    names = {_plain(m.name): m for m in sweep.metrics}
    for across, ups in PLANES:
        up = next((names[name] for name in ups if name in names), None)
        if across in names and up:
            found[f"{_plain(up.name)}-{across}"] = _plane(sweep, names[across], up)
    for axis in _drawn_axes(sweep):
        for metric in sweep.metrics:
            found[f"{_plain(metric.name)}-{axis.name}"] = _against(sweep, axis, metric)
    return found


def save_report(sweep: Sweep, out: Path, command: str) -> Path:
    """Write sweep.html and figures/*.svg; returns the page."""
    charts = figures(sweep)
    for name, chart in charts.items():
        save_page(out / "figures" / f"{name}.svg", svg(chart, alone=True))
    save_page(out / "sweep.html", page(sweep, charts, command))
    return out / "sweep.html"


def page(sweep: Sweep, charts: dict[str, Chart], command: str) -> str:
    """The whole page."""
    options = " x ".join(f"{len(axis.texts)} of {axis.name}" for axis in sweep.axes) or "one point"
    lead = (
        f"{len(sweep.points)} points ({options}), {sweep.n:,} samples each from the same noise, "
        f"against {sweep.against}; unnoise {__version__}."
    )
    drawn = [html.figure(chart) for chart in charts.values()]
    return html.page(
        "Sweep",
        lead,
        html.facts(dict(_best(sweep, m) for m in sweep.metrics[:6])),
        *(html.paragraph(text, warning=True) for text in sweep.warnings),
        html.section("Trade-offs", html.side_by_side(drawn), html.paragraph(_reading(sweep))),
        html.section("Numbers", _table(sweep)),
        html.section("Pictures", *_pictures(sweep)),
        html.section("Again", html.code(command)),
    )


def _best(sweep: Sweep, metric: Metric) -> tuple[str, str]:
    best = sweep.best(metric)
    place = f", at {best.name}" if best.name else ""
    return f"best {metric.name}{place}", number(best.evaluation[metric.name].value)


def _reading(sweep: Sweep) -> str:
    floors = " Real vs real is what a perfect model would reach at this N." if sweep.floors else ""
    return (
        "Bars are 95 % intervals over redrawn samples, the reference held fixed. All points share their "
        f"noise, so that differences between neighbours are surer than the bars.{floors}"
    )


def _table(sweep: Sweep) -> str:
    head, *rows = sweep.table()
    words = "; ".join(f"{m.name}: {meaning(m.name)}" for m in sweep.metrics if meaning(m.name))
    note = f"* the best, and what the intervals cannot tell from it. {words}."
    whole = [[cell.replace(" ± ", UNBROKEN) for cell in row] for row in rows]
    return html.table(head, whole) + html.paragraph(note)


def _pictures(sweep: Sweep) -> Iterator[str]:
    for p in sweep.points:
        if (p.folder / SAMPLES).is_dir():
            row = strip(p.folder / SAMPLES, SHOWN)
            yield html.picture(row, p.name or "the model", width=SIDE * SHOWN)


def _plain(metric: str) -> str:
    """Of a metric's name, what a file may be called."""
    return family(metric).lower()


def _drawn_axes(sweep: Sweep) -> list[Axis]:
    """Axes that figures are drawn against: those of numbers, else the last one."""
    numeric = [axis for axis in sweep.axes if _numbers(sweep, axis)]
    return numeric or list(sweep.axes[-1:])


def _numbers(sweep: Sweep, axis: Axis) -> dict[str, float] | None:
    """Text -> number of every value of an axis; None where they are names."""
    values: dict[str, float] = {}
    for p in sweep.points:
        text = p.texts[axis.name]
        try:
            values[text] = float(text)
        except ValueError:
            known = {MODEL: p.training_step, "steps": p.steps}.get(axis.name, 0)
            values[text] = float(known) if known else math.nan
    distinct = len(set(values.values())) == len(values)
    return values if distinct and all(map(math.isfinite, values.values())) else None


def _against(sweep: Sweep, axis: Axis, metric: Metric) -> Chart:
    """A metric against an option; a curve for each combination of the others."""
    numbers = _numbers(sweep, axis)
    place = numbers or {text: float(k) for k, text in enumerate(axis.texts)}
    xs = list(place.values())
    label = "training step" if axis.name == MODEL and numbers else axis.name
    curves = []
    for name, points in _groups(sweep, axis):
        points = sorted(points, key=lambda p: place[p.texts[axis.name]])
        curves.append(
            Curve(
                name=name,
                x=[place[p.texts[axis.name]] for p in points],
                y=[p.evaluation[metric.name].value for p in points],
                y_spans=[p.evaluation[metric.name].interval for p in points],
                marked=True,
            )
        )
    return Chart(
        curves=curves,
        levels=_levels(sweep, metric),
        x_label=label,
        y_label=metric.name,
        caption=f"{metric.name} against {label} ({metric.better} is better)",
        log_x=numbers is not None and min(xs) > 0 and max(xs) / min(xs) >= LOG_RATIO,
        x_names=() if numbers else [Path(t).stem if axis.name == MODEL else t for t in axis.texts],
        width=WIDTH,
        height=HEIGHT,
    )


def _groups(sweep: Sweep, axis: Axis | None) -> list[tuple[str, list[Swept]]]:
    """Points by the values of the axes other than this one."""
    others = [other.name for other in sweep.axes if axis is None or other.name != axis.name]
    found: dict[str, list[Swept]] = {}
    for p in sweep.points:
        name = ", ".join(f"{other}={p.texts[other]}" for other in others)
        found.setdefault(name or "this sweep", []).append(p)
    return list(found.items())


def _levels(sweep: Sweep, metric: Metric) -> list[tuple[str, float]]:
    levels = [("real vs real", sweep.floors[metric.name])] if metric.name in sweep.floors else []
    for name, evaluation in sweep.also:
        levels += [(name, m.value) for m in evaluation.metrics if m.name == metric.name]
    return levels


def _plane(sweep: Sweep, across: Metric, up: Metric) -> Chart:
    """Two metrics against each other, a point for each of the sweep's and each of the others' samples."""
    axis = _drawn_axes(sweep)[0] if sweep.axes else None
    curves = []
    for name, points in _groups(sweep, axis):
        order = _numbers(sweep, axis) if axis else None
        if axis and order:
            points = sorted(points, key=lambda p, order=order: order[p.texts[axis.name]])
        notes = [p.texts[axis.name] if axis else "" for p in points]
        curves.append(_in_plane(name, [p.evaluation for p in points], across, up, notes))
    for name, evaluation in sweep.also:
        if {across.name, up.name} <= {m.name for m in evaluation.metrics}:
            curves.append(_in_plane(name, [evaluation], across, up, []))
    option = f", along {axis.name}" if axis else ""
    return Chart(
        curves=curves,
        x_label=across.name,
        y_label=up.name,
        caption=f"{up.name} against {across.name}{option}",
        width=WIDTH,
        height=HEIGHT,
    )


def _in_plane(
    name: str, evaluations: Sequence[Evaluation], across: Metric, up: Metric, notes: Sequence[str]
) -> Curve:
    x, y = ([e[m.name] for e in evaluations] for m in (across, up))
    return Curve(
        name=name,
        x=[m.value for m in x],
        y=[m.value for m in y],
        x_spans=[m.interval for m in x],
        y_spans=[m.interval for m in y],
        notes=notes,
        marked=True,
    )

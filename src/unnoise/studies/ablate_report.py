"""An ablation as a self-contained page: the table of differences, metrics against wall-clock and steps."""

from pathlib import Path

from unnoise import __version__, html
from unnoise.chart import Chart, Curve, svg
from unnoise.metrics.features import family
from unnoise.metrics.report import save_page
from unnoise.metrics.result import Metric
from unnoise.studies.ablated import Ablation, Measured, Row
from unnoise.studies.points import SAMPLES, strip
from unnoise.studies.sweep_report import HEIGHT, SHOWN, SIDE, UNBROKEN, WIDTH

READING = (
    "The baseline's numbers, then each variant's difference to it. * marks a difference beyond the 95 % "
    "interval of the two, which is of redrawn samples alone: training again with another seed moves numbers "
    "too. A variant that only changes the seed shows by how much."
)


def figures(ablation: Ablation) -> dict[str, Chart]:
    """File name -> chart: every metric against minutes of training, the first against steps too."""
    found = {}
    if not ablation.metrics:
        return found
    for metric in ablation.rows[0].points[-1].evaluation.metrics:
        plain = family(metric.name).lower()
        found[f"{plain}-minutes"] = _chart(ablation, metric, "minutes of training")
        if not found.keys() - {f"{plain}-minutes"}:
            found[f"{plain}-steps"] = _chart(ablation, metric, "steps")
    return found


def _chart(ablation: Ablation, metric: Metric, x_label: str) -> Chart:
    def place(p: Measured) -> float:
        return p.step if x_label == "steps" else p.seconds / 60

    curves = []
    for row in ablation.rows:
        values = [p.evaluation[metric.name] for p in row.points]
        curves.append(
            Curve(
                name=row.name,
                x=[place(p) for p in row.points],
                y=[m.value for m in values],
                y_spans=[m.interval for m in values],
                marked=True,
            )
        )
    return Chart(
        curves=curves,
        levels=[("real vs real", metric.floor)] if metric.floor is not None else [],
        x_label=x_label,
        y_label=metric.name,
        caption=f"{metric.name} against {x_label} ({metric.better} is better)",
        width=WIDTH,
        height=HEIGHT,
    )


def save_report(ablation: Ablation, out: Path, command: str) -> Path:
    """Write ablation.html and figures/*.svg; returns the page."""
    charts = figures(ablation)
    for name, chart in charts.items():
        save_page(out / "figures" / f"{name}.svg", svg(chart, alone=True))
    save_page(out / "ablation.html", page(ablation, charts, command))
    return out / "ablation.html"


def page(ablation: Ablation, charts: dict[str, Chart], command: str) -> str:
    """The whole page."""
    equal = "steps" if ablation.minutes is None else f"{ablation.minutes:g} minutes"
    lead = (
        f"{len(ablation.rows)} variants of {ablation.base} on {ablation.data}, trained for equal {equal}; "
        f"{ablation.n:,} samples each against {ablation.against}; unnoise {__version__}."
    )
    changes = [(row.name, ", ".join(row.changes), row.failed) for row in ablation.rows]
    head, *rows = ablation.table(ablation.metrics)
    whole = [[cell.replace(" ± ", UNBROKEN) for cell in row] for row in rows]
    return html.page(
        "Ablation",
        lead,
        *(html.paragraph(text, warning=True) for text in ablation.warnings),
        html.section("Differences", html.table(head, whole), html.paragraph(READING)),
        html.section("Variants", html.table(("variant", "changes", ""), changes)),
        html.section("Against compute", html.side_by_side([html.figure(c) for c in charts.values()])),
        html.section("Pictures", *_pictures(ablation.rows)),
        html.section("Again", html.code(command)),
    )


def _pictures(rows: tuple[Row, ...]) -> list[str]:
    """The first pictures of each variant at the end of its training."""
    last = [(row.name, row.points[-1].folder / SAMPLES) for row in rows if row.points]
    strips = [(name, strip(folder, SHOWN)) for name, folder in last if folder.is_dir()]
    return [html.picture(row, name, width=SIDE * SHOWN) for name, row in strips]

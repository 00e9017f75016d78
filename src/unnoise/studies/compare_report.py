"""A comparison as figures and a self-contained page."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unnoise import __version__, html
from unnoise.chart import Chart, Curve, svg
from unnoise.data import Dataset
from unnoise.images import to_pil
from unnoise.metrics.features import family
from unnoise.metrics.report import meaning, save_page
from unnoise.metrics.result import Metric, number
from unnoise.studies.compared import TITLES, Comparison, Contender
from unnoise.studies.points import SAMPLES, strip
from unnoise.studies.sweep_report import HEIGHT, SHOWN, SIDE, UNBROKEN, WIDTH
from unnoise.words import duration

PLANES = (("recall", "precision"), ("coverage", "density"))
"""(across, up): diversity against quality."""


def figures(found: Comparison) -> dict[str, Chart]:
    """File name -> chart: quality against diversity along every sweep, the distance along the same."""
    names = {family(m.name).lower(): m for m in found.metrics}
    charts = {}
    for across, up in PLANES:
        if across in names and up in names:
            charts[f"{up}-{across}"] = _plane(found, names[across], names[up])
    if "recall" in names:
        charts["distance-recall"] = _plane(found, names["recall"], found.distance)
    return charts


def save_report(found: Comparison, dataset: Dataset, out: Path, command: str) -> Path:
    """Write comparison.html and figures/*.svg; returns the page."""
    charts = figures(found)
    for name, chart in charts.items():
        save_page(out / "figures" / f"{name}.svg", svg(chart, alone=True))
    save_page(out / "comparison.html", page(found, dataset, charts, command))
    return out / "comparison.html"


def page(found: Comparison, dataset: Dataset, charts: dict[str, Chart], command: str) -> str:
    """The whole page."""
    lead = (
        f"{len(found.contenders)} models of {found.data}, each trained for {duration(60 * found.minutes)}; "
        f"{found.n:,} samples a point against {found.against}; unnoise {__version__}."
    )
    costs_head, *costs = found.costs()
    return html.page(
        "Comparison",
        lead,
        html.facts(dict(_best(found, c) for c in found.contenders)),
        *(html.paragraph(text, warning=True) for text in found.warnings),
        html.section("Quality and diversity", _table(found.table()), html.paragraph(_reading(found))),
        html.section(
            "Trading one for the other",
            html.side_by_side([html.figure(chart) for chart in charts.values()]),
            html.paragraph(
                "A curve is a model along its own dial, from the model as it is: guidance of the diffusion "
                "models, truncation of the GAN. Up and to the right is better; of the distance, down and to "
                "the right."
            ),
        ),
        html.section("What they took", html.table(costs_head, costs)),
        html.section("Pictures", *_pictures(found, dataset)),
        html.section("Every setting", _table(found.everything())),
        html.section("Again", html.code(command)),
    )


def _best(found: Comparison, contender: Contender) -> tuple[str, str]:
    metric = found.distance.name
    best = contender.best(metric)
    at = f" at {best.setting}" if best.setting else ""
    return f"{metric} of {TITLES[contender.kind]}{at}", number(best.evaluation[metric].value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return html.table(head, [[cell.replace(" ± ", UNBROKEN) for cell in row] for row in rest])


def _reading(found: Comparison) -> str:
    words = "; ".join(f"{m.name}: {meaning(m.name)}" for m in found.metrics if meaning(m.name))
    if found.judged is None:
        judge = f"k-means of the real pictures into {found.kinds} clusters"
    else:
        judge = f"a regression on features, right on {found.judged:.1%} of held-out real pictures"
    return (
        f"Each model as it is, then at the setting of its lowest distance. The judge is {judge}: IS[judge] "
        "is its Inception Score, and a kind is lost when it finds fewer than a tenth of what it would among "
        "real pictures of the kinds asked for. Near-copies are of real pictures: 1 % of fresh ones are. "
        "Repeats: samples with another sample less than half as far away as a real picture's nearest one. "
        "Intervals (95 %) are of redrawn samples: training again with another seed moves numbers too. "
        f"{words}."
    )


def _pictures(found: Comparison, dataset: Dataset) -> list[str]:
    """Real pictures, then the first ones of every model: of the same classes, in turn."""
    parts = [html.picture(real_strip(dataset, SHOWN), "real", width=SIDE * SHOWN)]
    for c in found.contenders:
        best = c.best(found.distance.name)
        for spot in {id(each): each for each in (c.plain, best)}.values():
            folder = spot.folder / SAMPLES
            if folder.is_dir():
                name = TITLES[c.kind] + (f", {spot.setting}" if spot.setting else "")
                parts.append(html.picture(strip(folder, SHOWN), name, width=SIDE * SHOWN))
    return parts


def real_strip(dataset: Dataset, count: int) -> bytes:
    """Real pictures side by side as PNG, their classes in turn as models draw them."""
    if dataset.labels is None:
        chosen = np.arange(min(count, len(dataset)))
    else:
        turns: dict[int, int] = {}
        chosen = np.zeros(0, np.int64)
        members = [np.flatnonzero(dataset.labels == k) for k in range(len(dataset.classes))]
        for place in range(count):
            k = place % len(members)
            if len(members[k]):
                chosen = np.append(chosen, members[k][turns.get(k, 0) % len(members[k])])
                turns[k] = turns.get(k, 0) + 1
    row = np.concatenate(list(dataset.take(chosen).pixels.numpy()), axis=1)
    out = io.BytesIO()
    to_pil(row).save(out, "PNG", optimize=True)
    return out.getvalue()


def _plane(found: Comparison, across: Metric, up: Metric) -> Chart:
    curves = []
    for c in found.contenders:
        # The model as it is has no setting of its dial: guidance 1, or no truncation, an end of the curve.
        spots = c.spots if c.kind != "gan" else (*c.spots[1:], c.plain)
        x, y = ([spot.evaluation[m.name] for spot in spots] for m in (across, up))
        curves.append(
            Curve(
                name=TITLES[c.kind],
                x=[m.value for m in x],
                y=[m.value for m in y],
                x_spans=[m.interval for m in x],
                y_spans=[m.interval for m in y],
                notes=[spot.setting.partition("=")[2] or "as it is" for spot in spots],
                marked=True,
            )
        )
    return Chart(
        curves=curves,
        x_label=across.name,
        y_label=up.name,
        caption=f"{up.name} against {across.name}, along guidance and truncation ({up.better} is better)",
        width=WIDTH,
        height=HEIGHT,
    )

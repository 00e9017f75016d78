"""An evaluation as a self-contained page: the numbers with their intervals, the pictures, the protocol."""

import io
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise import html
from unnoise.config.requests import EvaluateRequest
from unnoise.images import grid, to_pil, written_aside
from unnoise.metrics.features import family
from unnoise.metrics.reference import is_reference
from unnoise.metrics.result import Comparison, Evaluation, Metric, number
from unnoise.metrics.sources import Pictures, open_pictures

SHOWN = 40
COLUMNS = 10
PAIRS = 10
PICTURES, MEMORISATION = "Pictures", "Memorisation"
WORDS = {
    "FD": "distance of the distributions: lower is better, and real pictures reach the floor",
    "rFD": "distance of the reconstructions' distribution: lower is better",
    "sFD": "the same on spatial features, which see the layout: lower is better",
    "KID": "distance without bias of few samples: lower is better, 0 for equal distributions",
    "IS": "certain classes, all of them: higher is better",
    "precision": "share of samples that look real",
    "recall": "share of real pictures that the samples could be",
    "density": "how densely samples lie among real pictures; 1 for equal distributions",
    "coverage": "share of real pictures with a sample near by",
    "PSNR": "error of the reconstructions, dB: higher is better",
    "SSIM": "structural similarity of the reconstructions, up to 1",
    "consistency": "error of the enlarged pictures after shrinking them again, dB: higher is better",
    "LPIPS": "perceived distance of the reconstructions: lower is better",
}


def meaning(name: str) -> str:
    """A metric in a few words."""
    return WORDS.get(family(name).replace("FID", "FD"), "")


Sheets = Mapping[str, Mapping[str, bytes]]
"""Section of the page -> caption -> PNG."""


def sheets(request: EvaluateRequest, evaluation: Evaluation) -> Sheets:
    """Some samples, some real pictures, and pairs of both, where there are pictures."""
    samples = open_pictures(request.samples, request, n=request.n)
    shown = {f"{min(SHOWN, samples.n)} of {samples.n:,} samples": _sheet(samples, request.seed)}
    if is_reference(request.against) and not evaluation.nearest:
        return {PICTURES: shown}
    try:
        real = open_pictures(request.against, request)
    except ValueError:  # a reference of statistics and features holds no pictures
        return {PICTURES: shown}
    shown[f"{min(SHOWN, real.n)} of {real.n:,} real pictures"] = _sheet(real, request.seed)
    found = {PICTURES: shown}
    if evaluation.nearest:
        closest = [(int(k), int(j)) for k, j, _ in evaluation.nearest["closest"][:PAIRS]]
        caption = "The samples nearest to a real picture (above), and that picture (below)"
        found[MEMORISATION] = {caption: _pairs(samples, real, closest)}
    if request.paired:
        first = [(k, k) for k in range(min(PAIRS, samples.n))]
        found[PICTURES] = {"Reconstructions (above) of pictures (below)": _pairs(samples, real, first)}
    return found


def _pairs(samples: Pictures, real: Pictures, chosen: list[tuple[int, int]]) -> bytes:
    """Samples above real pictures."""
    above = samples.take([k for k, _ in chosen])
    below = _fitted(real.take([j for _, j in chosen]), samples)
    return png(grid(torch.cat([above, below]), columns=len(chosen)))


def _fitted(pixels: torch.Tensor, like: Pictures) -> torch.Tensor:
    height, width, _ = like.shape
    if tuple(pixels.shape[1:3]) == (height, width):
        return pixels
    return torch.from_numpy(np.stack([np.array(to_pil(p).resize((width, height))) for p in pixels])).reshape(
        len(pixels), height, width, -1
    )


def _sheet(pictures: Pictures, seed: int) -> bytes:
    order = torch.randperm(pictures.n, generator=torch.Generator().manual_seed(seed))
    if pictures.is_model:
        order = torch.arange(pictures.n)  # the first ones, in their classes' turn
    return png(grid(pictures.take(order[:SHOWN].tolist()), columns=COLUMNS))


def png(pixels: np.ndarray) -> bytes:
    """A picture, uint8 (H, W, C), as a PNG."""
    out = io.BytesIO()
    to_pil(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def page(evaluation: Evaluation, pictures: Sheets | None = None) -> str:
    """The whole page; `pictures` as `sheets` makes them."""
    shown = pictures or {}
    return html.page(
        "Evaluation",
        lead(evaluation),
        html.facts({m.name: number(m.value) for m in evaluation.metrics[:6]}),
        metrics_section(evaluation),
        html.section(PICTURES, *_figures(shown[PICTURES])) if PICTURES in shown else "",
        memorisation_section(evaluation, shown),
        protocol_section(evaluation),
    )


def lead(evaluation: Evaluation) -> str:
    """What was compared with what, in a sentence."""
    protocol = evaluation.protocol
    reference_n = protocol.get("reference_n")
    return (
        f"{protocol['samples_n']:,} samples of {evaluation.samples} against "
        f"{f'{reference_n:,} pictures of ' if reference_n else ''}{evaluation.against}, "
        f"features: {protocol['features']}."
    )


def metrics_section(evaluation: Evaluation, *before: str) -> str:
    """The table of all metrics, how to read it, and what to be warned of; paragraphs `before` it."""
    warnings = [html.paragraph(text, warning=True) for text in evaluation.warnings]
    return html.section("Metrics", *before, _table(evaluation), html.paragraph(_reading()), *warnings)


def memorisation_section(evaluation: Evaluation, pictures: Sheets) -> str:
    """The share of near-copies and the closest pairs; "" where they were not looked for."""
    near = evaluation.nearest
    if not near:
        return ""
    text = (
        f"{100 * near['share_of_near_copies']:.1f} % of the samples lie nearer to a real picture than 99 % "
        "of real pictures lie to each other. Fresh pictures give about 1 %; much more is memorisation."
    )
    return html.section(MEMORISATION, html.paragraph(text), *_figures(pictures.get(MEMORISATION, {})))


def protocol_section(evaluation: Evaluation) -> str:
    """All that the numbers depend on."""
    settings = json.dumps(evaluation.protocol, indent=2, default=str)
    return html.section("Protocol", _protocol(evaluation), html.code(settings, summary="all of it"))


def _figures(pictures: Mapping[str, bytes]) -> list[str]:
    return [html.picture(content, caption) for caption, content in pictures.items()]


def _reading() -> str:
    return (
        "Intervals are 95 %, over redrawn samples with the reference held fixed; those of precision, recall, "
        "density and coverage hold the neighbourhoods fixed too. Real vs real is the same number between two "
        "parts of the reference: what a perfect model would reach. At infinite N is the value without the "
        "bias of few samples."
    )


def _table(evaluation: Evaluation) -> str:
    head = ("value", "95 % interval", "real vs real", "at infinite N")
    rows = []
    for m in evaluation.metrics:
        span = f"{number(m.interval[0])} – {number(m.interval[1])}" if m.interval else ""
        cells = (number(m.value), span, number(m.floor), number(m.infinite))
        text = meaning(m.name) + (f" ({m.note})" if m.note else "")
        rows.append(
            "<tr>"
            + f"<td>{escape(m.name)}<small>{escape(text)}</small></td>"
            + "".join(f'<td class="number">{escape(c)}</td>' for c in cells)
            + f"<td>{_strip(m)}</td></tr>"
        )
    numbers = "".join(f'<th class="number">{cell}</th>' for cell in head)
    return (
        f"<figure><table><thead><tr><th>metric</th>{numbers}<th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        "<figcaption>Bars: the interval, the value (dark), real vs real (green).</figcaption></figure>"
    )


def _strip(m: Metric) -> str:
    """The interval as a bar from 0 to the largest number of its row."""
    if m.interval is None:
        return ""
    known = [m.value, *m.interval, *([] if m.floor is None else [m.floor])]
    low, high = min(0.0, *known), max(known)
    if not high > low:
        return ""

    def x(value: float) -> float:
        return 4 + 112 * (value - low) / (high - low)

    begin, end = (x(v) for v in m.interval)
    floor = ""
    if m.floor is not None:
        floor = f'<rect x="{x(m.floor) - 1:.1f}" y="2" width="2" height="14" fill="#3a7d44"/>'
    return (
        '<svg viewBox="0 0 120 18" style="width:120px" aria-hidden="true">'
        '<line class="grid" x1="4" x2="116" y1="9" y2="9"/>'
        f'<rect x="{begin:.1f}" y="6" width="{max(end - begin, 1):.1f}" height="6" rx="2" fill="#8fb8d3"/>'
        f'{floor}<rect x="{x(m.value) - 1.25:.1f}" y="3" width="2.5" height="12" fill="#2a6f97"/></svg>'
    )


def _protocol(evaluation: Evaluation) -> str:
    p = evaluation.protocol
    rows = [
        ("feature network", f"{p['features']} ({p['preprocess']})"),
        ("its weights", p["weights_hash"][:16]),
        ("precision", f"{p['precision']}; distances {p['distances']}"),
        ("definitions", f"{p.get('evaluator', 'adm')}'s"),
        ("samples", f"{p['samples_n']:,} of {_shape(p['samples_shape'])}"),
        (
            "reference",
            f"{f'{n:,}' if (n := p['reference_n']) else 'an unknown number'} of "
            + (_shape(p["reference_shape"]) if p["reference_shape"] else "pictures"),
        ),
    ]
    rows += _drawing(p["samples_facts"])
    rows.append(("time", f"{p['seconds']} s on {p['device']}"))
    return html.table(("", ""), rows)


def _drawing(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a model drew the samples, now or by `unnoise sample` before; nothing for other pictures."""
    made = facts if facts.get("kind") == "model" else facts.get("request", {})
    if "sampler" not in made:
        return []
    weights = f"file {made['model_sha256'][:16]}"
    if "training_step" in made:
        ema = f"average with rate {made['ema_rate']}" if made["ema_rate"] else "not averaged"
        weights = f"training step {made['training_step']:,}, {ema}, {weights}"
    return [
        ("weights", weights),
        ("sampler", f"{made['sampler']}, {made['steps']} steps, eta {made['eta']}, seed {made['seed']}"),
        ("guidance", f"{made['guidance']:g}, classifier-free" if made["guidance"] != 1 else "none"),
    ]


def _shape(shape: list[int] | None) -> str:
    if not shape:
        return "unknown size"
    return f"{shape[1]}x{shape[0]}, {'grey' if shape[2] == 1 else f'{shape[2]} channels'}"


def comparison_page(first: str, second: str, comparison: Comparison) -> str:
    """Two evaluations side by side."""
    verdicts = {"first": first, "second": second, "neither": "neither", "unknown": "no interval"}
    rows = [
        (
            d.name,
            number(d.first),
            number(d.second),
            "" if d.error is None else f"± {number(d.error)}",
            verdicts[d.better],
        )
        for d in comparison.differences
    ]
    notes = [html.paragraph(f"Not the same protocol: {t}", warning=True) for t in comparison.protocol]
    head = ("metric", first, second, "interval of the difference", "better")
    return html.page("Two evaluations", f"{first} and {second}", *notes, html.table(head, rows))


def save_page(path: Path, content: str) -> None:
    """Write a page, aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(content, encoding="utf-8")

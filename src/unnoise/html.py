"""Self-contained HTML pages of text, tables, pictures and line charts; they load nothing from elsewhere."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

COLOURS = ("#2a6f97", "#d1495b", "#3a7d44", "#8d6a9f", "#c77d1e", "#5b6770")


def page(title: str, lead: str, *sections: str) -> str:
    """A whole page of already built sections; `title` and `lead` are plain text."""
    style = resources.files("unnoise").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n'
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A heading and what follows it."""
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts)


def paragraph(text: str, *, warning: bool = False) -> str:
    """Plain text as a paragraph."""
    return f"<p{' class=warn' if warning else ''}>{escape(text)}</p>"


def facts(items: Mapping[str, str]) -> str:
    """Short labelled values side by side."""
    cells = "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in items.items())
    return f'<div class="facts">{cells}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells that read as numbers are aligned right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td{_number_class(cell)}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<figure><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></figure>"


def code(text: str, *, summary: str | None = None) -> str:
    """Preformatted text, folded away behind `summary` when given."""
    block = f"<pre>{escape(text)}</pre>"
    return f"<details><summary>{escape(summary)}</summary>{block}</details>" if summary else block


def picture(png: bytes, caption: str, *, width: int | None = None) -> str:
    """A PNG inside the page. `width` in CSS pixels enlarges small pictures without blurring."""
    data = base64.b64encode(png).decode()
    size = f' width="{width}"' if width else ""
    return (
        f'<figure><img{size} src="data:image/png;base64,{data}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    caption: str,
    log_y: bool = False,
) -> str:
    """Curves as inline SVG: name -> (x values, y values), not finite points left out."""
    width, height, left, bottom, top, right = 760, 310, 62, 40, 30, 14
    points = {
        name: [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y) and (y > 0 or not log_y)]
        for name, (xs, ys) in series.items()
    }
    everything = [point for curve in points.values() for point in curve]
    if not everything:
        return paragraph(f"{caption}: nothing recorded yet.")
    scale = math.log10 if log_y else float
    x_low, x_high = _range([x for x, _ in everything])
    y_low, y_high = _range([scale(y) for _, y in everything])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (scale(y) - y_low) / (y_high - y_low)
        return left + across * (width - left - right), height - bottom - up * (height - bottom - top)

    parts = []
    for tick in _log_ticks(y_low, y_high) if log_y else _ticks(y_low, y_high):
        y = height - bottom - (tick - y_low) / (y_high - y_low) * (height - bottom - top)
        label = f"{10**tick:.3g}" if log_y else f"{tick:.3g}"
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _ticks(x_low, x_high):
        x = left + (tick - x_low) / (x_high - x_low) * (width - left - right)
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick:,.6g}</text>')
    for colour, (name, curve) in zip(_cycle(len(points)), points.items(), strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve))
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{path}">'
            f"<title>{escape(name)}</title></polyline>"
        )
    for k, (colour, name) in enumerate(zip(_cycle(len(points)), points, strict=True)):
        x = left + 10 + k * 130
        parts.append(f'<rect x="{x}" y="9" width="12" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="15">{escape(name)}</text>')
    centre = left + (width - left) / 2
    turned = f"translate(14 {height / 2}) rotate(-90)"
    parts.append(f'<text x="{centre}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(y_label)}</text>')
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}">'
        + "".join(parts)
        + f"</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _cycle(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two values."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step) * step
    return [first + k * step for k in range(int((high - first) / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten between two logarithms; powers alone over many of them."""
    leading = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [math.log10(digit) + power for power in powers for digit in leading]
    return [tick for tick in ticks if low <= tick <= high]


def _number_class(cell: str) -> str:
    text = cell.replace(",", "").replace("%", "").replace(" ", "")
    try:
        float(text)
    except ValueError:
        return ""
    return ' class="number"'

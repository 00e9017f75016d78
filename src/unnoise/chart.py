"""Charts as SVG text: curves and points with intervals, dashed levels; linear, logarithmic or named axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = (
    *("#2a6f97", "#d1495b", "#3a7d44", "#8d6a9f", "#c77d1e", "#5b6770"),
    *("#2bb3b3", "#e48fb0", "#9aa51e", "#7a4a2b", "#8fb8de", "#1d2b53"),
)
STYLE = (
    "svg{background:#fff}svg text{fill:#667080;font:12px system-ui,sans-serif}"
    "svg .grid{stroke:#d8dde3;stroke-width:1}"
)
"""Of a chart that stands alone; inside a page its style sheet holds, dark mode included."""
LETTER = 6.6
"""Width of a letter of the legend, about."""
Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points of one name in the order of their line; those that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    x_spans: Sequence[Span | None] = ()
    """Interval of each x, none for all when empty."""
    y_spans: Sequence[Span | None] = ()
    notes: Sequence[str] = ()
    """Text beside each point."""
    marked: bool = False
    """Draw the points, not their line alone."""
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn on which axes."""

    curves: Sequence[Curve]
    levels: Sequence[tuple[str, float]] = ()
    """Names and heights of dashed lines across."""
    x_label: str
    y_label: str
    caption: str
    log_x: bool = False
    log_y: bool = False
    x_names: Sequence[str] = ()
    """What stands at x = 0, 1, 2, ... instead of numbers."""
    width: int = 760
    height: int = 310


@dataclass(frozen=True)
class _Point:
    """One that the axes can show."""

    x: float
    y: float
    x_span: Span | None
    y_span: Span | None
    note: str


@dataclass(frozen=True)
class _Axis:
    """From a value to its place in pixels."""

    low: float
    high: float
    log: bool
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        scaled = math.log10(value) if self.log else value
        share = (scaled - self.low) / (self.high - self.low)
        return self.begin + min(max(share, 0.0), 1.0) * (self.end - self.begin)

    def ticks(self, pattern: str) -> list[tuple[float, str]]:
        """Places and texts of its marks."""
        if self.log:
            return [(self(10**t), f"{10**t:,.4g}") for t in log_ticks(self.low, self.high)]
        return [(self(t), format(t, pattern)) for t in ticks(self.low, self.high)]


def svg(chart: Chart, *, alone: bool = False) -> str:
    """The chart as an <svg> element, with its own style where it stands alone; "" without a point to show."""
    points = [_points(curve, chart) for curve in chart.curves]
    everything = [point for curve in points for point in curve]
    if not everything:
        return ""
    named = [(curve.name, False) for curve in chart.curves if curve.name]
    legend, rows = _legend(named + [(name, True) for name, _ in chart.levels], chart.width)
    left, right, top, bottom = 62, chart.width - 14, 14 + 16 * rows, chart.height - 40
    free = any(curve.marked for curve in chart.curves)
    levels = [value for _, value in chart.levels if _finite(value, chart.log_y)]
    xs = [v for p in everything for v in (p.x, *(p.x_span or ()))]
    ys = [v for p in everything for v in (p.y, *(p.y_span or ()))] + levels
    across = _Axis(*_range(xs, chart.log_x, free), chart.log_x, left, right)
    up = _Axis(*_range(ys, chart.log_y, free), chart.log_y, bottom, top)
    parts = [*_frame(chart, across, up), *legend]
    for curve, shown, colour in zip(chart.curves, points, _cycle(len(points)), strict=True):
        parts += _draw(curve, shown, colour, across, up)
    for k, (_, value) in enumerate(chart.levels):
        if _finite(value, chart.log_y):
            colour = _cycle(len(chart.curves) + k + 1)[-1]
            parts.append(
                f'<line x1="{left}" x2="{right}" y1="{up(value):.1f}" y2="{up(value):.1f}" '
                f'stroke="{colour}" stroke-width="1.2" stroke-dasharray="5 4"/>'
            )
    own = (
        f' xmlns="http://www.w3.org/2000/svg" width="{chart.width}" height="{chart.height}"' if alone else ""
    )
    style = f"<style>{STYLE}</style>" if alone else ""
    return (
        f'<svg{own} viewBox="0 0 {chart.width} {chart.height}" role="img" '
        f'aria-label="{escape(chart.caption)}">{style}{"".join(parts)}</svg>'
    )


def _finite(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _points(curve: Curve, chart: Chart) -> list[_Point]:
    count = len(curve.x)
    nothing: list[Span | None] = [None] * count
    rows = zip(
        curve.x,
        curve.y,
        curve.x_spans or nothing,
        curve.y_spans or nothing,
        curve.notes or [""] * count,
        strict=True,
    )
    return [
        _Point(x, y, _shown(x_span, x, chart.log_x), _shown(y_span, y, chart.log_y), note)
        for x, y, x_span, y_span, note in rows
        if _finite(x, chart.log_x) and _finite(y, chart.log_y)
    ]


def _shown(span: Span | None, value: float, log: bool) -> Span | None:
    """An interval that a logarithmic axis can show."""
    return (span[0] if _finite(span[0], log) else value / 2, span[1]) if span else None


def _frame(chart: Chart, across: _Axis, up: _Axis) -> list[str]:
    """Grid lines, marks and the names of the axes."""
    left, right, bottom, top = across.begin, across.end, up.begin, up.end
    parts = []
    for y, label in up.ticks(",.6g"):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    named = [(across(k), name) for k, name in enumerate(chart.x_names)]
    room = (right - left) / max(1, len(named))
    for x, label in named or across.ticks(",.6g"):
        text = escape(_cut(label, room) if named else label)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    middle, turned = (left + right) / 2, f"translate(14 {(top + bottom) / 2:.0f}) rotate(-90)"
    parts.append(
        f'<text x="{middle}" y="{chart.height - 4}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(chart.y_label)}</text>')
    return parts


def _draw(curve: Curve, points: list[_Point], colour: str, across: _Axis, up: _Axis) -> list[str]:
    """One curve: intervals under the line, points and their notes on top."""
    parts = []
    for p in points:
        upright = [(p.x, end) for end in p.y_span or ()]
        level = [(end, p.y) for end in p.x_span or ()]
        for ends in filter(None, (upright, level)):
            (x1, y1), (x2, y2) = ((across(a), up(b)) for a, b in ends)
            parts.append(
                f'<line class="interval" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                f'stroke="{colour}" stroke-width="5" stroke-opacity="0.3"/>'
            )
    path = " ".join(f"{across(p.x):.1f},{up(p.y):.1f}" for p in points)
    dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
    parts.append(
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.8"{dashes} points="{path}">'
        f"<title>{escape(curve.name)}</title></polyline>"
    )
    for p in points if curve.marked else ():
        x, y = across(p.x), up(p.y)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        if p.note:
            if x + 6 + 6 * len(p.note) <= across.end + 14:
                place = f'x="{x + 6:.1f}" y="{y - 6:.1f}"'
            else:  # it would be cut off: below and to the left
                place = f'text-anchor="end" x="{x - 6:.1f}" y="{y + 16:.1f}"'
            parts.append(f"<text {place}>{escape(p.note)}</text>")
    return parts


def _legend(names: Sequence[tuple[str, bool]], width: int) -> tuple[list[str], int]:
    """Swatches and names in as many rows as they need."""
    parts, x, row = [], 72.0, 0
    for colour, (name, dashed) in zip(_cycle(len(names)), names, strict=True):
        name = _cut(name, width - 110)
        needed = 18 + LETTER * len(name) + 16
        if x > 72 and x + needed > width:
            x, row = 72.0, row + 1
        y = 11 + 16 * row
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        parts.append(
            f'<line x1="{x:.0f}" x2="{x + 13:.0f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"'
            f"{dashes}/>"
        )
        parts.append(f'<text x="{x + 18:.0f}" y="{y + 4}">{escape(name)}</text>')
        x += needed
    return parts, row + 1


def _cut(text: str, room: float) -> str:
    most = max(4, int(room / LETTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cycle(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _range(values: Sequence[float], log: bool, free: bool) -> Span:
    """Ends of an axis, with some room beyond where points are drawn."""
    scaled = [math.log10(v) for v in values if v > 0] if log else [v for v in values if math.isfinite(v)]
    low, high = min(scaled), max(scaled)
    if low == high:
        return low - 0.5, high + 0.5
    room = 0.05 * (high - low) if free else 0.0
    return low - room, high + room


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two values."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step) * step
    return [first + k * step for k in range(int((high - first) / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten between two logarithms; powers alone over many of them."""
    leading = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    marks = [math.log10(digit) + power for power in powers for digit in leading]
    return [mark for mark in marks if low <= mark <= high]

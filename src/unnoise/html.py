"""Self-contained HTML pages of text, tables, pictures and line charts; they load nothing from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from unnoise.chart import Chart, Curve, svg


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
    curves = [Curve(name=name, x=xs, y=ys) for name, (xs, ys) in series.items()]
    return figure(Chart(curves=curves, x_label=x_label, y_label=y_label, caption=caption, log_y=log_y))


def figure(chart: Chart) -> str:
    """A chart inside the page, with its caption."""
    drawn = svg(chart)
    if not drawn:
        return paragraph(f"{chart.caption}: nothing recorded yet.")
    return f"<figure>{drawn}<figcaption>{escape(chart.caption)}</figcaption></figure>"


def side_by_side(parts: Sequence[str]) -> str:
    """Figures in as many columns as the page has room for."""
    return f'<div class="figures">{"".join(parts)}</div>'


def _number_class(cell: str) -> str:
    text = cell.replace(",", "").replace("%", "").replace(" ", "")
    try:
        float(text)
    except ValueError:
        return ""
    return ' class="number"'

import re
from html.parser import HTMLParser

from unnoise import html


class Strict(HTMLParser):
    """Fails on a page whose tags do not close in order."""

    VOID = {"meta", "img", "br"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def page():
    curve = html.line_chart(
        {"all": ([1, 2, 3], [1.0, float("nan"), 0.01]), "one": ([1], [0.5])},
        x_label="step",
        y_label="loss",
        caption="A <curve>",
        log_y=True,
    )
    return html.page(
        "T & <title>",
        "lead",
        html.facts({"steps": "1,000"}),
        html.section("Numbers", html.table(["name", "value"], [["<a>", "1,234.5"], ["b", "none"]]), curve),
        html.picture(b"\x89PNG", "grid", width=200),
        html.code("a: <b>", summary="settings"),
        html.paragraph("careful", warning=True),
    )


def test_tags_close_and_text_is_escaped():
    text = page()
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    assert "T &amp; &lt;title&gt;" in text
    assert "&lt;a&gt;" in text and "a: &lt;b&gt;" in text
    assert "<a>" not in text and "<curve>" not in text


def test_pages_load_nothing_from_elsewhere():
    links = re.findall(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?([^"')\s>]+)""", page())
    assert all(link.startswith("data:") for link in links), links


def test_numbers_are_aligned_and_words_are_not():
    text = page()
    assert '<td class="number">1,234.5</td>' in text
    assert "<td>none</td>" in text


def points(chart):
    (text,) = re.findall(r'points="([^"]+)"', chart)[:1]
    return [tuple(map(float, p.split(","))) for p in text.split()]


def test_a_chart_puts_larger_values_higher_and_leaves_out_what_is_not_finite():
    chart = html.line_chart(
        {"y": ([0, 1, 2, 3], [1, 10, float("inf"), 100])}, x_label="x", y_label="y", caption="c", log_y=True
    )
    (x0, y0), (x1, y1), (x2, y2) = points(chart)
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert abs((y0 - y1) - (y1 - y2)) < 0.2  # equal factors, equal distances


def test_constant_and_empty_curves():
    flat = html.line_chart({"y": ([5, 5], [2, 2])}, x_label="x", y_label="y", caption="c")
    assert "nan" not in flat.lower()
    assert "nothing recorded" in html.line_chart({"y": ([], [])}, x_label="x", y_label="y", caption="c")


def test_a_logarithmic_axis_is_marked_at_round_numbers():
    chart = html.line_chart({"y": ([0, 1], [0.03, 0.6])}, x_label="x", y_label="y", caption="c", log_y=True)
    for mark in ("0.05", "0.1", "0.2", "0.5"):
        assert f">{mark}<" in chart

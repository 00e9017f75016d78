"""Charts: places, intervals, levels, legends and axes."""

import re
import xml.etree.ElementTree as ET

import pytest

from unnoise.chart import Chart, Curve, svg


def chart(*curves, **options):
    return Chart(curves=curves, **{"x_label": "scale", "y_label": "FID", "caption": "c", **options})


def tags(text, name):
    root = ET.fromstring(text)
    return [e for e in root.iter() if e.tag.split("}")[-1] == name]


def test_points_keep_their_notes_and_intervals_when_one_cannot_be_shown():
    curve = Curve(
        name="ours", x=[1, 2, 3], y=[5, float("nan"), 1], notes=["one", "two", "three"], marked=True,
        y_spans=[(4, 6), None, (0.5, 2)],
    )  # fmt: skip
    text = svg(chart(curve))
    assert len(tags(text, "circle")) == 2
    assert "one" in text and "three" in text and "two" not in text
    spans = [e for e in tags(text, "line") if e.get("class") == "interval"]
    assert len(spans) == 2
    for span, circle in zip(spans, tags(text, "circle"), strict=True):
        assert span.get("x1") == span.get("x2") == circle.get("cx")
        assert float(span.get("y2")) < float(circle.get("cy")) < float(span.get("y1"))


def test_notes_at_the_right_end_stand_inside():
    curve = Curve(name="a", x=[0, 1], y=[5, 6], notes=["first point", "last point"], marked=True)
    first, last = (e for e in tags(svg(chart(curve, width=400)), "text") if (e.text or "").endswith("point"))
    assert first.get("text-anchor") is None
    assert last.get("text-anchor") == "end" and float(last.get("x")) < 400


def test_both_coordinates_have_intervals():
    curve = Curve(name="a", x=[0.5], y=[0.5], x_spans=[(0.4, 0.6)], y_spans=[(0.2, 0.7)], marked=True)
    spans = [e for e in tags(svg(chart(curve)), "line") if e.get("class") == "interval"]
    assert {(s.get("x1") == s.get("x2"), s.get("y1") == s.get("y2")) for s in spans} == {
        (True, False),
        (False, True),
    }


def test_levels_are_dashed_named_and_within_the_axis():
    text = svg(chart(Curve(name="a", x=[1, 2], y=[5, 6]), levels=[("real vs real", 1.0)], width=400))
    assert "real vs real" in text
    (level,) = [e for e in tags(text, "line") if e.get("stroke-dasharray") == "5 4"]
    low = max(float(p.split(",")[1]) for p in re.search(r'points="([^"]+)"', text)[1].split())
    assert float(level.get("y1")) > low


def test_names_stand_where_numbers_would():
    text = svg(chart(Curve(name="a", x=[0, 1], y=[5, 6]), x_names=["ddim", "dpmpp-2m"]))
    assert ">ddim<" in text and ">dpmpp-2m<" in text and ">0.5<" not in text


def test_a_logarithmic_axis_places_equal_factors_at_equal_distances():
    text = svg(chart(Curve(name="a", x=[1, 10, 100], y=[1, 1, 2]), log_x=True))
    xs = [float(p.split(",")[0]) for p in re.search(r'points="([^"]+)"', text)[1].split()]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_a_long_legend_takes_more_rows_and_stays_inside():
    curves = [Curve(name=f"a curve of number {k}", x=[0, 1], y=[0, k]) for k in range(9)]
    text = svg(chart(*curves, width=400))
    assert all(f"number {k}<" in text for k in range(9))
    places = [float(e.get("x")) for e in tags(text, "text") if "curve of" in (e.text or "")]
    assert max(places) < 330 and len(set(places)) < len(places)


def test_alone_it_is_a_whole_file_and_nothing_is_nothing():
    text = svg(chart(Curve(name="<a>", x=[1], y=[1])), alone=True)
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<style>" in text and "&lt;a&gt;" in text
    assert svg(chart(Curve(name="a", x=[1], y=[float("inf")]))) == ""

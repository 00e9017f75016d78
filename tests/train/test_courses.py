"""Charts of the log: what it has is drawn point by point, what it lacks is left out."""

import re

from unnoise.train.courses import Course, figures

COURSES = (
    Course(curves={"a": "one", "b": "two"}, label="share", caption="Both"),
    Course(curves={"c": "three"}, label="dB", caption="Neither"),
)


def test_what_the_log_has_is_drawn() -> None:
    log = [{"step": 1, "a": 0.0}, {"step": 2, "a": 1.0, "b": None}, {"step": 3}, {"step": 4, "a": 0.5}]
    page = figures(log, COURSES)
    (points,) = re.findall(r'points="([^"]*)"', page)
    places = [tuple(map(float, each.split(","))) for each in points.split()]
    assert len(places) == 3
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[1][1] < places[2][1] < places[0][1]  # upwards is less
    assert "one" in page and "Both" in page and "two" not in page and "Neither" not in page
    assert figures([{"step": 1}], COURSES) == "" == figures([], COURSES)


def test_large_numbers_stay_readable() -> None:
    log = [{"step": step, "a": value} for step, value in enumerate((-17_000.0, 12_500.0))]
    assert ">-10,000<" in figures(log, COURSES) and "e+" not in figures(log, COURSES)

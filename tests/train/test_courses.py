"""Charts of the log: what it has is drawn point by point, what it lacks is left out."""

import re

from unnoise.config.schema import AutoencoderConfig
from unnoise.train.autoencoder_report import HEALTH, LOGVAR, PSNR, SSIM, sections
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


def test_a_first_stage_is_shown_by_every_read_out_that_its_log_has() -> None:
    fixed = [name for course in (PSNR, SSIM, *HEALTH, LOGVAR) for name in course.curves]
    features = ["validation/features[x]", "loss/perceptual", "validation/FD[x]"]
    names = [*fixed, *features]
    log = [{"step": step, **{name: step + k for k, name in enumerate(names)}} for step in (1, 2)]
    page = "".join(sections(AutoencoderConfig(learn_logvar=True), log))
    assert page.count("<polyline") == len(names)
    for lacking in names:
        without = [{key: value for key, value in line.items() if key != lacking} for line in log]
        page = "".join(sections(AutoencoderConfig(learn_logvar=True), without))
        gone = {"validation/features[x]": 2}.get(lacking, 1)  # what it is beside goes with it
        assert page.count("<polyline") == len(names) - gone
    assert LOGVAR.caption not in "".join(sections(AutoencoderConfig(learn_logvar=False), log))

"""Reports as people see them: opened in headless Chromium."""

import numpy as np
import pytest

from tests.browser import CHROMIUM, MISSING, open_page
from tests.metrics.double import double  # noqa: F401
from unnoise import html
from unnoise.config.requests import EvaluateRequest
from unnoise.metrics.evaluate import evaluate
from unnoise.metrics.report import page, save_page, sheets

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]


def assert_fine(opened, *, images, tables):
    """Nothing complained of, nothing asked for, everything there to be seen and none of it cut off."""
    assert opened.console == [] and opened.requests == []
    facts = opened.facts
    assert facts["wider"] <= 0, "the page scrolls sideways"
    assert len(facts["images"]) == images and len(facts["tables"]) == tables
    for image in facts["images"]:
        assert image["natural"] > 0 and min(image["box"][2:]) > 50, image
        assert opened.cut(image["box"]).std() > 20, f"{image['alt']} is blank"
    for table in facts["tables"]:
        assert table["rows"] >= 2 and min(table["box"][2:]) > 50
        assert opened.cut(table["box"]).std() > 5
    for chart in facts["charts"]:
        assert min(chart["box"][2:]) > 5 and len(np.unique(opened.cut(chart["box"]))) > 2


def test_the_report_of_the_demo(demo, tmp_path):
    opened = open_page(demo / "report.html", tmp_path)
    assert_fine(opened, images=3, tables=2)
    metrics, protocol = opened.facts["tables"]
    assert "KID[unnoise-small]" in metrics["text"] and "real vs real" in metrics["text"]
    assert "unnoise-small" in protocol["text"]
    assert any(chart["curves"] == 5 for chart in opened.facts["charts"])  # of the loss, all and by quarter
    assert "What to do next" in opened.facts["headings"]
    assert opened.pixels.shape[1] == 1100 and opened.pixels.shape[0] >= opened.facts["height"] - 1


def test_the_report_of_the_demo_on_a_telephone(demo, tmp_path):
    opened = open_page(demo / "report.html", tmp_path, width=500)
    assert opened.facts["wider"] <= 0
    assert all(image["box"][0] + image["box"][2] <= 500 for image in opened.facts["images"])


def test_the_report_of_an_evaluation(double, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    for name, n in (("real", 80), ("fake", 40)):
        np.savez(tmp_path / f"{name}.npz", arr_0=rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8))
    request = EvaluateRequest(
        samples=str(tmp_path / "fake.npz"),
        against=str(tmp_path / "real.npz"),
        features="double",
        bootstrap=10,
        cache=str(tmp_path / "cache"),
        device="cpu",
    )
    found = evaluate(request)
    save_page(tmp_path / "report.html", page(found, sheets(request, found)))
    opened = open_page(tmp_path / "report.html", tmp_path / "browser")
    assert_fine(opened, images=3, tables=2)
    assert "KID[double]" in opened.facts["text"] and len(opened.facts["charts"]) == 7


def test_a_page_that_asks_for_more_is_noticed(tmp_path):
    text = html.page("Bad", "lead", '<img src="http://example.invalid/x.png">', "<script>nonsense()</script>")
    (tmp_path / "bad.html").write_text(text)
    opened = open_page(tmp_path / "bad.html", tmp_path / "browser")
    assert opened.requests == ["http://example.invalid/x.png"]
    assert any("nonsense is not defined" in line for line in opened.console)
    assert opened.facts["images"][0]["natural"] == 0

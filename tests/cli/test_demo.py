"""The demo, made short: the whole way from embedded pictures to a report."""

import base64
import io
import re

import pytest
from PIL import Image

from tests.cli.test_app import refused, unnoise


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = unnoise("demo", "--minutes", "0.02", cwd=folder, XDG_CACHE_HOME=str(folder / "cache"))
    assert done.returncode == 0, done.stderr
    assert "runs/demo-1/report.html" in done.stdout
    assert "10,000 pictures" in done.stderr
    return folder / "runs" / "demo-1"


def test_the_report_holds_curve_grid_settings_and_time_in_one_file(run):
    text = (run / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(?!data:)\w", text)
    (png,) = re.findall(r"data:image/png;base64,([^\"]+)", text)
    grid = Image.open(io.BytesIO(base64.b64decode(png)))
    assert grid.width > 10 * 28 and grid.height > 8 * 28
    assert "<svg" in text and "<polyline" in text
    assert "optimizer:" in text and "lr: 0.002" in text
    assert "trained for" in text


def test_the_model_is_there_to_draw_with(run):
    done = unnoise("sample", run, "-n", "2", "--steps", "2", "--label", "ankle boot", "--out", run / "drawn")
    assert done.returncode == 0, done.stderr
    assert len(list((run / "drawn").glob("*.png"))) == 3  # two pictures and the grid


def test_numbers_go_on(run):
    from unnoise.cli.runs import next_run

    assert next_run(run.parent, "demo").name == "demo-2"
    assert next_run(run.parent, "other").name == "other-1"


def test_refusals(tmp_path):
    assert "minutes" in refused("demo", "--minutes", "0", cwd=tmp_path)
    (tmp_path / "file").write_text("")
    assert "file" in refused("demo", "--out", "file", cwd=tmp_path)

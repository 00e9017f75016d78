"""The demo, made short: the whole way from embedded pictures to a report."""

import base64
import io
import re

from PIL import Image

from tests.cli.test_app import refused, unnoise
from unnoise.metrics.result import read_evaluation


def test_the_report_holds_pictures_numbers_curve_and_settings_in_one_file(demo):
    text = (demo / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(?!data:)\w", text)
    sheets = [
        Image.open(io.BytesIO(base64.b64decode(png)))
        for png in re.findall(r"data:image/png;base64,([^\"]+)", text)
    ]
    assert len(sheets) == 3  # drawn, real, closest pairs
    assert sheets[0].width > 10 * 28 and sheets[0].height > 3 * 28
    assert "<svg" in text and "<polyline" in text
    assert "optimizer:" in text and "lr: 0.002" in text
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        *("Drawn by the model", "Metrics", "Memorisation", "Loss", "Protocol", "What to do next", "Settings"),
    ]
    assert "trained for" in text and "unnoise sample" in text


def test_the_numbers_have_intervals_floors_and_a_protocol(demo):
    found = read_evaluation(demo / "evaluation.json")
    families = ("FD", "KID", "precision", "recall", "density", "coverage")
    for family in families:
        metric = found[f"{family}[unnoise-small]"]
        assert metric.interval and metric.floor is not None
        assert f"{family}[unnoise-small]" in (demo / "report.html").read_text()
    protocol = found.protocol
    assert (protocol["samples_n"], protocol["reference_n"]) == (30, 10_000)
    made = protocol["samples_facts"]["request"]
    assert (made["sampler"], made["steps"], made["guidance"], made["ema_rate"]) == ("ddim", "25", 2.0, 0.999)
    assert made["training_step"] >= 1
    text = (demo / "report.html").read_text()
    assert "average with rate 0.999" in text and "ddim, 25 steps" in text


def test_the_model_is_there_to_draw_with(demo):
    out = demo / "boots"
    done = unnoise("sample", demo, "-n", "2", "--steps", "2", "--label", "ankle boot", "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*.png"))) == 3  # two pictures and the grid
    assert len(list((demo / "drawn").glob("0*.png"))) == 30 and (demo / "drawn" / "grid.png").exists()


def test_numbers_go_on(demo):
    from unnoise.cli.runs import next_run

    assert next_run(demo.parent, "demo").name == "demo-2"
    assert next_run(demo.parent, "other").name == "other-1"


def test_a_refused_run_leaves_no_numbered_folder(tmp_path):
    (tmp_path / "runs").mkdir()
    assert "no.zip" in refused("train", "fashion-28", "--data", "no.zip", cwd=tmp_path)
    assert not list((tmp_path / "runs").iterdir())
    (tmp_path / "runs").rmdir()
    assert "minutes" in refused("demo", "--minutes", "0", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_refusals(tmp_path):
    assert "minutes" in refused("demo", "--minutes", "0", cwd=tmp_path)
    assert "use 20 or more" in refused("demo", "--samples", "3", cwd=tmp_path)
    assert "seed=-1" in refused("demo", "--seed", "-1", cwd=tmp_path)
    assert "up to 100,000" in refused("demo", "--samples", "1000000000", cwd=tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for out in ("file", "file/in/it"):
        assert "file is a file; name a folder for the runs" in refused("demo", "--out", out, cwd=tmp_path)

"""`unnoise sweep` as a user runs it: points, figures, continuing, other people's samples, refusals."""

import csv
import json
import re

import numpy as np
import pytest

from tests.metrics.double import double  # noqa: F401
from tests.models import tiny_model, tiny_upsampler
from tests.studies.conftest import FAST
from tests.test_gan import tiny_gan_model
from tests.test_html import Strict
from unnoise.cli.sample import Stopped
from unnoise.gan import save_gan
from unnoise.model import save_model
from unnoise.store import PngFolder

SWEEP = ["sweep", "run", "--against", "real.npz", "--out", "s", "-n", 10, "--bootstrap", 5, *FAST]
GRID = ["--grid", "guidance=1,3", "--grid", "steps=2,4"]


def drawn(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*.png"))


def test_numbers_figures_and_files(unnoise, place):
    code, said, complaints = unnoise(*SWEEP, *GRID, "--also", "biggan.npz")
    assert code == 0, complaints
    assert "guidance=3, steps=4" in said and "biggan" in said and "real vs real" in said
    assert "4/4" in complaints and "looks better than it is" in complaints
    found = json.loads((place / "s" / "sweep.json").read_text())
    assert found["axes"] == {"guidance": ["1", "3"], "steps": ["2", "4"]} and found["n"] == 10
    assert [(p["request"]["guidance"], p["steps"]) for p in found["points"]] == [
        (1, 2),
        (1, 4),
        (3, 2),
        (3, 4),
    ]
    assert set(found["floors"]) >= {"FD[double]", "precision[double]"}
    for p in found["points"]:
        assert p["protocol"]["samples_n"] == 10 and p["request"]["seed"] == 0
    assert found["also"][0]["name"] == "biggan" and found["also"][0]["protocol"]["samples_n"] == 10
    rows = list(csv.DictReader((place / "s" / "sweep.csv").open()))
    assert [r["guidance"] for r in rows] == ["1", "1", "3", "3", ""]
    values = [m["value"] for m in found["points"][2]["metrics"] if m["name"] == "FD[double]"]
    assert float(rows[2]["FD[double]"]) == values[0]


def test_the_page_and_the_figures_hold_what_they_must(unnoise, place):
    unnoise(*SWEEP, *GRID, "--also", "them=biggan.npz")
    text = (place / "s" / "sweep.html").read_text()
    parser = Strict()
    parser.feed(text)
    assert parser.open == [] and text.count("data:image/png") == 4
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", text)
    assert all(link.startswith("data:") for link in links)
    assert "unnoise sweep run --against real.npz" in text
    figures = place / "s" / "figures"
    metrics = ("fd", "sfd", "kid", "precision", "recall", "density", "coverage")
    names = {f"{m}-{axis}.svg" for m in metrics for axis in ("guidance", "steps")} | {"precision-recall.svg"}
    assert {f.name for f in figures.iterdir()} == names
    against = (figures / "fd-guidance.svg").read_text()
    assert against.count("<circle") == 4 and against.count('class="interval"') == 4
    assert all(f">{word}<" in against for word in ("steps=2", "steps=4", "real vs real", "them", "guidance"))
    plane = (figures / "precision-recall.svg").read_text()
    assert plane.count("<circle") == 5 and plane.count('class="interval"') == 10 and ">them<" in plane


def test_an_interrupted_sweep_continues_and_draws_nothing_twice(unnoise, place, monkeypatch, double):  # noqa: F811
    add, batches = PngFolder.add, []

    def stop_in_the_third_point(self, batch):
        add(self, batch)
        batches.append(len(batch))
        if len(batches) == 5:
            raise Stopped(2)

    small = ["--batch-size", 5]
    monkeypatch.setattr(PngFolder, "add", stop_in_the_third_point)
    assert unnoise(*SWEEP, *GRID, *small)[0] == 130
    assert not (place / "s" / "sweep.json").exists() and len(drawn(place / "s")) == 25
    calls = double.calls
    assert unnoise(*SWEEP, *GRID, *small)[0] == 0
    assert sum(batches) == 40 and len(batches) == 8
    assert double.calls == calls + 20
    whole = [p["metrics"] for p in json.loads((place / "s" / "sweep.json").read_text())["points"]]
    assert unnoise(*SWEEP, *GRID, *small, "--out", "again")[0] == 0
    again = [p["metrics"] for p in json.loads((place / "again" / "sweep.json").read_text())["points"]]
    assert whole == again


def test_points_are_shared_and_lengthened(unnoise, place, double):  # noqa: F811
    unnoise(*SWEEP, "--grid", "guidance=1,3", "--set", "steps=2")
    before, calls = drawn(place / "s"), double.calls
    unnoise(*SWEEP, "--grid", "guidance=3,5", "--set", "steps=2")
    after = drawn(place / "s")
    assert len(after) == 30 and set(before) < set(after) and double.calls == calls + 10
    unnoise(*SWEEP, "--grid", "guidance=3,5", "--set", "steps=2", "-n", 12)
    assert len(drawn(place / "s")) == 34


def test_a_stored_evaluation_of_another_reference_is_not_reused(unnoise, place):
    unnoise(*SWEEP, "--grid", "steps=2,3")
    first = json.loads((place / "s" / "sweep.json").read_text())
    rng = np.random.default_rng(9)
    np.savez(place / "real.npz", arr_0=rng.integers(0, 90, (80, 8, 8, 1), dtype=np.uint8))
    unnoise(*SWEEP, "--grid", "steps=2,3")
    second = json.loads((place / "s" / "sweep.json").read_text())
    assert first["points"][1]["metrics"][0]["value"] != second["points"][1]["metrics"][0]["value"]


def test_models_are_an_axis(unnoise, place):
    save_model(place / "other.safetensors", tiny_model(seed=3))
    args = [a for a in SWEEP if a != "run"]
    code, said, complaints = unnoise(*args, "--grid", "model=run,other.safetensors", "--set", "steps=2")
    assert code == 0, complaints
    assert "model=run" in said and "model=other.safetensors" in said
    assert ">other<" in (place / "s" / "figures" / "fd-model.svg").read_text()


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "the grid is empty"),
        (["--grid", "guidence=1,2"], 'did you mean "guidance"'),
        (["--grid", "steps=2,101"], "steps=101 exceeds the 100 training steps"),
        (["--grid", "sampler=ddim,euler", "--set", "eta=1"], "eta=1.0 means nothing to sampler euler"),
        (["--grid", "guidance=1,2", "--also", "rgb.npz"], "--also rgb.npz: 30 pictures with 3 channels"),
        (["--grid", "guidance=1,2", "--also", "missing.npz"], "missing.npz"),
        (
            ["--grid", "guidance=1,2", "--also", "biggan.npz", "--also", "biggan.npz"],
            "two samples called biggan",
        ),
        (["--grid", "guidance=1,2", "--against", "rgb.npz"], "channels"),
        (["--grid", "guidance=1,2", "--against", "nowhere"], "nowhere"),
        (["--grid", "guidance=1,2", "--against", ""], "the value of --against is empty"),
        (["--grid", "guidance=1,2", "-n", 1], "n=1"),
        (["--grid", "guidance=1,2", "-n", 10**12], "n=1,000,000,000,000 is more than can be measured"),
        (
            [f"--grid={name}={','.join(map(str, range(1, 60)))}" for name in ("seed", "guidance", "steps")],
            "the grid has 205,379 points; name fewer values",
        ),
        (["--grid", "guidance=1,2", "--also", "wrong.json"], "wrong.json is no evaluation"),
        (["--grid", "guidance=1,2", "--set", "data.labels=no"], "data.labels = 'no'"),
        (["--grid", "guidance=1,2", "--out", "real.npz"], "real.npz is a file; name a folder for the sweep"),
        (["--grid", "model=run,nothing"], "named twice"),
    ],
)
def test_refused_in_one_line_before_anything_is_drawn(unnoise, place, args, reason):
    (place / "wrong.json").write_text("{}")
    code, said, complaints = unnoise(*SWEEP, *args)
    assert code == 2 and said == "" and complaints.count("\n") == 1, complaints
    assert reason in complaints
    assert not (place / "s").exists()


def test_an_evaluation_stands_beside_the_points_and_another_protocol_is_said(unnoise, place):
    unnoise(*SWEEP, "--grid", "steps=2,3")
    (stored, _) = sorted((place / "s" / "points").glob("*/evaluation.json"))
    code, said, complaints = unnoise(*SWEEP, "--grid", "steps=4", "--also", f"old={stored}")
    assert code == 0 and "old" in said and "not measured alike" not in complaints, complaints
    text = stored.read_text().replace('"samples_n": 10', '"samples_n": 50000')
    (place / "theirs.json").write_text(text)
    _, _, complaints = unnoise(*SWEEP, "--grid", "steps=4", "--also", "theirs.json")
    assert "theirs is not measured alike: samples_n 50000, not 10" in complaints


def test_an_upsampler_is_swept_over_the_noise_of_its_small_pictures(unnoise, place):
    save_model(place / "up" / "model.safetensors", tiny_upsampler(noise=0.5))
    rng = np.random.default_rng(1)
    np.savez(place / "small.npz", arr_0=rng.integers(0, 256, (10, 4, 4, 1), dtype=np.uint8))
    options = ["--grid", "low_res_noise=0,0.3", "--set", "low_res=small.npz", "--set", "steps=2"]
    code, said, complaints = unnoise(SWEEP[0], "up", *SWEEP[2:], *options)
    assert code == 0, complaints
    assert "low_res_noise=0.3" in said and len(drawn(place / "s")) == 20


def test_a_gan_is_swept_over_its_truncation_beside_nothing_else(unnoise, place):
    save_gan(place / "gan" / "model.safetensors", tiny_gan_model())
    grid = ["--grid", "truncation=0.5,1,2"]
    command = [*SWEEP[:1], "gan", *SWEEP[2:], *grid]
    code, said, complaints = unnoise(*command)
    assert code == 0, complaints
    found = json.loads((place / "s" / "sweep.json").read_text())
    assert [p["request"]["truncation"] for p in found["points"]] == [0.5, 1.0, 2.0]
    assert {p["protocol"]["samples_n"] for p in found["points"]} == {10}
    assert (place / "s" / "figures" / "fd-truncation.svg").exists()
    code, said, complaints = unnoise(*command, "--set", "guidance=2")
    assert code == 2 and "guidance=2.0 means nothing to a GAN" in complaints
    code, said, complaints = unnoise(
        "search-steps", "gan", "--against", "real.npz", "--out", "t", "--calls", 4, *FAST
    )
    assert code == 2 and "gan is a GAN, which draws in one step" in complaints


def test_a_gan_is_measured_as_any_model(unnoise, place):
    save_gan(place / "gan" / "model.safetensors", tiny_gan_model())
    command = ["evaluate", "gan", "--against", "real.npz", "-n", 12, "--no-extrapolate", *FAST, "--out", "e"]
    code, said, complaints = unnoise(*command, "--truncation", "0.7")
    assert code == 0, complaints
    protocol = json.loads((place / "e" / "evaluation.json").read_text())["protocol"]
    facts = protocol["samples_facts"]
    assert facts["truncation"] == 0.7 and facts["steps_taken"] == 1

"""`unnoise evaluate` and `unnoise reference` as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.metrics.double import double  # noqa: F401
from tests.models import tiny_model
from unnoise.cli import main
from unnoise.model import save_model


@pytest.fixture
def unnoise(monkeypatch, capsys, double, tmp_path):  # noqa: F811
    """Run the program in this process -> (exit status, stdout, stderr)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("real", 80), ("fake", 40)):
        np.savez(tmp_path / f"{name}.npz", arr_0=rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8))
    return tmp_path


FAST = ["--features", "double", "--bootstrap", "10", "--device", "cpu"]


def test_numbers_files_and_comparison(unnoise, data):
    code, said, complaints = unnoise("evaluate", "fake.npz", "--against", "real.npz", *FAST, "--out", "a")
    assert code == 0 and "FD[double]" in said and "95 % interval" in said
    assert "published FIDs use 50,000" in complaints
    content = json.loads((data / "a" / "evaluation.json").read_text())
    assert content["protocol"]["samples_n"] == 40 and len(content["metrics"]) == 7
    page = (data / "a" / "report.html").read_text()
    assert page.count("data:image/png") == 3 and "http" not in page.replace("http-equiv", "")
    assert unnoise("evaluate", "fake.npz", "--against", "real.npz", *FAST, "-n", 30, "--out", "b")[0] == 0
    code, said, _ = unnoise("evaluate", "a/evaluation.json", "b/evaluation.json", "--out", "c")
    assert code == 0 and "no difference beyond the interval" in said
    assert "not the same protocol: samples_n 40 and 30" in said
    assert (data / "c" / "comparison.html").exists()


def test_reference_file(unnoise, data):
    code, said, _ = unnoise(
        "reference", "real.npz", "-o", "ref.npz", "--features", "double", "--pictures", 50
    )
    assert code == 0 and "80 pictures" in said
    with np.load(data / "ref.npz") as file:
        assert file["arr_0"].shape == (50, 8, 8, 1) and file["mu"].dtype == np.float64
        assert file["sigma_s"].shape == (4, 4)
    code, said, _ = unnoise("evaluate", "fake.npz", "--against", "ref.npz", *FAST)
    assert code == 0 and "sFD[double]" in said
    assert (
        unnoise("reference", "real.npz", "-o", "stats.npz", "--features", "double", "--pictures", 0)[0] == 0
    )
    code, said, _ = unnoise("evaluate", "fake.npz", "--against", "stats.npz", *FAST, "--out", "d")
    assert code == 0 and "KID" not in said and (data / "d" / "report.html").exists()


def test_a_model_is_drawn_on_the_fly(unnoise, data):
    save_model(data / "run" / "model.safetensors", tiny_model())
    drawn = ["-n", "12", "--steps", "2", "--out", "e"]
    code, said, complaints = unnoise("evaluate", "run", "--against", "real.npz", *FAST, *drawn)
    assert code == 0 and "FD[double]" in said, complaints
    assert "does not say whether its weights are averaged (EMA)" in complaints
    facts = json.loads((data / "e" / "evaluation.json").read_text())["protocol"]["samples_facts"]
    assert (facts["kind"], facts["steps_taken"], facts["sampler"]) == ("model", 2, "ddim")


def test_a_folder_that_sample_wrote(unnoise, data):
    """Its sheet and its record are no samples."""
    save_model(data / "run" / "model.safetensors", tiny_model())
    assert (
        unnoise("sample", "run", "-n", 12, "--steps", 2, "--precision", "float32", "--out", "drawn")[0] == 0
    )
    code, _, _ = unnoise("evaluate", "drawn", "--against", "real.npz", *FAST, "--out", "f")
    assert code == 0
    protocol = json.loads((data / "f" / "evaluation.json").read_text())["protocol"]
    assert protocol["samples_n"] == 12 and protocol["samples_shape"] == [8, 8, 1]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["fake.npz"], "--against is missing"),
        (["nothing.npz", "--against", "real.npz"], "nothing.npz"),
        (["fake.npz", "--against", "nothing"], "nothing"),
        (["fake.npz", "--against", "real.npz", "-n", "1"], "n=1"),
        (["fake.npz", "--against", "real.npz", "--features", "vgg"], "choose one of inception"),
        (["one.npz", "--against", "real.npz"], "one picture"),
        (["rgb.npz", "--against", "real.npz"], "channels"),
        (["flat.npz", "--against", "real.npz"], "flat colour"),
        (["cut.npz", "--against", "real.npz"], "damaged"),
        (["fake.npz", "--against", "pickled.npz"], "pickled"),
        (["fake.npz", "--against", "other.npz"], "made with inception features"),
        (["a.json", "b.json"], "cannot be read"),
        (["fake.npz", "real.npz", "--against", "real.npz"], "2 samples were named"),
    ],
)
def test_refused_in_one_line(unnoise, data, args, reason):
    rng = np.random.default_rng(0)
    np.savez("one.npz", arr_0=rng.integers(0, 256, (1, 8, 8, 1), dtype=np.uint8))
    np.savez("rgb.npz", arr_0=rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8))
    np.savez("flat.npz", arr_0=np.full((9, 8, 8, 1), 7, np.uint8))
    np.savez("pickled.npz", mu=np.array([{}], dtype=object), sigma=np.eye(3))
    np.savez("other.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    Path("cut.npz").write_bytes(Path("real.npz").read_bytes()[:900])
    code, said, complaints = unnoise("evaluate", *args, *(FAST if "--features" not in args else []))
    assert code == 2 and said == ""
    assert reason in complaints and complaints.count("\n") == 1, complaints


def test_refused_in_a_subprocess(tmp_path):
    command = [sys.executable, "-m", "unnoise", "evaluate", "nowhere", "--against", "nowhere-else"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2 and "Traceback" not in found.stderr

"""`unnoise evaluate` and `unnoise reference` as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.metrics.double import double  # noqa: F401
from tests.models import tiny_model
from unnoise.classifier import build_classifier, save_classifier
from unnoise.cli import main
from unnoise.model import build_model, save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import ClassifierSettings
from unnoise.presets import load_preset

ROOT = Path(__file__).parents[2]


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


def test_pairs_are_shown_side_by_side(unnoise, data):
    command = ("evaluate", "real.npz", "--against", "real.npz", "--paired", "--consistency", 2)
    code, said, _ = unnoise(*command, *FAST, "--out", "a")
    assert code == 0 and "rFD[double]" in said and "consistency[2x]" in said
    page = (data / "a" / "report.html").read_text()
    assert page.count("data:image/png") == 1 and "Reconstructions (above) of pictures (below)" in page
    assert "80 equal pairs left out" in page and "Memorisation" not in page


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


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["-o", "real.npz"], "real.npz is what is read and what is written"),
        (["-o", "link.npz"], "link.npz is what is read and what is written"),
        (["-o", "fake.npz"], "fake.npz is there and no reference of `unnoise reference`"),
        (["-o", "text.npz"], "text.npz is there and no reference"),
        (["-o", "folder.npz"], "folder.npz is a folder; name a file"),
        (["-o", "fake.npz/ref.npz"], "fake.npz is a file; name a folder"),
        (["-o", "/proc/ref.npz"], "/proc cannot be written to"),
        (["-o", "ref.npz", "--batch-size", 0], "batch_size=0 is less than 1"),
        (["-o", "ref.npz", "--batch-size", -5], "batch_size=-5 is less than 1"),
    ],
)
def test_a_reference_is_refused_before_anything_is_computed(unnoise, data, double, args, reason):  # noqa: F811
    Path("folder.npz").mkdir()
    Path("link.npz").symlink_to("real.npz")
    Path("text.npz").write_text("mine")
    before = {path: path.read_bytes() for path in data.glob("*.npz") if path.is_file()}
    code, said, complaints = unnoise("reference", "real.npz", *args, "--features", "double")
    assert (code, said, complaints.count("\n"), double.calls) == (2, "", 1, 0) and reason in complaints
    assert {path: path.read_bytes() for path in data.glob("*.npz") if path.is_file()} == before
    assert not (data / "cache").exists()


def test_a_reference_of_ours_is_made_again(unnoise, data):
    for keep in (50, 20):
        assert unnoise("reference", "real.npz", "-o", "new/ref.npz", "--features", "double", "--pictures", keep)[0] == 0
    with np.load(data / "new" / "ref.npz") as file:
        assert len(file["arr_0"]) == 20


@pytest.mark.parametrize("out", ["fake.npz", "fake.npz/deeper", "/proc"])
def test_an_out_that_cannot_be_is_refused_before_anything_is_computed(unnoise, data, double, out):  # noqa: F811
    assert unnoise("evaluate", "fake.npz", "--against", "real.npz", *FAST, "--out", "a")[0] == 0
    calls = double.calls
    for command in (
        ("evaluate", "fake.npz", "--against", "real.npz", *FAST, "-n", 30, "--seed", 1),
        ("evaluate", "a/evaluation.json", "a/evaluation.json"),
    ):
        code, said, complaints = unnoise(*command, "--out", out)
        assert (code, said, complaints.count("\n"), double.calls) == (2, "", 1, calls), complaints
        assert "name" in complaints


def test_a_page_that_another_command_wrote_is_not_replaced(unnoise, data):
    (data / "run").mkdir()
    (data / "run" / "report.html").write_text("of the training")
    code, said, complaints = unnoise("evaluate", "fake.npz", "--against", "real.npz", *FAST, "--out", "run")
    assert (code, said) == (2, "") and "run/report.html is there and not from this command" in complaints
    assert (data / "run" / "report.html").read_text() == "of the training"


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


BAD = {
    "grey.npz --against colour.npz": "the samples have 1 channels and colour.npz has 3",
    "one.npz --against grey.npz": "one.npz has one picture",
    "grey.npz --against one.npz": "one.npz has one picture",
    "grey.npz --against grey.npz --features broken.safetensors": "gives NaN or infinite features",
    "grey.npz --against other.npz": "was made with inception features and the samples go through",
    "cut.npz --against grey.npz": "cut.npz is damaged",
    "grey.npz --against cut.npz": "cut.npz is damaged",
    "grey.npz --against bent.npz": "bent.npz is damaged",
    "flat.npz --against grey.npz": "every picture of flat.npz is one flat colour",
    "equal.npz --against grey.npz": "have the same features; are they copies?",
    "pickled.npz --against grey.npz": "pickled.npz: arr_0",
    "grey.npz --against code.npz": "code.npz holds pickled objects, which may run code",
    "nowhere --against nowhere-else": "nowhere",
}


def test_bad_input_in_processes_of_their_own(tmp_path):
    """Each is one line on stderr, nothing on stdout, and exit status 2."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (9, 28, 28, 1), dtype=np.uint8)
    arrays = {
        "grey": grey,
        "colour": rng.integers(0, 256, (9, 28, 28, 3), dtype=np.uint8),
        "one": grey[:1],
        "flat": np.full((9, 28, 28, 1), 7, np.uint8),
        "equal": np.repeat(grey[:1], 9, 0),
        "pickled": np.array([{}], dtype=object),
    }
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    statistics = {"mu": np.zeros(2048), "sigma": np.eye(2048)}
    np.savez(tmp_path / "other.npz", **statistics)
    np.savez(tmp_path / "code.npz", mu=np.array([{}], dtype=object), sigma=np.eye(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "grey.npz").read_bytes()[:900])
    one, two = np.float64(1).tobytes(), np.float64(2).tobytes()
    (tmp_path / "bent.npz").write_bytes((tmp_path / "other.npz").read_bytes().replace(one, two, 1))
    settings = ClassifierSettings(widths=(8, 8), features=4, classes=2)
    model = build_classifier(settings, ModelInfo(classes=("a", "b")))
    for parameter in model.network.parameters():
        parameter.data.fill_(float("nan"))
    save_classifier(tmp_path / "broken.safetensors", model)
    small = ["--features", "unnoise-small"]
    lines = [["evaluate", *line.split(), *([] if "--features" in line else small)] for line in BAD]
    command = [sys.executable, "-m", "tests.cli.forked"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "XDG_CACHE_HOME": str(tmp_path / "c"),
    }
    said = subprocess.check_output(
        command, input=json.dumps(lines), text=True, cwd=tmp_path, env=environment, timeout=120
    )
    for (line, reason), (code, out, err) in zip(BAD.items(), json.loads(said), strict=True):
        assert (code, out, err.count("\n")) == (2, "", 1) and reason in err, (line, code, out, err)


def test_a_published_file_is_drawn_from(unnoise, data):
    """What network it is for is told by its name, or by --preset."""
    state = build_model(load_preset("adm-tiny").published().model).network.state_dict()
    rng = np.random.default_rng(0)
    np.savez("colour.npz", arr_0=rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8))
    draw = ["--against", "colour.npz", *FAST, "-n", "6", "--steps", "1", "--no-floor"]
    values = []
    for file, named in (("adm-tiny.pt", []), ("mine.pt", ["--preset", "adm-tiny"])):
        torch.save(state, file)
        code, said, complaints = unnoise("evaluate", file, *draw, *named)
        assert code == 0 and "FD[double]" in said, complaints
        assert "does not say whether its weights are averaged" in complaints
        values.append(said)
    assert values[0] == values[1]
    code, _, complaints = unnoise("evaluate", "mine.pt", *draw)
    assert code == 2 and "--preset" in complaints and complaints.count("\n") == 1


def test_adm_s_own_reference_file_is_read_once(unnoise, data, double, monkeypatch):  # noqa: F811
    """mu, sigma, mu_s, sigma_s and arr_0 without a word about the network; the pictures are streamed."""
    assert unnoise("reference", "real.npz", "-o", "ref.npz", "--features", "double")[0] == 0
    with np.load("ref.npz") as file:
        content = {key: file[key] for key in ("mu", "sigma", "mu_s", "sigma_s", "arr_0")}
    np.savez("VIRTUAL.npz", **content)
    monkeypatch.setattr(double, "name", "inception")
    read = []
    whole = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda file, key: (read.append(key), whole(file, key))[1]
    )
    code, said, _ = unnoise("evaluate", "fake.npz", "--against", "VIRTUAL.npz", *FAST)
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[1:7]] == [
        "FID", "sFID", "IS", "KID", "precision", "recall",
    ]  # fmt: skip
    assert sorted(read) == ["mu", "mu_s", "sigma", "sigma_s"]

"""`unnoise evaluate` and `unnoise reference` as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.metrics.double import double  # noqa: F401
from tests.models import tiny_classifier, tiny_model
from unnoise.classifier import build_classifier, save_classifier
from unnoise.cli import main
from unnoise.model import build_model, save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import ClassifierSettings
from unnoise.noisy_classifier import save_noisy_classifier
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
        (["-o", "ref.npz", "--cache", "fake.npz"], "fake.npz is a file; name a folder for the cache"),
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
        assert (
            unnoise("reference", "real.npz", "-o", "new/ref.npz", "--features", "double", "--pictures", keep)[
                0
            ]
            == 0
        )
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
        (["run", "--against", "real.npz", "-n", str(10**12)], "n=1,000,000,000,000 is more than can be"),
        (
            ["fake.npz", "--against", "real.npz", "--features", "double", "--bootstrap", str(10**9)],
            "bootstrap=1,000,000,000 is more",
        ),
        (["fake.npz", "--against", "real.npz", "--steps", "5"], "--steps says nothing of fake.npz"),
        (["fake.npz", "--against", "real.npz", "--guidance", "2"], "--guidance says nothing of fake.npz"),
        (["fake.npz", "--against", "real.npz", "--label", "a"], "--label says nothing of fake.npz"),
        (
            ["fake.npz", "--against", "real.npz", "--unconditional"],
            "--conditional/--unconditional says nothing of fake.npz",
        ),
        (["fake.npz", "--against", "run", "-n", "5"], "run is a model, and a reference is of pictures"),
        (["fake.npz", "--against", "real.npz", "--cache", "one.npz"], "one.npz is a file; name a folder for"),
        (["fake.npz", "--against", "real.npz", "--seed", str(10**30)], "is no seed; use a whole"),
        (["fake.npz", "--against", "real.npz", "--lpips", "x"], "lpips=x compares pairs; add --paired"),
        (["fake.npz", "--against", "real.npz", "--paired"], "are no pairs"),
        (["fake.npz", "--against", "real.npz", "--features", "noisy.safetensors"], "is a noisy classifier"),
        (["fake.npz", "--against", "real.npz", "--set", "data.labels=no"], "data.labels = 'no'"),
        (
            ["fake.npz", "--against", "real.npz", "--set", "data.crop=random"],
            "how pictures are read; name one",
        ),
        (["fake.npz", "--against", "real.npz", "--set", "seed=3"], "how pictures are read; name one"),
        (
            ["fake.npz", "--against", "real.npz", "--size", "8", "--set", "data.size=4"],
            "--size is 8; drop one",
        ),
    ],
)
def test_refused_in_one_line(unnoise, data, double, args, reason):  # noqa: F811
    rng = np.random.default_rng(0)
    np.savez("one.npz", arr_0=rng.integers(0, 256, (1, 8, 8, 1), dtype=np.uint8))
    np.savez("rgb.npz", arr_0=rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8))
    np.savez("flat.npz", arr_0=np.full((9, 8, 8, 1), 7, np.uint8))
    np.savez("pickled.npz", mu=np.array([{}], dtype=object), sigma=np.eye(3))
    np.savez("other.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    Path("cut.npz").write_bytes(Path("real.npz").read_bytes()[:900])
    save_model(data / "run" / "model.safetensors", tiny_model())
    save_noisy_classifier("noisy.safetensors", tiny_classifier())
    code, said, complaints = unnoise(
        "evaluate", *args, *([] if "--features" in args or args[0].endswith(".json") else FAST)
    )
    assert code == 2 and said == ""
    assert reason in complaints and complaints.count("\n") == 1, complaints
    assert double.calls == 0 or "flat.npz" in args


EVALUATION = {
    "unnoise_evaluation": 1, "samples": "s", "against": "r", "protocol": {}, "warnings": [], "nearest": None,
    "metrics": [
        {"name": "PSNR", "value": None, "better": "higher", "interval": None, "floor": None, "infinite": None,
         "note": ""},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (None, "first.json is no evaluation; name a JSON"),
        ([1], "first.json is no evaluation"),
        ({"unnoise_evaluation": None}, "first.json is no evaluation"),
        ({"unnoise_evaluation": "1"}, "first.json is no evaluation"),
        ({"unnoise_evaluation": 2}, "written by a newer unnoise"),
        ({"metrics": 3}, "first.json is no whole evaluation (metrics = 3"),
        ({"metrics": [3]}, "first.json is no whole evaluation"),
        ({"metrics": [{"name": "PSNR"}]}, "first.json is no whole evaluation"),
        ({"metrics": [{"name": "PSNR", "value": "high"}]}, "metrics[0].value = 'high'"),
        ({"metrics": [{"name": "PSNR", "value": 1, "interval": [1]}]}, "first.json is no whole evaluation"),
        ({"warnings": 1}, "first.json is no whole evaluation (warnings = 1"),
        ({"protocol": []}, "first.json is no whole evaluation (protocol = []"),
        ({"of_old": 1}, "first.json is no whole evaluation (unknown setting of_old"),
    ],
)
def test_odd_evaluations_are_refused(unnoise, data, changes, reason):
    content = EVALUATION | changes if isinstance(changes, dict) else changes
    Path("first.json").write_text("{}" if content is None else json.dumps(content))
    Path("second.json").write_text(json.dumps(EVALUATION))
    code, said, complaints = unnoise("evaluate", "first.json", "second.json")
    assert (code, said, complaints.count("\n")) == (2, "", 1) and reason in complaints, complaints


def test_infinite_values_are_compared(unnoise, data):
    finite = [EVALUATION["metrics"][0] | {"value": 30.0, "interval": [29.0, None]}]
    Path("first.json").write_text(json.dumps(EVALUATION | {"metrics": finite}))
    Path("second.json").write_text(json.dumps(EVALUATION))
    code, said, _ = unnoise("evaluate", "first.json", "second.json", "--out", "c")
    assert code == 0 and "PSNR: 30 -> inf (+inf): no interval to judge by" in said
    code, said, _ = unnoise("evaluate", "second.json", "second.json")
    assert code == 0 and "PSNR: inf -> inf (+0): no interval to judge by" in said


@pytest.mark.parametrize("option", [["--steps", "5"], ["-n", "4"], ["--features", "double"], ["--no-floor"]])
def test_options_that_a_comparison_would_pass_over_are_refused(unnoise, data, option):
    Path("first.json").write_text(json.dumps(EVALUATION))
    code, said, complaints = unnoise("evaluate", "first.json", "first.json", *option)
    assert (code, said) == (2, "") and "says nothing of the comparison of two evaluations" in complaints


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"mu": np.zeros((2, 2)), "sigma": np.eye(2)}, "mu is float64 of shape (2, 2)"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "do not belong together"),
        ({"mu": np.zeros(2, complex), "sigma": np.eye(2)}, "mu is complex128"),
        ({"mu": np.zeros(2), "sigma": np.eye(2, dtype=np.int64)}, "sigma is int64"),
        ({"mu": np.zeros(0), "sigma": np.eye(0)}, "mu is float64 of shape (0,)"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "mu holds NaN or infinite numbers"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "sigma is no covariance"),
        ({"mu": np.zeros(2), "sigma": np.array([[1, 5], [0, 1.0]])}, "sigma is no covariance"),
        ({"mu": np.array([{}], object), "sigma": np.eye(1)}, "holds pickled objects"),
        ({"n": np.arange(3)}, "n is int64 of shape (3,)"),
        ({"n": np.array("many")}, "n is <U4"),
        ({"shape": np.array([8, 8])}, "shape is int64 of shape (2,)"),
        ({"features_pool": np.zeros(3)}, "features_pool is float64 of shape (3,)"),
        ({"features_pool": np.ones((3, 12)), "features_middle": np.ones((2, 4))}, "different numbers"),
        ({"mu": np.zeros(5), "sigma": np.eye(5)}, "the reference has 5 features a picture"),
        ({"sigma": np.eye(2)}, "has no arr_0 (it holds sigma)"),
    ],
    ids=str,
)
def test_references_of_odd_arrays_are_refused(unnoise, data, arrays, reason):
    whole = {"mu": np.zeros(12), "sigma": np.eye(12), "network": "double", "weights_hash": "d0"}
    np.savez("ref.npz", **(arrays if arrays.keys() == {"sigma"} else whole | arrays))
    code, said, complaints = unnoise("evaluate", "fake.npz", "--against", "ref.npz", *FAST)
    assert (code, said, complaints.count("\n")) == (2, "", 1) and reason in complaints, complaints


@pytest.mark.parametrize("record", ["", "{", "[1]", "3", "null", b"\xff"])
def test_a_broken_record_beside_pictures_is_refused(unnoise, data, record):
    picture(data / "drawn" / "000000.png", 8)
    picture(data / "drawn" / "000001.png", 8)
    (data / "drawn" / "request.json").write_bytes(record if isinstance(record, bytes) else record.encode())
    code, said, complaints = unnoise("evaluate", "drawn", "--against", "real.npz", *FAST)
    assert (code, said, complaints.count("\n")) == (2, "", 1), complaints
    assert "drawn/request.json is no record of `unnoise sample`" in complaints


@pytest.mark.parametrize(
    ("side", "reason"), [(9, "000001.png is uint8 of shape (9, 9, 1)"), (0, "is broken")]
)
def test_a_picture_among_the_drawn_that_is_none_of_them_is_refused(unnoise, data, side, reason):
    picture(data / "drawn" / "000000.png", 8)
    picture(data / "drawn" / "000001.png", side)
    (data / "drawn" / "request.json").write_text("{}")
    code, said, complaints = unnoise("evaluate", "drawn", "--against", "real.npz", *FAST)
    assert (code, said, complaints.count("\n")) == (2, "", 1) and reason in complaints, complaints


def picture(path, side):
    """A PNG of noise; an empty file where the side is 0."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    if side:
        Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    "command", [["evaluate", "--against", "real.npz", *FAST], ["reference", "-o", "r.npz"]]
)
def test_what_errors_of_data_advise_works_here(unnoise, data, command):
    """Labels that cannot be told, and a size that must be chosen."""
    for name, side in (("a/0", 8), ("a/1", 16), ("2", 8)):
        (data / "mixed" / "a").mkdir(parents=True, exist_ok=True)
        picture(data / "mixed" / f"{name}.png", side)
    run = [
        command[0],
        "mixed",
        *command[1:],
        *(["--features", "double"] if command[0] == "reference" else []),
    ]
    code, _, complaints = unnoise(*run)
    assert code == 2 and "--set data.labels=none" in complaints
    code, _, complaints = unnoise(*run, "--set", "data.labels=none")
    assert code == 2 and "--set data.size=8" in complaints
    code, said, complaints = unnoise(
        *run, "--set", "data.labels=none", "--set", "data.size=8", "--set", "data.cache=elsewhere"
    )
    assert code == 0, complaints
    assert (data / "elsewhere" / "features").is_dir()


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

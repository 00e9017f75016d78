"""`unnoise sample --low-res` and `unnoise cascade` as a user runs them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.models import tiny_model, tiny_upsampler
from unnoise.cli import main
from unnoise.images import is_whole_png, read_request
from unnoise.model import save_model

FAST = ["--steps", "2", "--precision", "float32"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "base" / "model.safetensors", tiny_model(size=4))
    save_model(folder / "up" / "model.safetensors", tiny_upsampler(noise=0.4))
    save_model(folder / "up2.safetensors", tiny_upsampler(size=16, low_res=8))
    save_model(folder / "other.safetensors", tiny_upsampler(classes=("Bag", "Coat")))
    return folder


@pytest.fixture
def unnoise(monkeypatch, capsys):
    """Run the program in this process -> (exit status, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def pixels(folder, n):
    return np.stack([np.asarray(Image.open(folder / f"{k:06d}.png")) for k in range(n)])


def test_drawn_pictures_are_enlarged_with_their_classes(unnoise, models, tmp_path):
    small, big = tmp_path / "small", tmp_path / "big"
    assert unnoise("sample", models / "base", "-n", 3, "--label", "sneaker", *FAST, "--out", small)[0] == 0
    job = ["sample", models / "up", "--low-res", small, "--low-res-noise", "0.2", *FAST, "--out", big]
    code, said, complaint = unnoise(*job)
    assert code == 0 and complaint == "" and "3 pictures drawn" in said
    assert names(big) == ["000000.png", "000001.png", "000002.png", "grid.png", "request.json"]
    request = read_request(big / "000001.png")
    expected = {"low_res": str(small), "first": 1, "labels": ["Sneaker"], "low_res_noise": 0.2}
    assert expected.items() <= request.items()
    (big / "000002.png").unlink()
    assert "1 pictures drawn" in unnoise(*job)[1]
    # The content decides, not the place: moved pictures are the same job, changed ones are not.
    small.rename(tmp_path / "moved")
    job[3] = tmp_path / "moved"
    assert "0 pictures drawn" in unnoise(*job)[1]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "moved" / "000001.png")
    code, _, complaint = unnoise(*job, "--label", "sneaker")
    assert code == 2 and complaint.count("\n") == 1 and "low_res: " in complaint


def test_npz_in_adms_layout_in_and_out(unnoise, models, tmp_path):
    base = ["sample", models / "base", "-n", 5, "--npz", *FAST, "--out", tmp_path / "small"]
    assert unnoise(*base)[0] == 0
    small = tmp_path / "small" / "samples_5x4x4x1.npz"
    assert (
        unnoise("sample", models / "up", "--low-res", small, "--npz", *FAST, "--out", tmp_path / "b")[0] == 0
    )
    with np.load(tmp_path / "b" / "samples_5x8x8x1.npz") as file:
        assert file["arr_0"].shape == (5, 8, 8, 1) and file["arr_1"].tolist() == [0, 1, 2, 3, 4]


def test_a_cascade_in_one_command(unnoise, models, tmp_path):
    out = tmp_path / "cascade"
    chained = [models / "base", models / "up", models / "up2.safetensors"]
    options = "-n 4 --label sandal --guidance 2 --steps 3 --steps 2 --steps 1 --low-res-noise 0.1"
    code, said, complaint = unnoise(
        "cascade", *chained, *options.split(), "--low-res-noise", 0, "--precision", "float32", "--out", out
    )
    assert code == 0 and complaint == "" and "4 pictures drawn" in said
    assert names(out) == [*(f"{k:06d}.png" for k in range(4)), "4x4", "8x8", "grid.png", "request.json"]
    request = read_request(out / "000003.png")
    assert (request["steps"], request["guidance"], request["first"]) == ("3", 2.0, 3)
    assert [(u["steps"], u["low_res_noise"]) for u in request["upsamplers"]] == [("2", 0.1), ("1", 0)]
    with Image.open(out / "000003.png") as picture:
        assert picture.size == (16, 16) and picture.text["image"] == "3"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["cascade", "base"], ["one upsampler at least"]),
        (["cascade", "base", "up2.safetensors"], ["base draws 4x4", "up2.safetensors enlarges 8x8"]),
        (["cascade", "base", "base"], ["base is no upsampler"]),
        (["cascade", "up", "up2.safetensors"], ["is an upsampler from 4x4"]),
        (["cascade", "base", "other.safetensors"], ["'T-shirt/top'", "base", "other.safetensors"]),
        (["cascade", "base", "up", "--steps", "3", "--steps", "2", "--steps", "1"], ["--steps", "3 times"]),
        (["cascade", "base", "up", "--low-res-noise", "0.5"], ["low_res_noise=0.5", "0..0.4"]),
        (["cascade", "base", "up", "-n", "1000000000000"], ["n=1000000000000", "up to 10,000,000"]),
        (["cascade", "base", "up", "--guidance-course", "linear"], ["guidance_course", "nothing guides"]),
        (["cascade", "base", "up", "--label", "cat"], ["'cat'"]),
        (["cascade", "base", "up", "--guidance", "classifier"], ["--classifier"]),
        (["sample", "up"], ["--low-res", "4x4"]),
        (["sample", "base", "--low-res", "x"], ["low_res=x"]),
        (["sample", "up", "--low-res", "missing"], ["missing does not exist"]),
    ],
)
def test_refusals_are_one_line(unnoise, models, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(models)
    code, said, complaint = unnoise(*args, "--out", tmp_path / "out")
    assert code == 2 and said == "" and complaint.count("\n") == 1, complaint
    for word in words:
        assert word in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["grid.png", "4x4/grid.png", "4x4/000001.png", "4x4/request.json"])
def test_foreign_files_are_never_overwritten(unnoise, models, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    job = ["cascade", models / "base", models / "up", "-n", 2, *FAST, "--out", tmp_path]
    code, _, complaint = unnoise(*job)
    assert code == 2 and f"{tmp_path / name} is there" in complaint and complaint.count("\n") == 1
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [name]
    (tmp_path / name).unlink()
    assert unnoise(*job)[0] == 0 and "0 pictures" in unnoise(*job)[1]


def test_ctrl_c(unnoise, models, tmp_path):
    """Stopped, then continued with fewer pictures: equal to an undisturbed job."""
    job = ["cascade", models / "base", models / "up", "--exact", *FAST, "--out"]
    running = subprocess.Popen(
        [sys.executable, "-m", "unnoise", *map(str, job), str(tmp_path / "a"), "-n", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "a" / "000009.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=60)
    assert running.returncode == 130 and complaint.count("\n") == 1 and "continues" in complaint
    assert all(is_whole_png(p) for p in (tmp_path / "a").rglob("[0-9]*.png"))
    for name in ("a", "b"):
        assert unnoise(*job, tmp_path / name, "-n", 12)[0] == 0
    for folder in (".", "4x4"):
        assert np.array_equal(pixels(tmp_path / "a" / folder, 12), pixels(tmp_path / "b" / folder, 12))


def test_two_processes_draw_what_one_draws(unnoise, models, tmp_path):
    job = ["cascade", str(models / "base"), str(models / "up"), "-n", "11", "--exact", *FAST]
    assert unnoise(*job, "--out", tmp_path / "one")[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "unnoise", *job, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "one").rglob("*"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert other.exists() and (path.is_dir() or path.read_bytes() == other.read_bytes()), path

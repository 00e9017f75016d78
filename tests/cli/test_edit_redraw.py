"""`unnoise edit inpaint`, `outpaint`, `colorize`, `upscale` and `stroke` as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_edit import FAST, names, pixels
from tests.edit.test_told_models import told_model
from tests.models import tiny_model, tiny_upsampler
from unnoise.cli import main
from unnoise.config.load import from_dict
from unnoise.config.requests import EditRequest
from unnoise.edit import inpaint
from unnoise.images import read_request
from unnoise.model import load_model, save_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redraw")
    save_model(folder / "grey.safetensors", tiny_model())
    save_model(folder / "rgb.safetensors", tiny_model(channels=3, classes=(), null=False))
    save_model(folder / "up.safetensors", tiny_upsampler())
    rng = np.random.default_rng(0)
    for name in ("a", "b", "deep/c"):
        hole = np.zeros((8, 8), np.uint8)
        hole[2:5, len(name) : 7] = 255
        for kind, levels in (("pictures", rng.integers(0, 256, (8, 8), np.uint8)), ("masks", hole)):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(levels).save(path)
    Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(folder / "small.png")
    Image.fromarray(rng.integers(0, 256, (12, 20, 3), np.uint8)).save(folder / "large.png")
    (folder / "strokes.json").write_text(json.dumps([{"width": 3, "points": [[1, 1], [6, 5]]}]))
    (folder / "text.png").write_text("words")
    return folder


@pytest.fixture
def unnoise(monkeypatch, capsys, place):
    """Run `unnoise edit` in this process, at the place -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(place)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["unnoise", "edit", *map(str, args), *FAST])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def test_holes_of_a_folder(unnoise, place, tmp_path):
    """Each picture with the mask of its name; results hold what makes them, and continue."""
    job = ["inpaint", "grey.safetensors", "pictures", "--mask", "masks", "--label", "sandal", "-n"]
    code, said, complaint = unnoise(*job, 2, "--out", tmp_path)
    assert code == 0 and complaint == "" and "6 results drawn" in said and "before and after" in said
    wanted = [f"{name}-00{k}.png" for name in ("a", "b", "deep/c") for k in range(2)]
    assert names(tmp_path) == sorted([*wanted, "request.json", "sheet.png"])
    for name in ("a", "b", "deep/c"):
        before, known = pixels(place / f"pictures/{name}.png"), pixels(place / f"masks/{name}.png") == 0
        after = pixels(tmp_path / f"{name}-001.png")
        assert np.array_equal(before[known], after[known]) and not np.array_equal(before, after)
    inside = read_request(tmp_path / "b-001.png")
    assert inside["mask"] == "masks" and inside["generate"]["labels"] == ["Sandal"]
    mask = pixels(place / "masks/b.png")
    again = from_dict(EditRequest, inside | {"mask": ""})
    (batch,) = inpaint(load_model("grey.safetensors"), ["pictures/b.png"], again, masks=[mask])
    assert np.abs(batch.pixels[0, ..., 0].numpy().astype(int) - pixels(tmp_path / "b-001.png")).max() <= 1
    # Another hole is another result, the same one is there.
    (tmp_path / "a-000.png").unlink()
    assert "1 result drawn" in unnoise(*job, 2, "--out", tmp_path)[1]
    Image.fromarray(255 - mask).save(place / "masks/b.png")
    assert "2 results drawn" in unnoise(*job, 2, "--out", tmp_path)[1]
    Image.fromarray(mask).save(place / "masks/b.png")
    code, _, complaint = unnoise(*job, 2, "--method", "repaint", "--jump", 1, "--out", tmp_path)
    assert code == 2 and "method: auto there, repaint now" in complaint
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height  # before, hole and two results, of three pictures


def test_a_folder_with_a_broken_picture_and_a_mask_that_is_missing(place, tmp_path):
    """In a process of its own: the others are done, each of the two is named, exit status 1."""
    for kind in ("pictures", "masks"):
        (tmp_path / kind).mkdir()
        for name in ("a", "b") if kind == "pictures" else ("a", "broken"):
            source = place / kind / ("a.png" if name == "broken" else f"{name}.png")
            (tmp_path / kind / f"{name}.png").write_bytes(source.read_bytes())
    (tmp_path / "pictures/broken.png").write_text("words")
    command = [
        "inpaint", place / "grey.safetensors", tmp_path / "pictures", "--mask", tmp_path / "masks", "-n", "2",
        "--out", tmp_path / "out",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "unnoise", "edit", *map(str, command), *FAST],
        capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and "2 results drawn" in done.stdout and "Traceback" not in done.stderr
    assert "broken.png: not a picture" in done.stderr and "no mask called b; add it" in done.stderr
    assert "2 pictures could not be used" in done.stderr
    assert names(tmp_path / "out") == ["a-000.png", "a-001.png", "request.json", "sheet.png"]


def test_an_interrupted_folder_continues(place, tmp_path):
    command = [
        sys.executable, "-m", "unnoise", "edit", "inpaint", str(place / "grey.safetensors"),
        str(place / "pictures"), "--box", "2,2,3,3", "-n", "40", "--batch-size", "1", "--steps", "20",
        "--precision", "float32", "--out", str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while len(names(tmp_path)) < 4 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        complaint = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "the same command continues" in complaint
    there = {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path) if name[0] in "abd"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0 and f"{120 - len(there)} results drawn" in done.stdout
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in there.items())


def test_every_verb_draws(unnoise, place, tmp_path):
    jobs = {
        "box": ["inpaint", "grey.safetensors", "pictures/a.png", "--box", "1,1,4,4"],
        "strokes": ["inpaint", "grey.safetensors", "pictures/a.png", "--strokes", "strokes.json"],
        "margins": ["outpaint", "grey.safetensors", "pictures/a.png", "--left", "3", "--bottom", "9"],
        "pulled": ["inpaint", "grey.safetensors", "pictures/a.png", "--box", "1,1,4,4", "--method", "dps"],
        "weighed": [
            "inpaint", "grey.safetensors", "pictures/a.png", "--box", "1,1,4,4", "--method", "particles",
            "--sampler", "ddpm", "--particles", "3",
        ],
        "led": ["colorize", "rgb.safetensors", "pictures/a.png", "--palette", "large.png"],
        "colours": ["colorize", "rgb.safetensors", "pictures/a.png"],
        "detail": ["upscale", "grey.safetensors", "small.png", "--factor", "2"],
        "painted": ["stroke", "grey.safetensors", "pictures/a.png", "--strength", "0.4", "--repeats", "2"],
        "large": ["stroke", "rgb.safetensors", "large.png", "--box", "3,3,9,6", "--fit", "tile"],
    }  # fmt: skip
    for name, job in jobs.items():
        code, said, complaint = unnoise(*job, "-n", 2, "--out", tmp_path / name)
        assert code == 0 and complaint == "" and "2 results drawn" in said, complaint
        assert len(names(tmp_path / name)) == 4
    before = pixels(place / "pictures/a.png")
    wide = pixels(tmp_path / "margins/a-001.png")
    assert wide.shape == (17, 11) and np.array_equal(wide[:8, 3:], before)
    assert (pixels(tmp_path / "colours/a-000.png").astype(int).sum(-1) == 3 * before.astype(int)).all()
    assert pixels(tmp_path / "large/large-000.png").shape == (12, 20, 3)
    code, said, _ = unnoise(*jobs["detail"], "-n", 2, "--out", tmp_path / "detail")
    assert "0 results drawn" in said and "small-001: consistency inf dB" in said
    with Image.open(tmp_path / "detail/small-000.png") as file:
        assert file.text["consistency"] == "inf dB" and file.size == (8, 8)


def test_maps_of_the_pictures(unnoise, tmp_path):
    """Each picture is told the map of its name; a result is made again alone; other maps are another job."""
    save_model(tmp_path / "model.safetensors", told_model("map"))
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        for kind, levels in (("in", rng.integers(0, 256, (8, 8, 3))), ("maps", rng.integers(0, 3, (8, 8)))):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(levels.astype(np.uint8)).save(tmp_path / kind / f"{name}.png")
    told = ["--given", tmp_path / "in", "--maps", tmp_path / "maps", "--box", "1,1,5,6", "-n", 1]
    job = ["inpaint", tmp_path / "model.safetensors", tmp_path / "in", *told, "--out", tmp_path / "out"]
    code, said, complaint = unnoise(*job)
    assert code == 0 and complaint == "" and "2 results drawn" in said
    inside = from_dict(EditRequest, read_request(tmp_path / "out/b-000.png"))
    (batch,) = inpaint(load_model(tmp_path / "model.safetensors"), [tmp_path / "in/b.png"], inside)
    made = pixels(tmp_path / "out/b-000.png").astype(int)
    assert np.abs(batch.pixels[0].numpy() - made).max() <= 1
    (tmp_path / "maps/a.png").write_bytes((tmp_path / "maps/b.png").read_bytes())
    code, _, complaint = unnoise(*job)
    assert code == 2 and "given:" in complaint and "another request" in complaint


def test_an_upsampler_is_named_as_the_model(unnoise, place, tmp_path):
    """It knows its factor, takes what fits it, and says how near its results are when shrunk again."""
    job = ["upscale", "up.safetensors", "small.png", "-n", 2]
    code, said, complaint = unnoise(*job, "--out", tmp_path / "own")
    assert code == 0 and complaint == "" and "2 results drawn" in said
    small = pixels(place / "small.png").astype(float)
    for name in ("small-000", "small-001"):
        large = pixels(tmp_path / f"own/{name}.png")
        assert large.shape == (8, 8)
        shrunk = large.reshape(4, 2, 4, 2).mean((1, 3))
        decibels = 10 * np.log10(255**2 / np.square(shrunk - small).mean())
        assert f"{name}: consistency {decibels:.1f} dB" in said
        with Image.open(tmp_path / f"own/{name}.png") as file:
            assert abs(float(file.text["consistency"].removesuffix(" dB")) - decibels) < 0.01
    assert unnoise(*job, "--factor", 2, "--out", tmp_path / "same")[0] == 0
    assert np.array_equal(pixels(tmp_path / "same/small-000.png"), pixels(tmp_path / "own/small-000.png"))
    code, said, _ = unnoise(
        "upscale", "up.safetensors", "pictures/a.png", "--fit", "crop", "--out", tmp_path / "c"
    )
    assert code == 0 and "4 results drawn" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["inpaint", "G", "pictures"], ["none is named", "mask, box or strokes"]),
        (["inpaint", "G", "pictures", "--mask", "small.png"], ["none of 3 pictures", "mask is 4x4"]),
        (["inpaint", "G", "pictures/a.png", "--mask", "small.png"], ["mask is 4x4 and it is 8x8"]),
        (["inpaint", "G", "pictures/a.png", "--mask", "none.png"], ["none.png does not exist"]),
        (["inpaint", "G", "pictures/a.png", "--mask", "text.png"], ["not a picture"]),
        (["inpaint", "G", "pictures/a.png", "--box", "1,2,3"], ["'1,2,3'", "left,top,width,height"]),
        (["inpaint", "G", "pictures/a.png", "--box", "4,4,9,9"], ["box 4,4,9,9", "8x8"]),
        (["inpaint", "G", "pictures/a.png", "--box", "0,0,8,8"], ["leaves nothing"]),
        (["inpaint", "G", "large.png", "--box", "0,0,8,8"], ["large.png", "colour", "grey"]),
        (["inpaint", "R", "large.png", "--box", "0,0,8,8"], ["20x12", "8x8", "tile"]),
        (["inpaint", "G", "pictures/a.png", "--box", "1,1,2,2", "--jump", "2"], ["jump=2", "repaint"]),
        (["inpaint", "G", "small.png", "--box", "1,1,2,2", "--method", "repaint"], ["jump=10", "3 steps"]),
        (["outpaint", "G", "pictures/a.png"], ["left, right, top or bottom"]),
        (["colorize", "G", "pictures/a.png"], ["1 channels", "needs 3"]),
        (["colorize", "R", "pictures/a.png", "--palette", "none.png"], ["palette=none.png is no file"]),
        (["upscale", "G", "small.png"], ["how many with factor"]),
        (["upscale", "G", "small.png", "--factor", "3"], ["factor=3 does not divide the 8", "tile"]),
        (["upscale", "U", "small.png", "--factor", "4"], ["factor=4", "8x8 of 4x4", "leave it out"]),
        (["upscale", "U", "pictures/a.png"], ["a.png: it is 8x8", "8x8 of 4x4", "crop"]),
        (["upscale", "U", "small.png", "--fit", "tile"], ["fit=tile", "8x8 of 4x4", "crop or pad"]),
        (["inpaint", "U", "pictures/a.png", "--box", "1,1,2,2"], ["is an upsampler", "4x4"]),
        (["stroke", "G", "pictures/a.png", "--strength", "1.5"], ["strength=1.5", "0 to 1"]),
        (["stroke", "G", "pictures/a.png", "--prompt", "a hat"], ["prompts", "no such thing"]),
    ],
)  # fmt: skip
def test_refusals_write_nothing(unnoise, tmp_path, args, words):
    files = {"G": "grey.safetensors", "R": "rgb.safetensors", "U": "up.safetensors"}
    args = [files.get(arg, arg) for arg in args]
    code, said, complaint = unnoise(*args, "--out", tmp_path / "out")
    assert code == 2 and said == "" and "Traceback" not in complaint
    for word in words:
        assert word in complaint
    assert not (tmp_path / "out").exists()

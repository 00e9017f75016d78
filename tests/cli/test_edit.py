"""`unnoise edit` as a user runs it: what it writes, how it continues, what it names and refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.models import tiny_model
from unnoise.cli import main
from unnoise.config.load import from_dict
from unnoise.config.requests import EditRequest
from unnoise.edit import interpolate, load_code, vary
from unnoise.edit.pictures import read_picture
from unnoise.images import read_request
from unnoise.model import load_model, save_model

FAST = ["--steps", "3", "--precision", "float32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edit")
    save_model(folder / "tiny.safetensors", tiny_model())
    rng = np.random.default_rng(0)
    for name in ("a", "b", "deep/c"):
        path = folder / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    Image.fromarray(rng.integers(0, 256, (12, 20, 3), np.uint8)).save(folder / "big.png")
    (folder / "text.png").write_text("words")
    return folder


@pytest.fixture
def unnoise(monkeypatch, capsys, place):
    """Run `unnoise edit` in this process, at the place -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(place)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["unnoise", "edit", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_folder_with_a_broken_picture(place, tmp_path):
    """In a process of its own: the others are done, the broken one is named, exit status 1."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "b"):
        (pictures / f"{name}.png").write_bytes((place / "pictures" / f"{name}.png").read_bytes())
    (pictures / "broken.png").write_text("words")
    command = [
        "vary",
        str(place / "tiny.safetensors"),
        str(pictures),
        "-n",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "unnoise", "edit", *command, *FAST],
        capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and "4 variants drawn" in done.stdout
    assert "broken.png: not a picture" in done.stderr and "1 picture could not be used" in done.stderr
    assert "Traceback" not in done.stderr
    wanted = [f"{name}-00{k}.png" for name in "ab" for k in range(2)]
    assert names(tmp_path / "out") == sorted([*wanted, "request.json", "sheet.png"])


def test_variants_hold_their_requests_and_continue(unnoise, place, tmp_path):
    job = [
        "vary",
        "tiny.safetensors",
        "pictures",
        "--strength",
        "0.7",
        "--seed",
        "5",
        "--label",
        "sandal",
        *FAST,
    ]
    code, said, complaint = unnoise(*job, "-n", 2, "--out", tmp_path)
    assert code == 0 and complaint == "" and "6 variants drawn" in said and "sheet.png" in said
    results = [f"{name}-00{k}.png" for name in ("a", "b", "deep/c") for k in range(2)]
    assert names(tmp_path) == sorted([*results, "request.json", "sheet.png"])
    # The request inside a result makes it again.
    inside = read_request(tmp_path / "deep" / "c-001.png")
    assert (inside["kind"], inside["strength"], inside["generate"]["first"]) == ("vary", 0.7, 1)
    (again,) = vary(
        load_model(place / "tiny.safetensors"),
        [place / "pictures/deep/c.png"],
        from_dict(EditRequest, inside),
    )
    assert again.names == ("Sandal",)
    made = pixels(tmp_path / "deep/c-001.png").astype(int)
    assert np.abs(again.pixels[0, ..., 0].numpy() - made).max() <= 1
    with Image.open(tmp_path / "a-000.png") as file:
        assert file.text["source"] == "a" and len(file.text["model-sha256"]) == 64
    # More of them, one lost meanwhile: what is there stays.
    (tmp_path / "a-000.png").unlink()
    kept = (tmp_path / "b-001.png").stat().st_mtime_ns
    code, said, _ = unnoise(*job, "-n", 3, "--out", tmp_path)
    assert code == 0 and "4 variants drawn" in said and (tmp_path / "b-001.png").stat().st_mtime_ns == kept
    # A record from before an option existed is of that option's default.
    record = json.loads((tmp_path / "request.json").read_text())
    del record["generate"]["low_res_noise"]
    (tmp_path / "request.json").write_text(json.dumps(record))
    assert unnoise(*job, "-n", 3, "--out", tmp_path)[0] == 0
    code, _, complaint = unnoise(*job, "-n", 2, "--eta", 1, "--out", tmp_path)
    assert code == 2 and "another request" in complaint


def test_a_picture_that_changed_is_done_anew(unnoise, place, tmp_path):
    (tmp_path / "one.png").write_bytes((place / "pictures/a.png").read_bytes())
    job = ["vary", "tiny.safetensors", tmp_path / "one.png", "-n", 1, *FAST, "--out", tmp_path / "out"]
    assert "1 variant drawn" in unnoise(*job)[1] and "0 variants drawn" in unnoise(*job)[1]
    (tmp_path / "one.png").write_bytes((place / "pictures/b.png").read_bytes())
    assert "1 variant drawn" in unnoise(*job)[1]


def test_to_noise_and_back_and_on(unnoise, place, tmp_path):
    job = ["invert", "tiny.safetensors", "pictures/a.png", "pictures/b.png", *FAST, "--label", "sandal"]
    code, said, complaint = unnoise(*job, "--out", tmp_path)
    assert code == 0 and complaint == "" and "2 pictures done" in said
    lines = [line for line in said.splitlines() if ": PSNR" in line]
    assert [line.split(":")[0] for line in lines] == ["a", "b"]
    for name, line in zip("ab", lines, strict=True):
        error = pixels(tmp_path / f"{name}-back.png").astype(int) - pixels(place / f"pictures/{name}.png")
        assert f"{np.abs(error).max()} at most" in line
        assert f"{10 * np.log10(255**2 / (error**2).mean()):.1f} dB" in line
    assert load_code(tmp_path / "a.safetensors").label == "Sandal"
    code, again, _ = unnoise(*job, "--out", tmp_path)
    assert code == 0 and "0 pictures done" in again and said.splitlines()[-3:] == again.splitlines()[-3:]
    # The noise is drawn again, and is an end of a way.
    code, said, _ = unnoise(
        "invert",
        "tiny.safetensors",
        tmp_path / "a.safetensors",
        *FAST,
        "--label",
        "sandal",
        "--out",
        tmp_path / "drawn",
    )
    assert code == 0 and np.array_equal(
        pixels(tmp_path / "drawn/a-drawn.png"), pixels(tmp_path / "a-back.png")
    )
    code, said, _ = unnoise(
        "interpolate", "tiny.safetensors", tmp_path / "a.safetensors", "pictures/b.png", "--frames", 4,
        "--animation", *FAST, "--label", "sandal", "--out", tmp_path / "way",
    )  # fmt: skip
    assert code == 0 and "4 pictures drawn" in said
    written = [
        "000.png",
        "001.png",
        "002.png",
        "003.png",
        "animation.gif",
        "request.json",
        "sheet.png",
        "strip.png",
    ]
    assert names(tmp_path / "way") == written
    for index, name in ((0, "a"), (3, "b")):
        end = pixels(tmp_path / f"way/00{index}.png").astype(int)
        assert np.abs(end - pixels(tmp_path / f"{name}-back.png")).max() <= 2
    with Image.open(tmp_path / "way/animation.gif") as file:
        assert file.n_frames == 4


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pictures_of_other_sizes_go_to_noise_and_between(unnoise, place, tmp_path, fit):
    """As they are fitted; without a word they are refused, and no squares are offered."""
    tall = np.random.default_rng(3).integers(0, 256, (20, 12), np.uint8)
    Image.fromarray(tall).save(tmp_path / "tall.png")
    job = ["invert", "tiny.safetensors", tmp_path / "tall.png", *FAST, "--out", tmp_path / "out"]
    code, _, complaint = unnoise(*job)
    assert code == 2 and "12x20" in complaint and "crop" in complaint and "tile" not in complaint
    code, said, _ = unnoise(*job, "--fit", fit)
    seen = read_picture(tmp_path / "tall.png", (1, 8, 8), EditRequest(fit=fit)).pixels[..., 0].numpy()
    back = pixels(tmp_path / "out/tall-back.png")
    assert code == 0 and back.shape == (8, 8)
    decibels = 10 * np.log10(255**2 / np.square(back.astype(float) - seen).mean())
    assert f"tall: PSNR {decibels:.1f} dB" in said
    job = ["interpolate", "tiny.safetensors", tmp_path / "tall.png", "pictures/a.png", "--frames", 2, *FAST]
    assert unnoise(*job, "--fit", fit, "--out", tmp_path / "way")[0] == 0
    end = pixels(tmp_path / "way/000.png").astype(int)
    assert np.abs(end - back).max() <= 2


def test_seeds_and_their_classes(unnoise, place, tmp_path):
    code, said, _ = unnoise(
        "interpolate", "tiny.safetensors", "--seeds", "3,5:2", "--frames", 4, "--label", "sandal", "--label",
        "sneaker", "--sampler", "ddpm", "--set", "generate.clip=none", *FAST, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0 and "before and after" not in said
    with Image.open(tmp_path / "001.png") as one, Image.open(tmp_path / "002.png") as two:
        assert (one.text["label"], two.text["label"], two.text["frame"]) == ("Sandal", "Sneaker", "2")
    inside = read_request(tmp_path / "001.png")
    assert inside == read_request(tmp_path / "strip.png")
    drawn = interpolate(load_model(place / "tiny.safetensors"), [], from_dict(EditRequest, inside))
    made = np.stack([pixels(tmp_path / f"00{k}.png") for k in range(4)]).astype(int)
    assert np.abs(drawn.pixels[..., 0].numpy() - made).max() <= 1


def test_pictures_that_do_not_fit(unnoise, tmp_path):
    job = ["vary", "tiny.safetensors", "big.png", "-n", 1, *FAST, "--out", tmp_path / "out"]
    assert "it has colour" in unnoise(*job)[2]
    code, _, complaint = unnoise(*job, "--grey")
    assert code == 2 and complaint.count("\n") == 1 and "20x12" in complaint and "8x8" in complaint
    assert "tile" in complaint
    assert not (tmp_path / "out").exists()
    for fit in ("crop", "pad"):
        code, said, _ = unnoise(*job[:-1], tmp_path / fit, "--grey", "--fit", fit)
        assert code == 0 and "1 variant drawn" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["vary", "M", "pictures", "--strength", "1.5"], ["strength=1.5", "0 to 1"]),
        (["vary", "M", "pictures", "--strength", "lots"], ["--strength"]),
        (["vary", "M", "pictures", "--background", "#xyz"], ["'#xyz' is not a colour"]),
        (["vary", "M", "pictures", "--set", "max_pixels=0"], ["max_pixels=0"]),
        (["vary", "M", "pictures/a.png", "pictures/a.png"], ["named twice"]),
        (["invert", "M", "pictures", "--corrections", "1000000000000"], ["corrections=", "up to 1,000"]),
        (["stroke", "M", "pictures", "--repeats", "1000000000000"], ["repeats=", "up to 1,000"]),
        (["vary", "M", "nothing.png"], ["nothing.png does not exist"]),
        (["vary", "M", "text.png"], ["text.png", "not a picture"]),
        (["vary", "M", "text.png", "big.png"], ["none of 2 pictures"]),
        (["vary", "M"], ["PICTURE"]),
        (["vary", "missing.safetensors", "pictures"], ["missing.safetensors does not exist"]),
        (["vary", "M", "pictures", "--guidance", "2"], ["class", "label"]),
        (["vary", "M", "pictures", "--label", "cat"], ["'cat'", "Sneaker"]),
        (["vary", "M", "pictures", "--label", "0", "--label", "1"], ["2 labels for 3 pictures"]),
        (["vary", "M", "pictures", "--fit", "squeeze"], ["fit", "crop"]),
        (["vary", "M", "pictures", "--set", "strenght=1"], ["strenght", "strength"]),
        (["vary", "M", "pictures", "--set", "frames=3"], ["frames=3", "vary"]),
        (["invert", "M", "pictures", "--sampler", "ddpm"], ["ddpm", "adds noise"]),
        (["invert", "M", "pictures", "--fit", "tile"], ["fit=tile", "invert", "crop or pad"]),
        (["interpolate", "M", "pictures", "--fit", "tile"], ["fit=tile", "interpolate", "crop or pad"]),
        (["invert", "M", "tiny.safetensors"], ["holds no inverted picture"]),
        (["interpolate", "M", "pictures/a.png"], ["1 is given"]),
        (["interpolate", "M", "--seeds", "3"], ["1 is given"]),
        (["interpolate", "M", "--seeds", "3,x"], ["'x'"]),
        (["interpolate", "M", "--seeds", f"3,{2**64}"], ["too large"]),
        (["interpolate", "M", "pictures/a.png", "text.png"], ["text.png", "not a picture"]),
        (["interpolate", "M", "pictures/a.png", "big.png", "--grey"], ["big.png", "20x12", "8x8"]),
        (["interpolate", "M", "tiny.safetensors", "pictures/a.png"], ["holds no inverted picture"]),
        (["squeeze", "M", "pictures"], ["squeeze"]),
        (
            ["vary", "M", "pictures", "--set", "kind=invert"],
            ["kind=invert", "edit vary", "unnoise edit invert"],
        ),
        (
            ["invert", "M", "pictures", "--set", "kind=vary"],
            ["kind=vary", "edit invert", "unnoise edit vary"],
        ),
    ],
)
def test_refusals_write_nothing(unnoise, tmp_path, args, words):
    args = ["tiny.safetensors" if arg == "M" else arg for arg in args]
    code, said, complaint = unnoise(*args, *FAST[2:], "--out", tmp_path / "out")
    assert code == 2 and said == "" and "Traceback" not in complaint
    assert complaint.count("\n") == 1 or "none of" in complaint
    for word in words:
        assert word in complaint
    assert not (tmp_path / "out").exists()


def test_results_do_not_land_among_the_pictures(unnoise, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    code, _, complaint = unnoise("vary", "tiny.safetensors", tmp_path, *FAST, "--out", tmp_path / "out")
    assert code == 2 and "taken for pictures" in complaint
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a-000.png").write_text("mine")
    code, _, complaint = unnoise(
        "vary", "tiny.safetensors", tmp_path / "a.png", *FAST, "--out", tmp_path / "other"
    )
    assert code == 2 and "not from this command" in complaint


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("vary", "sheet.png"),
        ("vary", "deep/c-000.png"),
        ("invert", "a.safetensors"),
        ("interpolate", "sheet.png"),
    ],
)
def test_foreign_files_are_never_overwritten(unnoise, tmp_path, verb, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    code, _, complaint = unnoise(verb, "tiny.safetensors", "pictures", *FAST, "--out", tmp_path)
    assert code == 2 and f"{tmp_path / name} is there" in complaint and complaint.count("\n") == 1
    assert names(tmp_path) == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("other", [["b-000.png"], ["a.png", "--mask", "b-001.png"], ["link.png"]])
def test_what_is_read_is_never_written(unnoise, place, tmp_path, other):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes((place / f"pictures/{name}.png").read_bytes())
    job = ["stroke", "tiny.safetensors", tmp_path / "b.png", *FAST, "-n", 2, "--out", tmp_path]
    assert unnoise(*job)[0] == 0
    (tmp_path / "link.png").symlink_to("b-000.png")
    before = (tmp_path / "b-000.png").read_bytes(), (tmp_path / "b-001.png").read_bytes()
    job[2:3] = [tmp_path / "b.png", *(tmp_path / each if ".png" in each else each for each in other)]
    code, _, complaint = unnoise(*job)
    assert code == 2 and "both read and written" in complaint and complaint.count("\n") == 1
    assert before == ((tmp_path / "b-000.png").read_bytes(), (tmp_path / "b-001.png").read_bytes())


def test_names_need_not_be_utf_8(unnoise, place, tmp_path):
    picture = tmp_path / os.fsdecode(b"n\xff.png")
    picture.write_bytes((place / "pictures/a.png").read_bytes())
    job = ["vary", "tiny.safetensors", picture, *FAST, "-n", 1, "--out", tmp_path / "out"]
    assert unnoise(*job)[0] == 0
    (result,) = (tmp_path / "out").glob("n*-000.png")
    with Image.open(result) as file:
        assert file.text["source"] == "n\\udcff"
    assert "0 variants" in unnoise(*job)[1]
    job = ["inpaint", "tiny.safetensors", place / "pictures/a.png", "--mask", picture, *FAST, "-n", 1]
    assert unnoise(*job, "--out", tmp_path / "in")[0] == 0
    assert json.loads((tmp_path / "in" / "request.json").read_text())["mask"] == str(picture)
    assert "0 results" in unnoise(*job, "--out", tmp_path / "in")[1]


def test_the_commands_are_declared_without_heavy_imports():
    heavy = "('torch', 'numpy', 'PIL', 'rich')"
    code = f"import sys, unnoise.cli.edit; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

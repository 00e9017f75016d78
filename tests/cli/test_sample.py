"""`unnoise sample` as a user runs it: what it writes, how it continues, what it refuses."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.models import tiny_classifier, tiny_model, tiny_upsampler
from unnoise import generate, images, store
from unnoise.cli import main
from unnoise.config.requests import GenerateRequest
from unnoise.images import is_whole_png, read_request, to_pil
from unnoise.model import load_model, save_model
from unnoise.modelfile import METADATA_KEY, read_header, read_weights
from unnoise.noisy_classifier import save_noisy_classifier

FAST = ["--steps", "3", "--precision", "float32"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "run" / "model.safetensors", tiny_model())
    save_model(folder / "plain.safetensors", tiny_model(classes=()))
    save_noisy_classifier(folder / "classifier" / "model.safetensors", tiny_classifier())
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


def pixels(folder, n, first=0):
    return np.stack([np.asarray(Image.open(folder / f"{k:06d}.png")) for k in range(first, first + n)])


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_pictures_with_their_requests_and_a_grid(unnoise, models, tmp_path):
    out = tmp_path / "new" / "drawn"
    code, said, complaints = unnoise("sample", models / "run", "-n", 7, "--seed", 5, *FAST, "--out", out)
    assert code == 0 and complaints == "" and "7 pictures" in said and str(out) in said
    assert names(out) == [f"{k:06d}.png" for k in range(7)] + ["grid.png", "request.json"]
    # The request inside a picture draws that picture.
    request = read_request(out / "000006.png")
    assert (request["seed"], request["first"], request["n"], request["labels"]) == (5, 6, 1, ["Trouser"])
    again = generate.sample(load_model(models / "run"), **request)
    assert np.abs(np.asarray(again.pictures()[0]).astype(int) - pixels(out, 7)[6]).max() <= 1
    with Image.open(out / "000006.png") as file:
        assert file.size == (8, 8) and file.mode == "L" and file.text["image"] == "6"
    with Image.open(out / "grid.png") as file:
        assert file.width > 5 * 80, "five classes side by side, enlarged"
    assert GenerateRequest(**read_request(out / "grid.png")).n == 7


def test_options_reach_the_request(unnoise, models, tmp_path):
    args = "-n 2 --label sneak --label 0 --sampler ddpm --guidance 1.5 --clip dynamic --first 4 --no-grid"
    out = tmp_path / "a"
    code, _, _ = unnoise("sample", models / "run" / "model.safetensors", *args.split(), *FAST, "--out", out)
    assert code == 0 and names(out) == ["000004.png", "000005.png", "request.json"]
    request = read_request(out / "000005.png")
    expected = {
        "labels": ["T-shirt/top"],
        "sampler": "ddpm",
        "guidance": 1.5,
        "clip": "dynamic",
        "steps": "3",
    }
    assert expected.items() <= request.items()
    code, _, _ = unnoise("sample", models / "run", "-n1", "--eta", "0.5", *FAST, "--out", tmp_path / "b")
    assert code == 0 and read_request(tmp_path / "b" / "000000.png")["eta"] == 0.5


def test_an_interrupted_job_continues(unnoise, models, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    job = ["sample", models / "run", "-n", 9, "--batch-size", 4, "--exact", *FAST, "--out"]
    assert unnoise(*job, whole)[0] == 0 and unnoise(*job, part)[0] == 0
    (part / "000001.png").unlink()
    (part / "000004.png").write_bytes((part / "000004.png").read_bytes()[:-7])
    (part / "grid.png").unlink()
    before = {k: (part / f"{k:06d}.png").stat().st_mtime_ns for k in (0, 8)}
    code, said, _ = unnoise(*job, part)
    assert code == 0 and "2 pictures drawn" in said and "9 with" in said
    assert before == {k: (part / f"{k:06d}.png").stat().st_mtime_ns for k in (0, 8)}
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {
        p.name: p.read_bytes() for p in part.iterdir()
    }
    # More of the same is the same job; so is another batch size.
    more = ["sample", models / "run", "-n", 11, "--batch-size", 2, "--exact", *FAST, "--out", part]
    assert "2 pictures drawn" in unnoise(*more)[1]


def test_npz_in_adms_layout(unnoise, models, tmp_path):
    folder, packed = tmp_path / "folder", tmp_path / "packed"
    job = ["sample", models / "run", "-n", 8, "--batch-size", 3, "--exact", *FAST, "--out"]
    assert unnoise(*job, folder)[0] == 0
    code, said, _ = unnoise(*job, packed, "--npz")
    assert code == 0 and names(packed) == ["grid.png", "request.json", "samples_8x8x8x1.npz"]
    assert "samples_8x8x8x1.npz" in said
    with np.load(packed / "samples_8x8x8x1.npz", allow_pickle=False) as file:
        assert file.files == ["arr_0", "arr_1"]
        assert file["arr_0"].dtype == np.uint8 and np.array_equal(file["arr_0"][..., 0], pixels(folder, 8))
        assert file["arr_1"].dtype == np.int64 and file["arr_1"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert (folder / "grid.png").read_bytes() == (packed / "grid.png").read_bytes()
    (packed / "grid.png").unlink()
    code, said, _ = unnoise(*job, packed, "--npz")
    assert code == 0 and said.startswith("0 pictures drawn")
    assert (folder / "grid.png").read_bytes() == (packed / "grid.png").read_bytes()

    plain = tmp_path / "plain"
    code, _, _ = unnoise("sample", models / "plain.safetensors", "-n1", "--npz", *FAST, "--out", plain)
    with np.load(plain / "samples_1x8x8x1.npz") as file:
        assert file.files == ["arr_0"]


def test_an_interrupted_npz_continues(unnoise, models, tmp_path, monkeypatch):
    job = ["sample", models / "run", "--npz", "--exact", *FAST, "-n", 20, "--out"]
    assert unnoise(*job, tmp_path / "whole")[0] == 0
    out = tmp_path / "part"
    add, written = store.NpzFile.add, []

    def stop_after_two(self, batch):
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        add(self, batch)
        written.append(batch.ids)

    monkeypatch.setattr(store.NpzFile, "add", stop_after_two)
    code, _, complaint = unnoise(*job, out, "--batch-size", 4)
    assert code == 143 and complaint.count("\n") == 1 and "16 pictures" in complaint
    monkeypatch.setattr(store.NpzFile, "add", add)
    shard = next((out / ".shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    code, said, _ = unnoise(*job, out, "--batch-size", 7)
    assert code == 0 and "12 pictures drawn" in said
    assert (out / "samples_20x8x8x1.npz").read_bytes() == (
        tmp_path / "whole" / "samples_20x8x8x1.npz"
    ).read_bytes()
    assert ".shards" not in names(out)


def test_the_animation_ends_in_the_grid(unnoise, models, tmp_path):
    job = ["sample", models / "run", "-n", 7, "--batch-size", 3, "--frames", *FAST, "--out", tmp_path]
    assert unnoise(*job)[0] == 0
    with Image.open(tmp_path / "denoising.gif") as film, Image.open(tmp_path / "grid.png") as grid:
        assert film.n_frames == 3 and film.size == grid.size
        film.seek(2)
        last = np.asarray(film.convert("RGB")).astype(int)
        assert np.abs(last - np.asarray(grid.convert("RGB"))).mean() < 2
        film.seek(0)
        assert np.abs(np.asarray(film.convert("RGB")) - last).mean() > 10
    (tmp_path / "denoising.gif").unlink()
    code, said, _ = unnoise(*job)
    assert code == 0 and "7 pictures drawn" in said and (tmp_path / "denoising.gif").exists()


def test_another_request_in_the_same_folder_is_refused(unnoise, models, tmp_path):
    job = ["sample", models / "run", "-n", 2, *FAST, "--out", tmp_path]
    assert unnoise(*job)[0] == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    code, _, complaint = unnoise(*job, "--seed", 1, "--label", "sandal")
    assert code == 2 and complaint.count("\n") == 1
    assert "seed: 0 there, 1 now" in complaint and "labels" in complaint and "another folder" in complaint
    other = tmp_path / "other.safetensors"
    save_model(other, tiny_model(seed=1))
    before[other.name] = other.read_bytes()
    code, _, complaint = unnoise("sample", other, *job[2:])
    assert code == 2 and "model_sha256" in complaint
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_foreign_files_are_never_overwritten(unnoise, models, tmp_path):
    to_pil(np.zeros((2, 2, 1), np.uint8)).save(tmp_path / "000001.png")
    before = (tmp_path / "000001.png").read_bytes()
    code, _, complaint = unnoise("sample", models / "run", "-n", 2, *FAST, "--out", tmp_path)
    assert code == 2 and "000001.png" in complaint
    assert (tmp_path / "000001.png").read_bytes() == before and names(tmp_path) == ["000001.png"]
    (tmp_path / "000001.png").unlink()
    (tmp_path / "request.json").write_text("[")
    code, _, complaint = unnoise("sample", models / "run", "-n", 2, *FAST, "--out", tmp_path)
    assert code == 2 and "request.json" in complaint


@pytest.mark.parametrize("name", ["grid.png", "denoising.gif"])
def test_nor_are_those_called_like_what_comes_beside_the_pictures(unnoise, models, tmp_path, name):
    (tmp_path / name).write_text("mine")
    job = ["sample", models / "run", "-n", 1, *FAST, "--no-grid", "--out", tmp_path]
    code, _, complaint = unnoise(*job)
    assert code == 2 and f"{tmp_path / name} is there" in complaint
    assert names(tmp_path) == [name] and (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    assert unnoise(*job)[0] == 0
    assert unnoise(*job, "--grid", "--frames")[0] == 0 and {"grid.png", "denoising.gif"} < {*names(tmp_path)}


def test_pictures_that_are_told_no_class_are_called_by_none(unnoise, models, tmp_path):
    assert unnoise("sample", models / "run", "-n", 2, "--unconditional", *FAST, "--out", tmp_path)[0] == 0
    record = json.loads((tmp_path / "request.json").read_text())
    assert record["labels"] == [] == read_request(tmp_path / "000001.png")["labels"]


def test_a_folder_that_cannot_be_written_is_refused(unnoise, models, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    job = ["sample", models / "run", "-n", 1, *FAST, "--out"]
    code, _, complaint = unnoise(*job, tmp_path / "file" / "in" / "it")
    assert code == 2 and f"{tmp_path / 'file'} is a file" in complaint
    convert = ["convert", models / "run", tmp_path / "file" / "x.safetensors", "--dtype", "float16"]
    code, _, complaint = unnoise(*convert)
    assert code == 2 and f"{tmp_path / 'file'} is a file" in complaint
    code, _, complaint = unnoise(*job, "/proc/nowhere" if os.path.isdir("/proc") else tmp_path / "file")
    assert code == 2 and complaint.count("\n") == 1
    code, _, complaint = unnoise(*job, tmp_path / ("long" * 100))
    assert code == 2 and "too long" in complaint and complaint.count("\n") == 1
    assert unnoise(*job, tmp_path / "out")[0] == 0

    def denied(dir: Path) -> None:  # root may write anywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    code, _, complaint = unnoise(*job, tmp_path / "out")
    assert code == 2 and f"{tmp_path / 'out'} cannot be written to (Permission denied)" in complaint


def test_pictures_do_not_land_among_those_that_are_enlarged(unnoise, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    Image.new("L", (4, 4)).save(small / "a.png")
    save_model(tmp_path / "up.safetensors", tiny_upsampler())
    job = ["sample", tmp_path / "up.safetensors", "--low-res", small, "-n", 1, *FAST, "--out", small / "big"]
    code, _, complaint = unnoise(*job, "--label", "0")
    assert code == 2 and "taken for pictures" in complaint and names(small) == ["a.png"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-n", "0"], ["n=0"]),
        (["--label", "cat"], ["'cat'", "Sneaker", "Ankle boot"]),
        (["--label", "5"], ["0..4"]),
        (["--steps", "0"], ["steps=0", "use 1..100"]),
        (["--steps", "101"], ["steps=101", "use 1..100"]),
        (["--steps", "ddim51"], ["ddim51"]),
        (["--sampler", "plms9"], ["plms9", "ddpm, ddim"]),
        (["--sampler", "ddpm", "--eta", "0.3"], ["eta"]),
        (["--guidance", "nan"], ["guidance"]),
        (["--precision", "float8"], ["precision"]),
        (["--device", "abacus"], ["device=abacus"]),
        (["--batch-size", "0"], ["batch_size=0"]),
        (["--first", "-3"], ["first=-3"]),
        (["--stepz", "3"], ["--stepz"]),
        (["-n", "many"], ["-n", "integer"]),
        (["-n", "1000000000000"], ["n=1000000000000", "up to 10,000,000"]),
        (["--first", str(2**64)], ["first=", "too large"]),
        (["--seed", "-1"], ["seed=-1", f"0 to {2**63 - 1}"]),
        (["--seed", str(2**63)], [f"seed={2**63}"]),
        (["--height", str(10**16), "--width", str(10**6)], ["height x width", "1,073,741,824"]),
        (["--steps", ""], ["value of --steps is empty"]),
        (["--guidance="], ["value of --guidance is empty"]),
        (["--weaker-scale", "3"], ["weaker_scale=3", "none is named"]),
        (["--sampler", "ddpm", "--guide-at", "mean"], ["guide_at=mean", "none is named"]),
        (["--guidance-course", "linear"], ["guidance_course=linear", "nothing guides"]),
        (["--guidance-interval", "1", "2"], ["guidance_interval", "nothing guides"]),
        (["--unconditional", "--label", "Sandal"], ["'Sandal'", "conditional=False"]),
        (["--boxes", "x.json"], ["given_boxes='x.json'", "told no such thing"]),
        (["--maps", "x"], ["given_maps='x'", "told no such thing"]),
        (["--prompt", "\udcff"], ["prompt '\\udcff'", "UTF-8"]),
    ],
)
def test_refused_options(unnoise, models, tmp_path, args, words):
    code, said, complaint = unnoise("sample", models / "run", "--out", tmp_path / "out", *args)
    assert code == 2 and said == "" and complaint.count("\n") == 1
    for word in words:
        assert word in complaint
    assert not (tmp_path / "out").exists()


def test_refused_models_and_places(unnoise, models, tmp_path):
    whole = (models / "run" / "model.safetensors").read_bytes()
    cut, foreign, empty = tmp_path / "cut.safetensors", tmp_path / "foreign.safetensors", tmp_path / "empty"
    cut.write_bytes(whole[: len(whole) // 2])
    foreign.write_text("these are not weights")
    empty.mkdir()
    os.mkfifo(tmp_path / "fifo")
    named = tmp_path / os.fsdecode(b"m\xff.safetensors")
    named.write_bytes(whole)
    for model, word in [
        (tmp_path / "fifo", "a pipe"),
        ("/dev/null", "a device"),
        (named, "rename it"),
        (tmp_path / "missing.safetensors", "does not exist"),
        (cut, "whole"),
        (foreign, "whole"),
        (empty, "model.safetensors"),
    ]:
        code, _, complaint = unnoise("sample", model, *FAST, "--out", tmp_path / "out")
        assert code == 2 and complaint.count("\n") == 1 and word in complaint, complaint
    for out in (foreign, foreign / "below"):
        code, _, complaint = unnoise("sample", models / "run", *FAST, "--out", out)
        assert code == 2 and complaint.count("\n") == 1 and "is a file" in complaint
    assert foreign.read_text() == "these are not weights"
    code, _, complaint = unnoise(
        "sample", models / "plain.safetensors", "--label", "cat", *FAST, "--out", tmp_path / "out"
    )
    assert code == 2 and "knows no classes" in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((), "[" * 100_000, "cannot be read"),
        ((), "{", "cannot be read"),
        ((), [1], "cannot be read"),
        (("model",), [1], "no settings by name"),
        (("info",), None, "no settings by name"),
        (("kind",), {}, "does not know"),
        (("first_stage",), 3, "first stage cannot be read"),
        (("model", "image_size"), None, "image_size=None"),
        (("model", "image_size"), -8, "image_size=-8"),
        (("model", "channels"), None, "channels=None"),
        (("model", "network", "depth"), 10**12, "depth=1000000000000"),
        (("model", "network", "width"), 10**25, "width=1000"),
        (("model", "network", "channel_mult"), [1] * 100_000, "100000 numbers"),
        (("model", "schedule", "steps"), 10**9, "steps=1000000000"),
        (("info", "null_label"), 10**9, "null_label=1000000000"),
    ],
)
def test_files_may_say_anything(unnoise, models, tmp_path, place, value, words):
    path = models / "run" / "model.safetensors"
    header = read_header(path)
    at = header
    for name in place[:-1]:
        at = at[name]
    if place:
        at[place[-1]] = value
    text = json.dumps(header) if place else value if isinstance(value, str) else json.dumps(value)
    save_file(read_weights(path), tmp_path / "odd.safetensors", {METADATA_KEY: text})
    code, _, complaint = unnoise("sample", tmp_path / "odd.safetensors", *FAST, "--out", tmp_path / "out")
    assert code == 2 and complaint.count("\n") == 1 and words in complaint and "odd.safe" in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("npz", [[], ["--npz"]])
def test_a_full_disk_is_one_line_and_loses_nothing(unnoise, models, tmp_path, monkeypatch, npz):
    real, room = images.os.replace, [3]

    def replace(source, target):
        if str(target).endswith((".png", ".raw")):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(images.os, "replace", replace)
    job = ["sample", models / "run", "-n", 8, "--batch-size", 1, *FAST, *npz, "--out", tmp_path]
    code, _, complaint = unnoise(*job)
    assert (
        code == 1 and complaint.count("\n") == 1 and "No space left" in complaint and "continues" in complaint
    )
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    room[0] = 1000
    code, said, _ = unnoise(*job)
    assert code == 0 and "5 pictures drawn" in said


def test_not_a_number_is_a_failure(unnoise, tmp_path):
    model = tiny_model()
    model.network.out[2].bias.fill_(float("nan"))
    save_model(tmp_path / "nan.safetensors", model)
    code, _, complaint = unnoise(
        "sample", tmp_path / "nan.safetensors", "-n1", *FAST, "--out", tmp_path / "out"
    )
    assert code == 1 and complaint.count("\n") == 1 and "not a number" in complaint


def test_too_large_for_the_memory_is_one_line(unnoise, models, tmp_path):
    much = ("-n", 10_000, "--batch-size", 10_000, "--height", 2**15, "--width", 2**15)
    code, _, complaint = unnoise(
        "sample", models / "plain.safetensors", *much, *FAST, "--out", tmp_path / "x"
    )
    assert code == 1 and complaint.count("\n") == 1 and "not enough memory" in complaint


def test_progress_is_shown_on_a_terminal(unnoise, models, tmp_path, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    code, _, shown = unnoise("sample", models / "run", "-n", 2, *FAST, "--out", tmp_path)
    assert code == 0 and "drawing" in shown and "pictures/s" in shown and "left" in shown


def started(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "unnoise", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_signals(unnoise, models, tmp_path, number):
    """Stopped by Ctrl-C or killed, then continued with fewer pictures wanted: equal to an undisturbed job."""
    job = ["sample", models / "run", "--exact", *FAST, "--out"]
    running = started(*job, tmp_path / "a", "-n", 10**5)
    deadline = time.monotonic() + 300  # a busy machine takes long to start one
    while not (tmp_path / "a" / "000009.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    _, complaint = running.communicate(timeout=60)
    if number == signal.SIGINT:
        assert running.returncode == 130 and complaint.count("\n") == 1 and "continues" in complaint
        assert not [p for p in (tmp_path / "a").iterdir() if p.name.endswith(".tmp")]
    drawn = [p for p in (tmp_path / "a").glob("[0-9]*.png")]
    assert len(drawn) >= 10 and all(is_whole_png(p) for p in drawn)
    assert unnoise(*job, tmp_path / "a", "-n", 12)[0] == unnoise(*job, tmp_path / "b", "-n", 12)[0] == 0
    assert np.array_equal(pixels(tmp_path / "a", 12), pixels(tmp_path / "b", 12))


def test_two_processes_draw_what_one_draws(unnoise, models, tmp_path):
    job = ["sample", str(models / "run"), "-n", "11", "--exact", *FAST, "--frames"]
    assert unnoise(*job, "--out", tmp_path / "one")[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "unnoise", *job, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "one") == names(tmp_path / "two")
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_the_command_is_declared_without_heavy_imports():
    heavy = "('torch', 'numpy', 'PIL', 'rich')"
    code = f"import sys, unnoise.cli.sample; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_paths_are_said_as_given(unnoise, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said, _ = unnoise("sample", models / "run", "-n1", *FAST, "--out", "drawn")
    assert code == 0 and said.splitlines()[-1] == f"grid: {Path('drawn') / 'grid.png'}"


def test_guidance_by_kind(unnoise, models, tmp_path):
    """--guidance names a kind with its --scale, or is the classifier-free scale itself."""
    classifier = ["--classifier", models / "classifier"]
    weaker = ["--weaker", models / "run"]
    same = [
        (["--guidance", "2"], ["--guidance", "classifier-free", "--scale", "2"]),
        (["--guidance", "classifier", *classifier, "--scale", "3"], [*classifier, "--scale", "3"]),
        (["--guidance", "autoguidance", *weaker, "--scale", "3"], [*weaker, "--weaker-scale", "3"]),
        (["--guidance", "none"], []),
    ]
    for number, pair in enumerate(same):
        drawn = []
        for side, options in enumerate(pair):
            out = tmp_path / f"{number}-{side}"
            code, _, complaints = unnoise("sample", models / "run", "-n", 2, *FAST, *options, "--out", out)
            assert code == 0, complaints
            drawn.append(pixels(out, 2))
        assert (drawn[0] == drawn[1]).all(), pair
    request = read_request(tmp_path / "1-0" / "000001.png")
    assert request["scale"] == 3 and request["classifier"] == str(models / "classifier")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--guidance", "classifier"], ["needs one", "--classifier"]),
        (["--guidance", "classifier-free"], ["needs a scale"]),
        (["--guidance", "autoguidance", "--scale", "2"], ["--weaker"]),
        (["--guidance", "clip"], ["'clip'", "classifier-free"]),
        (["--guidance", "none", "--scale", "2"], ["guidance=none"]),
        (["--scale", "2"], ["scale=2", "none is named"]),
        (["--guidance", "nan"], ["guidance"]),
    ],
)
def test_guidance_that_is_refused(unnoise, models, tmp_path, options, words):
    code, _, complaints = unnoise("sample", models / "run", *FAST, *options, "--out", tmp_path / "out")
    assert code == 2 and complaints.count("\n") == 1
    for word in words:
        assert word in complaints


def test_another_classifier_is_another_request(unnoise, models, tmp_path):
    save_noisy_classifier(tmp_path / "other.safetensors", tiny_classifier(seed=9))
    command = ["sample", models / "run", "-n", 2, *FAST, "--scale", 2, "--out", tmp_path / "out"]
    assert unnoise(*command, "--classifier", models / "classifier")[0] == 0
    code, _, complaints = unnoise(*command, "--classifier", tmp_path / "other.safetensors")
    assert code == 2 and "another request" in complaints and "classifier" in complaints

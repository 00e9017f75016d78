"""The program as a user runs it: help at once, refusals in one line with exit status 2."""

import os
import subprocess
import sys
import time

import pytest


def unnoise(*arguments, cwd=None, timeout=120, **environment):
    return subprocess.run(
        [sys.executable, "-m", "unnoise", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def refused(*arguments, cwd=None):
    done = unnoise(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "sys.argv = ['unnoise', '--help']\n"
        "from unnoise.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors', 'tensorboard', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("train", "sample", "demo", "presets"):
        assert command in done.stdout


def test_help_answers_in_under_half_a_second_of_work():
    best = min(_help_seconds() for _ in range(3))
    assert best < 0.5


def _help_seconds():
    before = os.times()
    started = time.perf_counter()
    assert unnoise("--help").returncode == 0
    after = os.times()
    worked = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return min(
        worked, time.perf_counter() - started
    )  # other programs on a busy machine are not ours to answer for


def test_version():
    assert unnoise("--version").stdout.startswith("unnoise ")


def test_presets_are_listed_and_printed_as_a_file_that_trains(tmp_path):
    assert "fashion-28" in unnoise("presets").stdout
    text = unnoise("presets", "fashion-28").stdout
    (tmp_path / "mine.yaml").write_text(text)
    assert "no data named" in refused("train", "mine.yaml", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "fashion28", "--data", "x"), 'did you mean "fashion-28"'),
        (("train", "fashion-28"), "no data named"),
        (("train", "nowhere.yaml", "--data", "x"), "nowhere.yaml"),
        (("train", "fashion-28", "--data", "x", "--set", "optimiser.lr=1"), 'did you mean "optimizer"'),
        (("train", "fashion-28", "--data", "x", "--set", "optimizer.lr=fast"), "optimizer.lr"),
        (("train", "fashion-28", "--data", "no/such/folder"), "no/such/folder"),
        (("train", "fashion-28", "--data", "fashion-mnist-10k", "--device", "tpu"), "tpu"),
        (("train", "fashion-28", "--data", "fashion-mnist-10k", "--steps", "0"), "steps"),
        (("train", "fashion-28", "--data", "fashion-mnist-10k", "--minutes", "-1"), "minutes"),
        (("train", "fashion-28", "--data", "fashion-mnist-10k", "--set", "data.size=30"), "image_size"),
        (("train", "fashion-28", "--data", "x", "--set", "model.image_size=30"), "28 or 32"),
        (("train", "fashion-28", "--wrong"), "--wrong"),
        (("presets", "nothing-like-it"), "unknown preset"),
        (("paint",), "paint"),
        (("train", "fashion-28", "--data", ""), "the value of --data is empty"),
        (("train", "fashion-28", "--data="), "the value of --data is empty"),
        (("train", ""), "an argument is empty"),
        (("train", "fashion-28", "--data", "x", "--set", "seed=-1"), "seed=-1"),
        (("train", "fashion-28", "--data", "x", "--seed", str(2**64)), "no seed"),
    ],
)
def test_refusals_are_one_line(arguments, expected, tmp_path):
    assert expected in refused(*arguments, cwd=tmp_path)


def test_a_config_from_the_future(tmp_path):
    (tmp_path / "new.yaml").write_text("format: 99\n")
    assert "newer unnoise" in refused("train", "new.yaml", "--data", "x", cwd=tmp_path)


@pytest.mark.parametrize("word", ["on", "off"])
def test_on_and_off_are_words_of_ours(word):
    from unnoise.presets import load_preset

    assert load_preset("fashion-28", [f"compile={word}"]).config.compile == word
    assert load_preset("fashion-28", ["data.flip=true"]).config.data.flip is True


def test_an_objective_that_cannot_train_the_variance_is_refused_before_the_data_are_read(tmp_path):
    message = refused(
        *("train", "fashion-28", "--data", "no/such", "--set", "objective.name=hybrid"), cwd=tmp_path
    )
    assert "use simple" in message


def test_a_broken_picture_among_good_ones_is_named_and_the_run_is_partly_done(tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures" / "shirts"
    folder.mkdir(parents=True)
    for k in range(4):
        Image.new("L", (28, 28), 60 * k).save(folder / f"{k}.png")
    (folder / "bad.png").write_text("not a picture")
    done = unnoise(
        *("train", "fashion-28", "--data", "pictures", "--steps", "1", "--out", "run"),
        *("--set", "sample_steps=1", "--set", "model.network.width=32", "--set", "model.network.depth=1"),
        *("--set", "model.network.head_channels=32"),
        cwd=tmp_path,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 1, done.stderr
    assert "bad.png" in done.stderr and "1 broken picture was left out" in done.stderr
    assert "Traceback" not in done.stderr
    report = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png" in report and "optimizer:" in report


def test_steps_that_are_asked_for_replace_the_minutes_of_a_recipe(tmp_path):
    text = unnoise("presets", "demo-28").stdout
    (tmp_path / "mine.yaml").write_text(text.replace("\nminutes: null\n", "\nminutes: 3.0\n"))
    done = unnoise(
        "train", "mine.yaml", "--data", "fashion-mnist-10k", "--steps", 2, "--out", "run", "--device", "cpu",
        "--set", "sample_every=0", "--set", "batch_size=2", "--set", "evaluate.every=0", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "\nsteps: 2\n" in kept and "\nminutes: null\n" in kept

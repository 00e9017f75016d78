"""The models that ship: small, whole, described, and open by their names."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import unnoise
from tests.models import tiny_model
from tests.test_scripts import script
from unnoise import examples
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.gan import GanModel
from unnoise.metrics.sources import open_pictures
from unnoise.model import save_model
from unnoise.modelfile import find_model, read_header, read_weights
from unnoise.noisy_classifier import KIND as CLASSIFIER
from unnoise.noisy_classifier import load_noisy_classifier
from unnoise.presets import load_preset
from unnoise.studies.models import open_model

LIMIT = 10_000_000
SHIPPED = ("emoji-64", "fashion-28", "noisy-classifier-28")
EVERY = pytest.mark.parametrize("name", SHIPPED)


def test_what_ships():
    assert examples.names() == list(SHIPPED)
    assert examples.find("fashion-2") is None


@EVERY
def test_files_are_small_half_precision_and_what_their_cards_say(name):
    file = examples.find(name)
    assert file.stat().st_size <= LIMIT
    floats = {value.dtype for value in read_weights(file).values() if value.is_floating_point()}
    assert floats == {torch.float16}
    card = (file.parent / examples.CARD).read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert f"{file.stat().st_size:,} bytes" in card
    for part in ("## Measured", "## Made by", "## Limits", "## Licences", "95 % interval"):
        assert part in card
    info = read_header(file)["info"]
    assert f"{info['step']:,} steps" in card and info["licence"] == "MIT"
    advised = info.get("guidance", 1)
    assert advised == {"fashion-28": 1.5, "emoji-64": 3}.get(name, 1)
    assert advised == 1 or f"guidance {advised:g} where nothing else" in card


@EVERY
def test_nothing_inside_tells_of_the_machine_it_was_made_on(name):
    file = examples.find(name)
    header = str(read_header(file)) + (file.parent / examples.CARD).read_text()
    assert not re.search(r"(?<![\w/])/(tmp|home|work|root|mnt)\b", header)


@EVERY
def test_the_preset_of_its_name_repeats_it(name):
    header = read_header(examples.find(name))
    config = load_preset(name).config
    card = (examples.find(name).parent / examples.CARD).read_text()
    assert header["info"]["preset"] == name and f"unnoise train {name} " in card
    steps = header["info"]["step"]
    assert steps == config.steps or f"--steps {steps} " in card  # learned on, by commands that the card has
    assert header["info"]["ema_rate"] in config.ema.rates
    told = header[CLASSIFIER] if header.get("kind") == CLASSIFIER else header["model"]
    wanted = config.noisy_classifier if header.get("kind") == CLASSIFIER else config.model
    for key in ("width", "depth", "patch", "head_channels"):
        assert told["network"][key] == getattr(wanted.network, key)
    assert told["schedule"]["name"] == wanted.schedule.name


def test_names_open_models_but_files_of_that_name_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = unnoise.load("fashion-28")
    assert not isinstance(model, GanModel) and "Sneaker" in model.classes
    assert find_model(Path("fashion-28")).parent.name == "fashion-28"
    (tmp_path / "fashion-28").mkdir()
    with pytest.raises(ValueError, match=r"fashion-28 holds no model\.safetensors"):
        unnoise.load("fashion-28")
    with pytest.raises(ValueError, match="comes with unnoise: emoji-64, fashion-28, noisy-classifier-28"):
        unnoise.load("fashion-82")


def test_evaluations_and_sweeps_take_the_names_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = EvaluateRequest(generate=GenerateRequest(steps="2"))
    drawn = open_pictures("fashion-28", request, n=3)
    assert drawn.is_model and drawn.n == 3 and drawn.take([1]).shape == (1, 28, 28, 1)
    assert open_model("fashion-28", "cpu")[0].classes == unnoise.load("fashion-28").classes
    (tmp_path / "fashion-28").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "fashion-28" / "own.png")
    assert not open_pictures("fashion-28", request).is_model


def test_they_draw_as_the_readme_says():
    clothes = unnoise.load("fashion-28").sample(n=4, steps=3, classifier="noisy-classifier-28", scale=1.0)
    assert clothes.pixels.shape == (4, 28, 28, 1) and clothes.pixels.float().std() > 10
    model = unnoise.load("emoji-64")
    drawn = model.sample(n=2, steps=3, prompts=("a noto emoji of a cat",), guidance=2.0)
    assert drawn.pixels.shape == (2, 64, 64, 3) and model.first_stage.hash == model.config.latent.first_stage
    assert load_noisy_classifier("noisy-classifier-28").info.classes == unnoise.load("fashion-28").classes


def test_the_script_makes_an_example_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(examples, "HERE", tmp_path / "examples")
    maker, run = script("make_example"), tmp_path / "run"
    model = tiny_model()
    data = {"source": "/a/b/c", "pictures": 9}
    info = replace(model.info, step=7, ema_rate=0.5, preset="fashion-28", data=data)
    save_model(run / "model.safetensors", replace(model, info=info))
    (run / "config.yaml").write_text("format: 1\nseed: 5\nbatch_size: 3\n")
    (tmp_path / "report.txt").write_text("FD 1.5, 95 % interval 1 to 2")
    arguments = ["make_example", "fashion-28", str(run), str(tmp_path / "report.txt")]
    monkeypatch.setattr("sys.argv", arguments)
    maker.main()
    file = examples.find("fashion-28")
    card = (file.parent / examples.CARD).read_text()
    assert "7 steps of 3 pictures, seed 5" in card and "    FD 1.5, 95 % interval 1 to 2" in card
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card and "/a/b" not in card
    shipped = unnoise.load("fashion-28")
    assert shipped.info.data["source"] == "b/c" and shipped.info.licence == "MIT"
    monkeypatch.setattr(maker, "LIMIT", 1000)
    assert "would have" in refused_by(maker, capsys) and examples.find("fashion-28") is None
    (run / "config.yaml").unlink()
    assert "config.yaml does not exist; name a run directory" in refused_by(maker, capsys)


def refused_by(maker, capsys):
    """What the script says when it refuses, in one line and with exit status 2."""
    with pytest.raises(SystemExit, match="2"):
        maker.main()
    said = capsys.readouterr().err
    assert said.startswith("make_example: ") and said.count("\n") == 1
    return said

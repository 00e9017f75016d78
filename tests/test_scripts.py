"""The scripts that back numbers in the README."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models import NAMES, tiny_model
from unnoise.classifier import agreement, build_classifier, save_classifier
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import AutoencoderConfig, DataConfig
from unnoise.data import open_data
from unnoise.data.layout import read_layout
from unnoise.data.maps import find_maps, read_map
from unnoise.first_stage import make_first_stage, save_first_stage
from unnoise.model import save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.first_stage_settings import KlSettings
from unnoise.networks.settings import ClassifierSettings

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name="label_agreement"):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
    script(name).main()


def stubborn(answer=2, classes=NAMES):
    """A classifier that says the same of every picture."""
    settings = ClassifierSettings(widths=(8,), features=4, classes=len(classes))
    model = build_classifier(settings, ModelInfo(classes=tuple(classes)))
    with torch.no_grad():
        model.network.head.bias[answer] = 100.0
    return model


def test_a_classifier_that_always_says_one_thing_agrees_with_that_class_alone():
    found = script().measure(tiny_model(), stubborn(), GenerateRequest(n=13, steps="2"))
    counts = {name: 3 if k < 3 else 2 for k, name in enumerate(NAMES)}
    assert found.classes == {
        name: (total if k == 2 else 0, total) for k, (name, total) in enumerate(counts.items())
    }
    assert found.count == 13 and found.share == pytest.approx(3 / 13)
    assert found.error == pytest.approx((3 / 13 * 10 / 13 / 13) ** 0.5)


def test_classes_are_compared_by_name():
    pixels = torch.zeros(4, 8, 8, 1, dtype=torch.uint8)
    other = stubborn(answer=0, classes=("Sandal", "Trouser"))
    assert agreement(other, pixels, ["Sandal", "Trouser", "Sandal", "Sandal"]) == {
        "Sandal": (3, 3),
        "Trouser": (0, 1),
    }
    with pytest.raises(ValueError, match="'Bag' is none of the classifier's"):
        agreement(other, pixels, ["Sandal", "Bag", "Bag", "Bag"])


def test_an_unconditional_model_has_nothing_to_agree_with():
    with pytest.raises(ValueError, match="no classes"):
        script().measure(tiny_model(classes=(), null=False), stubborn(), GenerateRequest(n=1, steps="1"))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "m.safetensors", tiny_model())
    save_classifier(tmp_path / "c.safetensors", stubborn())

    def run(*options):
        arguments = ["m.safetensors", "c.safetensors", "-n", "5", "--steps", "2", *options]
        monkeypatch.setattr(sys, "argv", ["label_agreement", *arguments])
        script().main()

    run("--test", "", "--json", "found.json")
    said = capsys.readouterr().out
    assert said.startswith("20.0 % ± 17.9 of 5 samples agree") and "100.0 %  (1 of 1)" in said
    facts = json.loads((tmp_path / "found.json").read_text())
    assert facts["share"] == pytest.approx(0.2) and facts["classes"]["Sandal"] == 1
    with pytest.raises(SystemExit) as left:
        run("--guidance", "nan")
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Discs of two styles and categories, transparent around, as `unnoise build emoji` leaves them."""
    folder = tmp_path_factory.mktemp("emoji")
    across = torch.linspace(-1, 1, 64)
    disc = (across[:, None] ** 2 + across**2 < 0.8).to(torch.uint8) * 255
    lines = []
    for k in range(8):
        pixels = torch.stack([disc * 0 + 30 * k, disc * 0 + 90, disc * 0, disc], -1)
        Image.fromarray(pixels.numpy()).save(folder / f"{k}.png")
        kind = {"style": f"style {k % 2}", "category": f"category {k // 4}"}
        lines.append(json.dumps({"file_name": f"{k}.png", "text": f"disc {k}", **kind}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_scenes_have_boxes_and_maps_of_what_is_in_them(emoji, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "compose_scenes", emoji, tmp_path / "a", "-n", 6)
    assert "6 scenes" in capsys.readouterr().out
    data = open_data(
        DataConfig(source=str(tmp_path / "a" / "pictures"), channels=3, cache=str(tmp_path / "c"))
    )
    names = [data.name_of(k) for k in range(len(data))]
    layout = read_layout(tmp_path / "a" / "boxes.json", names)
    assert list(layout.classes) == ["category 0", "category 1"]
    for k, path in enumerate(find_maps(tmp_path / "a" / "maps", names)):
        levels = torch.from_numpy(read_map(path, (64, 64), classes=3, max_pixels=10**6))
        drawn = (data.take([k]).pixels[0] != 255).any(-1)
        assert (drawn[levels > 0]).all() and 0 < (levels > 0).sum()
        spans = torch.zeros_like(levels)
        for (left, top, right, bottom), kind in zip(layout.boxes[k] * 64, layout.kinds[k], strict=True):
            spans[round(top) : round(bottom), round(left) : round(right)] = 1 + int(kind)
        assert torch.equal(levels, levels * (levels == spans))  # every opaque pixel is in a box of its class
    run(monkeypatch, "compose_scenes", emoji, tmp_path / "b", "-n", 3)  # scene k is the same in any number
    assert (tmp_path / "b/pictures/00002.png").read_bytes() == (
        tmp_path / "a/pictures/00002.png"
    ).read_bytes()


def test_psnr_of_an_object_leaves_its_background_out(emoji, tmp_path, monkeypatch, capsys):
    real = torch.full((1, 2, 2, 3), 100, dtype=torch.uint8)
    fake = real.clone()
    fake[0, 0] += 10
    fake[0, 1] = 255
    counted = torch.tensor([[[True, True], [False, False]]])
    assert script("object_psnr").psnr(real, fake, counted).item() == pytest.approx(20 * math.log10(25.5))
    network = KlSettings(in_channels=3, width=32, depth=1, channel_mult=(1, 1))
    file = tmp_path / "stage.safetensors"
    save_first_stage(file, make_first_stage(AutoencoderConfig(network=network, image_size=64)))
    run(monkeypatch, "object_psnr", file, emoji)
    said = capsys.readouterr().out
    assert said.startswith("8 pictures: ") and "dB over the object (" in said


def test_obedience_compares_with_what_was_told_and_what_was_not(tmp_path, monkeypatch, capsys):
    file, folder = tmp_path / "model.safetensors", tmp_path / "pictures"
    save_model(file, tiny_model())
    for k in range(10):
        (folder / NAMES[k % 5].replace("/", "-")).mkdir(parents=True, exist_ok=True)
        pixels = torch.full((8, 8), 25 * k, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / NAMES[k % 5].replace("/", "-") / f"{k}.png")
    names = tuple(name.replace("/", "-") for name in NAMES)
    save_model(file, tiny_model(classes=names))
    run(monkeypatch, "obedience", file, folder, "-n", 10, "--steps", "2", "--sheet", tmp_path / "sheet.png")
    said = capsys.readouterr().out.splitlines()
    assert "told the class; 10 pictures" in said[0] and (tmp_path / "sheet.png").exists()
    assert [line.split()[0] for line in said[1:]] == ["denoised", "features", "pixels"]
    own = torch.arange(6.0).view(3, 2)
    script("obedience").said("same", own, own, own + 1)
    assert capsys.readouterr().out.startswith("same       nearer to its own 100.0 %   0.0000 against 1.0000")


def test_edits_are_measured_beside_peers(tmp_path, monkeypatch, capsys):
    """A line a method and a sheet a task; what is shrunk again is the small picture to the byte."""
    save_model(tmp_path / "model.safetensors", tiny_model(classes=(), null=False, channels=3, size=16))
    random = np.random.default_rng(0)
    for k in range(6):
        levels = random.integers(0, 256, (16, 16, 3), np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "pictures" / f"{k}.png")
    arguments = [
        "--tasks",
        "lines,colour,x2",
        "--methods",
        "replace,dps",
        "--steps",
        "3",
        "--out",
        tmp_path / "out",
    ]
    run(
        monkeypatch,
        "edit_quality",
        tmp_path / "model.safetensors",
        tmp_path / "pictures",
        "-n",
        5,
        *arguments,
    )
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()
    ]
    assert lines[0][3] == "FD[unnoise-small]" and all(len(line) == 6 for line in lines)
    found = {(line[0], line[1]): line for line in lines[2:]}
    for task, peer in (("lines", None), ("colour", "grey"), ("x2", "bicubic")):
        for method in ("replace", "dps", *([peer] if peer else [])):
            assert "\u00b1" in found[task, method][3]
        assert (tmp_path / "out" / f"{task}.png").exists()
    assert found["x2", "replace"][4] == "inf dB" and found["x2", "bicubic"][4] != "inf dB"
    module = script("edit_quality")
    assert module.holes("lines", 2, 4).tolist() == [[[False] * 4, [True] * 4] * 2] * 2

"""The scripts that back numbers in the README."""

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models import NAMES, tiny_model
from tests.train.tiny import tiny_config
from unnoise.classifier import agreement, build_classifier, save_classifier
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import AutoencoderConfig, DataConfig
from unnoise.data import Batch, open_data
from unnoise.data.layout import read_layout
from unnoise.data.maps import find_maps, read_map
from unnoise.first_stage import make_first_stage, save_first_stage
from unnoise.model import save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.first_stage_settings import KlSettings
from unnoise.networks.settings import ClassifierSettings
from unnoise.train import train

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
    assert found.interval == pytest.approx((0.0818, 0.5026), abs=1e-4)  # Wilson's


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
    assert said.startswith("20.0 % (3.6 to 62.4) of 5 samples agree") and "100.0 %  (1 of 1)" in said
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


def test_code_points_come_once_and_objects_and_styles_in_turn():
    """However many are asked for; the first ones are those of a smaller number."""
    random = np.random.default_rng(0)
    rows = [
        (f"point {k}", f"object {k % 12}", f"style {s}") for k in range(40) for s in range(4) if s != k % 4
    ]
    rows = [rows[k] for k in random.permutation(len(rows))]
    fields = dict(zip(("code_point", "object", "style"), map(list, zip(*rows, strict=True)), strict=True))
    module = script("emoji_judge")
    held = module.Held(None, fields)
    usable = np.array([name != "point 7" for name in fields["code_point"]])

    def choose(n, **options):
        return module.choose(held, usable, n, **{"apart": "object", "seed": 3, **options}).tolist()

    chosen = choose(39)
    assert sorted(held.of("code_point", chosen)) == sorted({f"point {k}" for k in range(40) if k != 7})
    for turn in (chosen[:12], chosen[12:24], chosen[24:35], chosen[35:]):  # object 7 lacks a point
        assert len(set(held.of("object", turn))) == len(turn)
    for n in (8, 21, 39):
        assert choose(n) == chosen[:n]
        counts = [held.of("style", chosen[:n]).count(f"style {s}") for s in range(4)]
        assert max(counts) - min(counts) <= 2  # a point lacks a style
    assert choose(39, seed=4) != chosen
    assert len(set(held.of("object", choose(12, apart="code_point")))) < 12
    for n in (1, 40):
        with pytest.raises(ValueError, match=f"n={n} is outside 2..39"):
            choose(n)


def test_places_of_answers():
    """Of one that says the same of all: hits by order, and by chance the share of the others' names."""
    module = script("emoji_judge")
    stub = stubborn(answer=2)
    judged = module.Judges({"x": stub}, {"x": 8}).ask(torch.zeros(3, 16, 16, 1, dtype=torch.uint8))["x"]
    assert judged.said == ["Sandal"] * 3
    assert [judged.place(0, name) for name in ("Sandal", "T-shirt/top", "Ankle boot")] == [1, 2, 5]
    names = ["Sandal", "Trouser", "Sandal"]
    assert judged.hits(names, 1).tolist() == [1, 0, 1] and judged.hits(names, 3).tolist() == [1, 1, 1]
    assert judged.by_chance(names, 1).tolist() == [1 / 2, 1, 1 / 2]
    torch.nn.init.normal_(stub.network.head.weight)
    pixels = torch.randint(0, 256, (6, 16, 16, 1), dtype=torch.uint8)
    logits = stub.taps(pixels).logits
    for row, places in zip(logits, stub.places(pixels), strict=True):
        assert places.tolist() == [int((row > value).sum()) for value in row]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Six code points of four objects in two styles, with metadata like those of `unnoise build emoji`."""
    folder = tmp_path_factory.mktemp("captioned") / "pictures"
    folder.mkdir()
    lines = []
    for k in range(12):
        style, point = k % 2, k // 2
        pixels = np.full((16, 16, 3), 255 * style, np.uint8)
        pixels[point : point + 4, 4:12] = (200, 40 * point, 0)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
        facts = {"style": f"style {style}", "subcategory": f"kind {point % 3}", "object": f"{point % 4}"}
        text = f"a style {style} emoji of thing {point}"
        lines.append({"file_name": f"{k:02d}.png", "text": text, "code_point": f"{point}", **facts})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_emoji_are_judged_beside_real_ones_and_by_chance(captioned, tmp_path, monkeypatch, capsys):
    told = {"what": "text", "encoder": {"kind": "tokens", "width": 16, "depth": 1, "length": 8, "heads": 1}}
    network = {"width": 32, "attention": [1], "heads": 1, "transformer_depth": 1, "context_width": 16}
    model = {"network": network, "variance": "fixed_small", "told": [told]}
    train(
        tiny_config(
            model=model, data={"source": str(captioned), "labels": "none"}, objective={"name": "simple"},
            steps=1, label_dropout=0.1,
        ),
        tmp_path / "model",
    )  # fmt: skip
    kinds = tuple(f"kind {k}" for k in range(3))
    save_classifier(tmp_path / "kinds.safetensors", stubborn(answer=1, classes=kinds))
    save_classifier(tmp_path / "some.safetensors", stubborn(answer=1, classes=kinds[:2]))
    save_classifier(tmp_path / "styles.safetensors", stubborn(answer=0, classes=("style 0", "style 1")))

    def judge(*options, kinds="kinds"):
        judges = [
            "--subcategory",
            tmp_path / f"{kinds}.safetensors",
            "--style",
            tmp_path / "styles.safetensors",
        ]
        arguments = [
            *judges,
            "--subcategory-side",
            8,
            "--style-side",
            8,
            "--steps",
            2,
            "--guidance",
            2,
            *options,
        ]
        run(monkeypatch, "emoji_judge", tmp_path / "model", captioned, *arguments)
        return capsys.readouterr().out.splitlines()

    lines = judge("-n", 6, "--json", tmp_path / "found.json", "--sheet", tmp_path / "sheet.png")
    assert lines[0] == "0 of 12 held-out pictures have a subcategory never seen in training"
    assert "6 captions of 4 objects, guidance 2, 2 steps" in lines[2]
    cells = {line[:30].strip(): line[30:].split("  ") for line in lines[4:8]}
    assert list(cells) == ["samples", "samples, others' captions", "real, the same captions", "real, all 12"]
    for name in ("samples", "real, the same captions"):
        assert [cell.split(" %")[0].strip() for cell in " ".join(cells[name]).split(")")][:3] == [
            "33.3", "100.0", "50.0"
        ]  # fmt: skip
    assert lines[8] == "styles obeyed: style 0 3 of 3, style 1 0 of 3"
    facts = json.loads((tmp_path / "found.json").read_text())
    assert facts["samples, others' captions"]["style@1"]["share"] == pytest.approx(0.5)
    low, high = facts["samples"]["subcategory@1"]["interval"]
    assert 0 < low < 1 / 3 < high < 1
    shown = {each["caption"]: each for each in facts["pictures"]}
    assert len(shown) == 6 and all(each["subcategory_said"] == "kind 1" for each in shown.values())
    assert all(
        (each["subcategory_place"] == 1) == (each["subcategory"] == "kind 1") for each in shown.values()
    )
    assert Image.open(tmp_path / "sheet.png").width > 6 * 128
    lines = judge("-n", 4, kinds="some")
    assert lines[0].startswith("4 of 12") and "real, all 8 " in "\n".join(lines)
    with pytest.raises(SystemExit) as left:
        run(
            monkeypatch, "emoji_judge", tmp_path / "model", captioned, "-n", 7,
            "--subcategory", tmp_path / "kinds.safetensors", "--style", tmp_path / "styles.safetensors",
        )  # fmt: skip
    assert left.value.code == 2 and capsys.readouterr().err == (
        "emoji_judge: n=7 is outside 2..6, the code points that there are; use one of these\n"
    )


def test_what_a_first_stage_keeps_of_colours(tmp_path, monkeypatch, capsys):
    """Means of 4x4 pixels, all that an untrained shortcut carries: squares of one colour, and, from green to
    magenta, a pattern within them that is lost.
    """
    random = np.random.default_rng(0)
    settings = KlSettings(in_channels=3, width=8, depth=1, attention_type="none", shortcut=True)
    stage = make_first_stage(AutoencoderConfig(network=settings, image_size=16))
    save_first_stage(tmp_path / "stage.safetensors", stage)
    pattern = np.indices((16, 16)).sum(0)[..., None] % 2 * 2 - 1
    for name, strength in (("flat", 0), ("patterned", 50)):
        (tmp_path / name).mkdir()
        for k in range(6):
            colours = random.integers(100, 156, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
            if strength:
                colours[..., 1] = colours[..., [0, 2]].mean(2).round()
            levels = colours + strength * pattern * np.array([-1, 2, -1])
            Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(tmp_path / name / f"{k}.png")
    for name, kept in (("flat", "100 % 100 % 100 %"), ("patterned", "100 % 100 %   0 %")):
        data, file = tmp_path / name, tmp_path / "stage.safetensors"
        run(monkeypatch, "compare_stages", data, file, "--lpips", "none", "-n", 6)
        assert capsys.readouterr().out.rstrip().endswith(kept)


def test_edits_are_told_classes_or_captions():
    module = script("edit_quality")
    pixels = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    batch = Batch(pixels, torch.tensor([1, 0]), ["a cat", "a dog"])
    model = tiny_model()
    classes = list(model.classes[1:3])
    assert module.told(model, classes, batch) == {"labels": ("2", "1")}
    words = replace(model, info=replace(model.info, vocabulary=("a", "cat")))
    assert module.told(words, [], batch) == {"prompts": ("a cat", "a dog")}
    for each in (model, words):
        with pytest.raises(SystemExit, match="leave --told out"):
            module.told(each, [], Batch(pixels))

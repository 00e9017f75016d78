"""What models are told: words, boxes, maps and parts of pictures, in training and in drawing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.tiny import tiny_config
from unnoise.cli import main
from unnoise.config.load import from_dict
from unnoise.config.model import ToldConfig
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import TrainConfig
from unnoise.data import open_data
from unnoise.data.masks import masked
from unnoise.diffusion.condition import Condition, null
from unnoise.generate import sample
from unnoise.images import read_request, to_images
from unnoise.model import Model, load_model, save_model
from unnoise.networks.conditioned import MASK
from unnoise.planning import plan
from unnoise.told import HOLE, Teller
from unnoise.train import train
from unnoise.train.check import check
from unnoise.train.diffusion import DiffusionJob

SIZE, COUNT, CLASSES = 8, 12, 4
TOKENS = {"kind": "tokens", "width": 16, "depth": 1, "length": 12, "heads": 1, "head_channels": 16}
BESIDE = {"kind": "spatial", "stages": 0, "out_channels": None}
PATCHES = {"kind": "patches", "width": 16, "side": 2}
TOLD = {
    "text": {"what": "text", "encoder": TOKENS, "words": 80},
    "layout": {"what": "layout", "encoder": TOKENS, "boxes": 2, "grid": 4},
    "map": {"what": "map", "encoder": {**BESIDE, "out_channels": 2}},
    "low_res": {"what": "low_res", "encoder": PATCHES, "factor": 2},
    "worn": {"what": "low_res", "encoder": BESIDE, "factor": 2, "degradation": "worn"},
    "inpaint": {"what": "inpaint", "encoder": BESIDE},
    "grey": {"what": "grey", "encoder": BESIDE},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose red is their semantic map, with captions and boxes."""
    folder = tmp_path_factory.mktemp("told")
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    (folder / "maps").mkdir()
    lines, images, boxes = [], [], []
    for k in range(COUNT):
        levels = random.integers(0, CLASSES, (SIZE, SIZE)).astype(np.uint8)
        pixels = np.stack([60 * levels, *random.integers(0, 255, (2, SIZE, SIZE))], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{k:02d}.png")
        Image.fromarray(levels).save(folder / "maps" / f"{k:02d}.png")
        lines.append({"file_name": f"{k:02d}.png", "text": f"a {'red' if k % 2 else 'blue'} thing"})
        images.append({"id": k, "file_name": f"{k:02d}.png", "width": SIZE, "height": SIZE})
        boxes.append({"id": k, "image_id": k, "category_id": k % 2, "bbox": [0, 0, 2, 4]})
    (folder / "pictures" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    }
    (folder / "boxes.json").write_text(json.dumps(table))
    return folder


def settings(place: Path, *told: str, **changes: object) -> TrainConfig:
    data = {
        "source": str(place / "pictures"), "cache": str(place / "cache"), "flip": True, "labels": "none",
        "boxes": str(place / "boxes.json") if "layout" in told else "",
        "maps": str(place / "maps") if "map" in told else "",
        "map_classes": CLASSES if "map" in told else None,
    }  # fmt: skip
    network = {"width": 32, "attention": [1], "heads": 1, "dropout": 0.0, "transformer_depth": 1}
    reads = any(TOLD[name]["encoder"]["kind"] in ("tokens", "patches") for name in told)
    model = {
        "network": {**network, "context_width": 16 if reads else None},
        "variance": "fixed_small", "told": [TOLD[name] for name in told],
    }  # fmt: skip
    return tiny_config(**{
        "model": model, "data": data, "objective": {"name": "simple"}, "steps": 2, "label_dropout": 0.0,
        **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def trained(place: Path):
    """Told names -> a trained model and its file."""
    made: dict[tuple[str, ...], tuple[Model, Path]] = {}

    def find(*told: str) -> tuple[Model, Path]:
        if told not in made:
            out = place / "-".join(told)
            train(settings(place, *told), out)
            model, file = load_model(out), out / "drawing.safetensors"
            torch.manual_seed(0)
            for value in model.network.parameters():
                if value.abs().max() < 0.02:  # two steps leave these at nearly nothing
                    torch.nn.init.normal_(value, std=0.2)
            save_model(file, model)
            made[told] = model, file
        return made[told]

    return find


def request(place: Path, *told: str, **options: object) -> GenerateRequest:
    given = {"given": str(place / "pictures")} if set(told) - {"text"} else {}
    if told == ("text",):
        given = {"prompts": ["a red thing", "blue"]}
    if "layout" in told:
        given["given_boxes"] = str(place / "boxes.json")
    if "map" in told:
        given["given_maps"] = str(place / "maps")
    return from_dict(GenerateRequest, {"n": 3, "steps": "3", "precision": "float32", **given, **options})


def pixels(model: Model, wanted: GenerateRequest) -> torch.Tensor:
    from unnoise.generate import draw

    ready = plan(model, wanted)
    return torch.cat([batch.pixels for batch in draw(ready, ready.ids)])


def job_of(place: Path, *told: str, **changes: object) -> DiffusionJob:
    config = settings(place, *told, **changes)
    out = place / f"job-{'-'.join(told)}"
    train(config, out)
    from unnoise.train.run import stored_config

    stored = stored_config(out)
    data = open_data(stored.data, seed=stored.seed)
    return DiffusionJob(stored, data, torch.device("cpu"))


@pytest.mark.parametrize(
    "told", [*((name,) for name in TOLD), ("text", "map", "grey"), ("layout", "inpaint")]
)
def test_every_condition_trains_draws_and_is_guided(place, trained, told):
    model, _ = trained(*told)
    plain, guided = (pixels(model, request(place, *told, guidance=g)) for g in (1.0, 3.0))
    assert plain.shape == (3, SIZE, SIZE, 3) and not torch.equal(plain, guided)


@pytest.mark.parametrize("told", ["map", "grey", "low_res", "inpaint"])
def test_what_is_told_of_a_picture_is_of_what_training_sees(place, told):
    """Cut and mirrored with it."""
    job = job_of(place, told)
    batch = job.draw(0, range(8))
    images = to_images(batch.pixels)
    parts = job.teller.parts(batch.raw, images)
    mirrored = job.dataset._flipped(np.arange(8))
    assert mirrored.any() and not mirrored.all()
    if told == "map":
        assert torch.equal(parts["map"].argmax(1), (batch.pixels[..., 0] // 60).long())
    elif told == "grey":
        luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        torch.testing.assert_close(parts["grey"], luma.expand(-1, 3, -1, -1))
    elif told == "low_res":
        assert parts["low_res"].shape == (8, 3, 4, 4)
        torch.testing.assert_close(parts["low_res"].mean((2, 3)), images.mean((2, 3)), rtol=0, atol=0.1)
    else:
        hole = batch.raw[HOLE]
        assert torch.equal(parts["inpaint"][:, :3], masked(images, hole))
        assert torch.equal(parts["inpaint"][:, 3:], 2 * hole.float() - 1)


def test_boxes_are_mirrored_with_their_pictures(place):
    job = job_of(place, "layout")
    batch, mirrored = job.draw(0, range(8)), job.dataset._flipped(np.arange(8))
    chosen = job.beside.dataset.follow(np.arange(8), job.beside.sides).chosen
    for tokens, flip, k in zip(batch.raw["layout"].tolist(), mirrored, chosen, strict=True):
        kind, top_left, bottom_right = tokens[:3]
        assert kind == 1 + k % 2 and tokens[3:] == [0, 0, 0]
        left, right = (top_left - 3) % 4, (bottom_right - 3) % 4
        assert (left, right) == ((3, 3) if flip else (0, 1))  # 0 to 1/4 of the width, on a grid of 4


def test_a_share_of_captions_loses_tags_in_training_alone(place):
    """A function of the seed and the place; a model that draws is told all of a caption."""
    job = job_of(place, "text")
    told = tuple(replace(each, tag_dropout=0.5) for each in job.config.model.told)
    teller, places = replace(job.teller, config=replace(job.config.model, told=told)), np.arange(400)
    captions = [f"a thing, red, {k}" for k in places]
    found = teller.thinned(captions, seed=3, places=places)
    assert found[10:14] == teller.thinned(captions[10:14], seed=3, places=places[10:14])
    assert found != teller.thinned(captions, seed=4, places=places)
    whole = sum(a == b for a, b in zip(captions, found, strict=True))
    assert abs(whole - 400 * (0.5 + 0.5 / 3)) < 50 and all(text.startswith("a thing") for text in found)
    assert job.teller.thinned(captions, seed=3, places=places) == captions
    pictures = job.dataset.facts_at(np.arange(4))
    kept = replace(pictures, caption=[f"{text}, old, worn" for text in pictures.caption])
    plain = teller.raw(kept, None, seed=3, places=np.arange(4))["text"]
    assert torch.equal(plain, teller.words(kept.caption)["text"])
    told = tuple(replace(each, tag_dropout=1.0) for each in told)
    job.teller = replace(teller, config=replace(job.config.model, told=told))
    job.dataset = replace(job.dataset, captions=[f"{text}, red, blue" for text in job.dataset.captions])
    whole = job.dataset.facts_at(np.arange(8)).caption
    learned = job.teller.thinned(whole, seed=job.config.seed, places=np.arange(8))
    assert learned != whole
    assert torch.equal(job.draw(0, range(8)).raw["text"], teller.words(learned)["text"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": {"tag_dropout": 1.5}}, r"model.told\[0\].tag_dropout=1.5 is no share; use 0 to 1"),
        ({"text": {"dropout": -0.1}}, r"model.told\[0\].dropout=-0.1 is no share"),
        ({"grey": {"tag_dropout": 0.5}}, "tag_dropout=0.5 is for captions of a vocabulary"),
    ],
)
def test_shares_that_are_none_are_refused(changes, message):
    told = [{**TOLD[name], **more} for name, more in changes.items()]
    with pytest.raises(ValueError, match=message):
        check(tiny_config(model={"told": told}), processes=1)


def test_a_share_of_pictures_is_not_told_each_thing_for_itself(place):
    job = job_of(place, "text", "grey")
    told = tuple(replace(each, dropout=0.5) for each in job.config.model.told)
    teller = replace(job.teller, config=replace(job.config.model, told=told))
    dropped = {name: [] for name in ("text", "grey")}
    for step in range(50):
        left_out = teller.left_out(7, step, 8, range(8))
        # A process that has some of the places draws the same for them.
        part = teller.left_out(7, step, 8, range(3, 5))
        for name in dropped:
            assert torch.equal(part[name], left_out[name][3:5])
            dropped[name].append(left_out[name])
    text, grey = (torch.cat(dropped[name]).float() for name in ("text", "grey"))
    assert abs(text.mean() - 0.5) < 0.1 and abs(grey.mean() - 0.5) < 0.1
    assert abs((text * grey).mean() - 0.25) < 0.08  # independent
    job.teller = teller
    batch = job.draw(0, range(8))
    cond = job._told(batch)
    tokens, mask = teller.tokenizer.encode([""], teller.length)
    for row, gone in enumerate(batch.untold["text"].tolist()):
        assert torch.equal(cond.parts["text"][row], tokens[0]) == gone
        assert torch.equal(cond.parts["text" + MASK][row], mask[0]) == gone
    for row, gone in enumerate(batch.untold["grey"].tolist()):
        assert (not cond.parts["grey"][row].any()) == gone


def test_guidance_goes_from_nothing_told_to_what_is_told(place, trained):
    model, _ = trained("text", "map", "grey")
    wanted = request(place, "text", "map", "grey", clip="none", guidance=2.5)
    ready = plan(model, wanted)
    x = torch.randn(2, *ready.shape)
    at = ready.schedule.at(1, x)
    raw = Condition(parts=ready.telling.parts([0, 1], x.device))
    nothing = null(raw, model.teller.untold)
    told, untold = (model.denoiser(x, at, cond).eps for cond in (raw, nothing))
    encoded = model.network.encode(raw, x.shape[2:])
    for _ in range(2):  # the second time from what the first one encoded
        guided = ready.denoise(x, at, encoded)
        torch.testing.assert_close(guided.eps, untold + 2.5 * (told - untold), rtol=1e-4, atol=1e-4)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["unnoise", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_words_decide_what_is_drawn_and_a_png_draws_itself_again(place, trained, capsys, monkeypatch):
    model, file = trained("text")
    red, blue = (
        sample(model, n=1, steps="3", prompts=[text], precision="float32").pixels
        for text in ("a red thing", "a blue thing")
    )
    assert not torch.equal(red, blue)
    out = place / "drawn"
    options = ["--steps", "3", "--precision", "float32", "--device", "cpu"]
    told = ["--prompt", "a red thing", "--prompt", "a blue thing"]
    assert run_command(monkeypatch, "sample", file, "-n", 3, *told, *options, "--out", out) == 0
    inside = read_request(out / "000001.png")
    assert inside["prompts"] == ["a blue thing"] and inside["first"] == 1
    again = pixels(model, from_dict(GenerateRequest, inside))
    assert np.array_equal(again[0].numpy(), np.asarray(Image.open(out / "000001.png")))
    assert run_command(monkeypatch, "sample", file, "-n", 3, *told[:2], *options, "--out", out) == 2
    assert "prompts" in capsys.readouterr().err


def test_training_data_serve_as_what_is_given(place, trained):
    """Captions of a folder are taken where no words are named."""
    model, _ = trained("text")
    by_folder = pixels(model, request(place, "text", prompts=[], given=str(place / "pictures"), n=2))
    by_words = pixels(model, request(place, "text", prompts=["a blue thing", "a red thing"], n=2))
    assert torch.equal(by_folder, by_words)


@pytest.fixture
def frozen(tmp_path, monkeypatch) -> tuple[Path, list]:
    """A text encoder whose features are of the letters of a text; nothing else of transformers is needed."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    calls = []

    def computed(path, captions, length, device, on_progress):
        calls.append(list(captions))
        letters = torch.tensor(
            [[ord(text[k]) if k < len(text) else 0 for k in range(length)] for text in captions]
        )
        mask = letters > 0
        mask[:, 0] = True
        return (letters[..., None] / torch.tensor([50.0, 100.0, 150.0])).half(), mask

    monkeypatch.setattr("unnoise.text_features._computed", computed)
    return folder, calls


def test_a_frozen_text_encoder_is_asked_once_and_known_again(place, tmp_path, frozen):
    folder, calls = frozen
    told = {"what": "text", "frozen": str(folder), "length": 6, "encoder": {"kind": "features", "width": 16}}
    config = settings(place, "text")
    config = replace(config, model=replace(config.model, told=(from_dict(ToldConfig, told),)))
    config = replace(config, data=replace(config.data, cache=str(tmp_path / "cache")))
    train(config, tmp_path / "run")
    assert sorted(calls.pop(0)) == ["", "a blue thing", "a red thing"] and not calls
    model = load_model(tmp_path / "run")
    assert model.config.told[0].encoder.features == 3 and model.info.text_encoder
    # Drawing: guided from what the encoder makes of the empty text.
    wanted = from_dict(GenerateRequest, {"n": 2, "steps": "2", "prompts": ["a red thing"], "guidance": 2.0})
    ready = plan(model, wanted)
    parts = ready.telling.parts([0], torch.device("cpu"))
    assert parts["text"].shape == (1, 6, 3) and parts["text"][0, 0, 0] == pytest.approx(
        ord("a") / 50, rel=1e-3
    )
    pixels(model, wanted)
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="is no text encoder"):
        plan(model, wanted)
    plan(model, replace(wanted, text_encoder=str(moved)))
    (moved / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match="another text encoder"):
        plan(model, replace(wanted, text_encoder=str(moved)))


def test_features_need_an_encoder(place, tmp_path):
    told = from_dict(ToldConfig, {"what": "text", "encoder": {"kind": "features", "width": 16}})
    config = settings(place, "text")
    with pytest.raises(ValueError, match="frozen=FOLDER"):
        train(replace(config, model=replace(config.model, told=(told,))), tmp_path / "run")


def test_other_boxes_are_other_data(place, tmp_path):
    """A run does not go on with them."""
    boxes = tmp_path / "boxes.json"
    boxes.write_text((place / "boxes.json").read_text())
    config = settings(place, "layout")
    config = replace(config, data=replace(config.data, boxes=str(boxes)), steps=4)
    train(replace(config, steps=4), tmp_path / "run")
    table = json.loads(boxes.read_text())
    table["annotations"][0]["bbox"] = [1, 1, 2, 2]
    boxes.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="pictures have changed"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("told", "options", "words"),
    [
        (("text",), {"prompts": []}, "words with --prompt"),
        (("map",), {"given_maps": ""}, "semantic maps with --given"),
        (("layout",), {"given_boxes": ""}, "boxes with --given"),
        (("grey",), {"given": ""}, "pictures with --given"),
        (("grey",), {"prompts": ["a"]}, "prompts=.*told no such thing"),
    ],
)
def test_requests_that_lack_something_are_refused(place, trained, told, options, words):
    model, _ = trained(*told)
    with pytest.raises(ValueError, match=words):
        plan(model, request(place, *told, **options))


def test_a_model_that_is_told_nothing_takes_nothing(place):
    from tests.models import tiny_model

    for options in ({"prompts": ["a"]}, {"given": str(place / "pictures")}):
        with pytest.raises(ValueError, match="told no such thing"):
            plan(tiny_model(), from_dict(GenerateRequest, options))


def test_boxes_of_other_classes_are_refused(place, trained, tmp_path):
    model, _ = trained("layout")
    table = json.loads((place / "boxes.json").read_text())
    table["categories"][0]["name"] = "c"
    (tmp_path / "other.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match="has the classes c, b; the model knows a, b"):
        plan(model, request(place, "layout", given_boxes=str(tmp_path / "other.json")))


@pytest.mark.parametrize(
    ("told", "change", "words"),
    [
        ("text", {"data.metadata": None}, "no captions"),
        ("layout", {"data.boxes": ""}, "boxes, and the data have none"),
        ("map", {"data.maps": ""}, "a semantic map, and the data have none"),
        ("map", {"data.map_classes": None}, "data.map_classes"),
        ("layout", {"told.boxes": 9}, "9 boxes are 27 tokens"),
        ("grey", {"data.channels": 1}, "no colours to leave out"),
        ("text", {"told.words": 10}, "does not hold the letters"),
    ],
)
def test_data_and_settings_that_do_not_fit_are_refused(place, tmp_path, told, change, words):
    config = settings(place, told)
    ((path, value),) = change.items()
    where, name = path.split(".")
    if name == "metadata":
        bare = tmp_path / "pictures"
        bare.mkdir()
        for k in range(COUNT):
            (bare / f"{k:02d}.png").write_bytes((place / "pictures" / f"{k:02d}.png").read_bytes())
        config = replace(config, data=replace(config.data, source=str(bare)))
    elif where == "data":
        config = replace(config, data=replace(config.data, **{name: value}))
    else:
        (only,) = config.model.told
        config = replace(config, model=replace(config.model, told=(replace(only, **{name: value}),)))
    with pytest.raises(ValueError, match=words):
        train(config, tmp_path / "run")


def test_maps_of_another_size_and_boxes_outside_are_refused_by_name(place, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for k in range(COUNT):
        Image.fromarray(np.zeros((SIZE, SIZE + (k == 3)), np.uint8)).save(maps / f"{k:02d}.png")
    config = settings(place, "map")
    with pytest.raises(ValueError, match=r"03\.png is 9x8, its picture 8x8"):
        train(replace(config, data=replace(config.data, maps=str(maps))), tmp_path / "a")
    table = json.loads((place / "boxes.json").read_text())
    table["annotations"][5]["bbox"] = [4, 4, 9, 2]
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    config = settings(place, "layout")
    with pytest.raises(ValueError, match=r"boxes\.json"):
        train(replace(config, data=replace(config.data, boxes=str(tmp_path / "boxes.json"))), tmp_path / "b")


def test_a_model_without_encoders_is_told_nothing():
    teller = Teller(from_dict(TrainConfig, {}).model)
    assert teller.told == () and teller.untold == {} and not teller.needs_pictures()

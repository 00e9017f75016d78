"""Models that are told more than a class: words, and what they were trained to be told of a picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.edit.conftest import levels, request
from tests.goldens import recipe_state_dict
from tests.models import tiny_latent_model, tiny_model
from unnoise.config.model import ToldConfig
from unnoise.data.degrade import grey
from unnoise.data.layout import LayoutTokens
from unnoise.data.masks import draw_masks
from unnoise.edit import Picture, colorize, inpaint, interpolate, invert, outpaint, stroke, upscale, vary
from unnoise.generate import sample
from unnoise.images import to_images
from unnoise.model import build_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.conditioner_settings import SpatialRescalerSettings, TextEncoderSettings

WORDS = ("[start]", "[end]", "[unknown]", "red", "hat")
CLASSES, GRID = ("hat", "shoe"), 4
DRAWN = {"steps": "5", "clip": "none", "precision": "float32"}


def told_model(what, *, latent=False, dropout=0.1):
    """A model that is told this, in tiny; every weight random."""
    base = tiny_latent_model() if latent else tiny_model(classes=(), null=False, channels=3)
    channels = base.config.shape[0]
    beside = {"inpaint": channels + 1, "grey": channels, "low_res": 3, "map": 3}.get(what, 0)
    if what == "text":
        encoder = TextEncoderSettings(
            width=16, depth=1, vocabulary=len(WORDS), length=4, heads=1, head_channels=16
        )
        network = replace(base.config.network, transformer_depth=1, context_width=16)
    elif what == "layout":
        tokens = LayoutTokens(len(CLASSES), GRID, 2)
        encoder = TextEncoderSettings(
            width=16, depth=1, vocabulary=len(tokens), length=tokens.length, heads=1, head_channels=16
        )
        network = replace(base.config.network, transformer_depth=1, context_width=16)
    else:
        encoder = SpatialRescalerSettings(in_channels=beside, stages=0, out_channels=None)
        network = replace(base.config.network, in_channels=channels + beside)
    told = ToldConfig(
        what=what, encoder=encoder, dropout=dropout, factor=2, degradation="area", grid=GRID, boxes=2
    )
    config = replace(base.config, network=network, told=(told,))
    info = ModelInfo(
        vocabulary=WORDS if what == "text" else (), box_classes=CLASSES if what == "layout" else ()
    )
    model = build_model(config, info, base.first_stage)
    shapes = {key: list(value.shape) for key, value in model.network.state_dict().items()}
    state = recipe_state_dict(shapes, 3)
    state["network.out.2.weight"] *= 0.3
    model.network.load_state_dict(state)
    model.network.eval().requires_grad_(False)
    return model


@pytest.fixture
def given(tmp_path):
    """A folder of one picture, and the picture, of the size of a model."""

    def make(model):
        size = model.config.image_size
        pixels = levels(4, size, 3)
        folder = tmp_path / "given"
        folder.mkdir()
        Image.fromarray(pixels).save(folder / "0.png")
        return str(folder), pixels

    return make


BOTH = pytest.mark.parametrize("latent", [False, True], ids=["pixels", "latents"])


@BOTH
def test_holes_are_told_as_in_training(given, latent):
    """As `sample` tells it, which draws its hole for the seed and the place; the rest stays byte for byte."""
    model = told_model("inpaint", latent=latent)
    folder, pixels = given(model)
    plain = sample(model, given=folder, n=1, seed=5, **DRAWN)
    hole = draw_masks("mixed", *pixels.shape[:2], seed=5, places=np.array([0]))[0, 0].numpy()
    (batch,) = inpaint(model, [pixels], request("inpaint", n=1, seed=5, **DRAWN), masks=[hole])
    drawn = batch.pixels[0].numpy()
    assert np.abs(drawn[hole].astype(int) - plain.pixels[0].numpy()[hole]).max() <= 1
    assert np.array_equal(drawn[~hole], pixels[~hole])
    held = request("inpaint", n=1, seed=5, method="replace", **DRAWN)
    (both,) = inpaint(model, [pixels], held, masks=[hole])
    assert not np.array_equal(both.pixels[0].numpy()[hole], drawn[hole])
    (wide,) = outpaint(model, [pixels], request("outpaint", left=3, n=1, **DRAWN))
    assert np.array_equal(wide.pixels[0].numpy()[:, 3:], pixels)


@BOTH
def test_grey_is_told_as_in_training(given, latent):
    """The colours are those that `sample` draws; the luma is that of the picture within rounding."""
    model = told_model("grey", latent=latent)
    folder, pixels = given(model)
    without = np.repeat(pixels.astype(float).mean(-1, keepdims=True).round().astype(np.uint8), 3, -1)
    Image.fromarray(without).save(f"{folder}/0.png")
    plain = to_images(sample(model, given=folder, n=1, seed=5, **DRAWN).pixels)
    (batch,) = colorize(model, [pixels], request("colorize", n=1, seed=5, **DRAWN))
    images = to_images(batch.pixels)
    inside = ((images.abs() < 1) & (plain.abs() < 1)).all(1, keepdim=True)
    assert inside.float().mean() > 0.5
    colours = [x - grey(x) for x in (images, plain)]
    assert ((colours[0] - colours[1]).abs() * inside).max() <= 3 / 127.5
    assert ((grey(images) - grey(to_images(without[None]))).abs() * inside).max() <= 1.5 / 127.5


@BOTH
def test_small_pictures_are_told_as_in_training(given, latent):
    model = told_model("low_res", latent=latent)
    folder, _ = given(model)
    whole = levels(4, model.config.image_size // 2, 3)
    Image.fromarray(whole.repeat(2, 0).repeat(2, 1)).save(f"{folder}/0.png")  # whose means they are
    plain = sample(model, given=folder, n=2, seed=5, **DRAWN)
    (batch,) = upscale(model, [whole], request("upscale", n=2, seed=5, **DRAWN))
    assert (batch.pixels.int() - plain.pixels.int()).abs().max() <= 1
    with pytest.raises(ValueError, match="factor=4: this model was trained to make .* 2 times larger"):
        list(upscale(model, [whole], request("upscale", factor=4)))


@pytest.mark.parametrize("kind", ["vary", "inpaint", "stroke", "colorize"])
def test_words(kind):
    """One for all pictures or one each; none where training left them out now and then."""
    model, a, b = told_model("text"), levels(0, 8, 3), levels(1, 8, 3)
    edit = {"vary": vary, "inpaint": inpaint, "stroke": stroke, "colorize": colorize}[kind]
    hole = {"box": (1, 1, 5, 5)} if kind == "inpaint" else {}

    def drawn(*pictures, **options):
        return [batch.pixels for batch in edit(model, pictures, request(kind, **hole, **DRAWN | options))]

    red, hat = drawn(a, b, prompts=("red",)), drawn(a, b, prompts=("hat",))
    each, none = drawn(a, b, prompts=("red", "hat")), drawn(a, b)
    assert torch.equal(each[0], red[0]) and torch.equal(each[1], hat[1])
    assert not torch.equal(red[1], hat[1]) and not torch.equal(none[1], hat[1])
    assert not torch.equal(drawn(a, prompts=("red",), guidance=3.0)[0], red[0])
    with pytest.raises(ValueError, match="3 prompts for 2 pictures"):
        drawn(a, b, prompts=("red", "hat", "red"))
    with pytest.raises(ValueError, match="guidance leads towards a class"):
        drawn(a, guidance=3.0)


def test_words_on_the_way_to_noise_and_between():
    model, a, b = told_model("text"), levels(0, 8, 3), levels(1, 8, 3)
    wanted = request("invert", prompts=("red",), corrections=1, **DRAWN)
    (found,) = invert(model, [a], wanted)
    (other,) = invert(model, [a], replace(wanted, generate=replace(wanted.generate, prompts=("hat",))))
    assert not torch.equal(found.code.x_T, other.code.x_T)
    strips = [
        interpolate(model, [], request("interpolate", seeds=("1", "2"), frames=4, prompts=words, **DRAWN))
        for words in (("red",), ("red", "hat"))
    ]
    assert torch.equal(strips[0].pixels[:2], strips[1].pixels[:2])
    assert not torch.equal(strips[0].pixels[2:], strips[1].pixels[2:])
    assert len(list(vary(model, [b], request("vary", prompts=("red",), **DRAWN)))) == 1


@pytest.mark.parametrize(
    ("what", "edit", "options", "words"),
    [
        ("inpaint", vary, {}, ["told inpaint", "vary", "edit inpaint and outpaint"]),
        ("inpaint", colorize, {}, ["told inpaint", "edit inpaint"]),
        ("grey", inpaint, {"box": (1, 1, 3, 3)}, ["told grey", "edit colorize"]),
        ("low_res", stroke, {}, ["told low_res", "edit upscale"]),
        ("inpaint", inpaint, {"box": (1, 1, 3, 3), "prompts": ("hat",)}, ["told no such thing"]),
        ("text", vary, {"given": "pictures"}, ["given='pictures'", "boxes or maps", "leave it out"]),
    ],
)
def test_refusals(what, edit, options, words):
    with pytest.raises(ValueError) as error:
        list(edit(told_model(what), [levels(0, 8, 3)], request(edit.__name__, **options)))
    for word in words:
        assert word in str(error.value)


def test_models_that_always_were_told_words_need_some():
    with pytest.raises(ValueError, match="always was told words; give it some with prompt"):
        list(vary(told_model("text", dropout=0.0), [levels(0, 8, 3)], request("vary")))


BESIDE = pytest.mark.parametrize("what", ["map", "layout"])


@pytest.fixture
def beside(tmp_path):
    """Pictures a and deep/b of the size of a model, with maps and boxes -> the options that name them."""

    def make(model, *names):
        size, random = model.config.image_size, np.random.default_rng(3)
        images, boxes = [], []
        for k, name in enumerate(("a", "deep/b")):
            pixels, levels = levels_of(k, size), random.integers(0, 3, (size, size)).astype(np.uint8)
            box = {"id": k, "image_id": k, "category_id": k, "bbox": [k, 0, size - 2, size // 2]}
            if name not in names:
                continue
            for kind, image in (("pictures", pixels), ("maps", levels)):
                path = tmp_path / "-".join(names).replace("/", "-") / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
            images.append({"id": k, "file_name": f"{name}.png", "width": size, "height": size})
            boxes.append(box)
        folder = tmp_path / "-".join(names).replace("/", "-")
        kinds = [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
        table = {"images": images, "annotations": boxes, "categories": kinds}
        (folder / "boxes.json").write_text(json.dumps(table))
        named = {"given": str(folder / "pictures")}
        if model.config.told[0].what == "map":
            return named | {"given_maps": str(folder / "maps")}
        return named | {"given_boxes": str(folder / "boxes.json")}

    return make


def levels_of(k, size):
    return levels(10 + k, size, 3)


@BESIDE
@BOTH
def test_boxes_and_maps_are_told_as_in_training(beside, what, latent):
    """At strength 1 variations are what `sample` draws; in a hole the rest stays, and what is told counts."""
    model = told_model(what, latent=latent)
    size = model.config.image_size
    a, both = beside(model, "a"), beside(model, "a", "deep/b")
    plain = sample(model, **a, n=2, seed=5, **DRAWN)
    other = sample(model, **beside(model, "deep/b"), n=2, seed=5, **DRAWN)
    assert not torch.equal(plain.pixels, other.pixels)
    pictures = [Picture("deep/b", torch.from_numpy(levels_of(1, size))), f"{both['given']}/a.png"]
    wanted = request("vary", strength=1.0, n=2, seed=5, **both, **DRAWN)
    found = [batch.pixels for batch in vary(model, pictures, wanted)]
    assert (found[0].int() - other.pixels.int()).abs().max() <= 1  # by name, not in order
    assert (found[1].int() - plain.pixels.int()).abs().max() <= 1
    hole = {"box": (2, 2, size - 4, size - 5), "method": "replace"}
    drawn = []
    for given in (a, beside(model, "deep/b")):  # one for all
        (batch,) = inpaint(model, [levels_of(0, size)], request("inpaint", seed=5, **hole, **given, **DRAWN))
        inside = batch.pixels[:, 2 : size - 3, 2 : size - 2]
        outside = batch.pixels.clone()
        outside[:, 2 : size - 3, 2 : size - 2] = torch.from_numpy(levels_of(0, size))[
            2 : size - 3, 2 : size - 2
        ]
        assert np.array_equal(outside[0].numpy(), levels_of(0, size))
        drawn.append(inside)
    assert not torch.equal(*drawn)


@BESIDE
def test_boxes_and_maps_on_every_other_way(beside, what):
    model = told_model(what)
    a, both = beside(model, "a"), beside(model, "a", "deep/b")
    one, two = levels_of(0, 8), Picture("deep/b", torch.from_numpy(levels_of(1, 8)))
    (guided,) = stroke(model, [one], request("stroke", guidance=3.0, **a, **DRAWN))
    (plain,) = stroke(model, [one], request("stroke", **a, **DRAWN))
    assert not torch.equal(guided.pixels, plain.pixels)
    back = [
        next(iter(invert(model, [two], request("invert", corrections=1, **given, **DRAWN))))
        for given in (both, beside(model, "deep/b"), a)
    ]
    assert torch.equal(back[0].code.x_T, back[1].code.x_T)
    assert not torch.equal(back[0].code.x_T, back[2].code.x_T)
    strip = interpolate(
        model, [f"{both['given']}/a.png", two], request("interpolate", frames=4, **both, **DRAWN)
    )
    assert strip.pixels.shape == (4, 8, 8, 3)
    seeds = request("interpolate", seeds=("1", "2"), frames=2, **a, **DRAWN)
    assert (interpolate(model, [], seeds).pixels[:1].int() - sample_of(model, 1, a)).abs().max() <= 1
    (large,) = upscale(model, [levels(0, 4, 3)], request("upscale", factor=2, **a, **DRAWN))
    assert large.pixels.shape == (2, 8, 8, 3)
    (wide,) = outpaint(model, [levels(0, 4, 3)], request("outpaint", left=2, right=2, top=4, **a, **DRAWN))
    assert wide.pixels.shape == (2, 8, 8, 3)


def sample_of(model, seed, given):
    return sample(model, **given, n=1, seed=seed, **DRAWN).pixels.int()


@pytest.mark.parametrize(
    ("what", "edit", "options", "words"),
    [
        ("map", vary, {"given": ""}, ["semantic maps with --given PICTURES --maps FOLDER"]),
        ("layout", vary, {"given_boxes": ""}, ["boxes with --given PICTURES --boxes FILE"]),
        ("map", vary, {"fit": "tile"}, ["fit=tile", "use crop"]),
        ("layout", inpaint, {"box": (1, 1, 3, 3), "fit": "pad"}, ["fit=pad", "use crop"]),
        ("map", outpaint, {"left": 3}, ["its result is 11x8", "8x8"]),
        ("map", vary, {}, ["none of 2 pictures is called picture", "one for all pictures"]),
        ("layout", interpolate, {"seeds": ("1", "2")}, ["is called picture"]),
    ],
)
def test_boxes_and_maps_that_are_refused(beside, what, edit, options, words):
    model = told_model(what)
    named = beside(model, *(["a"] if edit is outpaint else ["a", "deep/b"]))
    with pytest.raises(ValueError) as error:
        list(edit(model, [levels(0, 8, 3)], request(edit.__name__, **named | options)))
    for word in words:
        assert word in str(error.value)

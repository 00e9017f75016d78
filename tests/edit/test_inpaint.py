"""Holes and margins: what is known comes back byte for byte, what is drawn is a draw, what is refused."""

import json

import numpy as np
import pytest
import torch

from tests.edit.conftest import MEAN, SIZE, STD, levels, request
from tests.models import tiny_latent_model, tiny_model
from unnoise.edit import inpaint, outpaint
from unnoise.edit.canvas import feathered, filled
from unnoise.generate import sample
from unnoise.images import to_images

BOX = (2, 1, 3, 4)
INSIDE = (slice(1, 5), slice(2, 5))
METHODS = [
    {},
    {"method": "replace", "sampler": "ddpm"},
    {"method": "repaint", "jump": 4, "repeats": 2},
    {"method": "repaint", "jump": 4, "repeats": 2, "sampler": "dpmpp-2m"},
]


def filled_in(model, picture, masks=None, **options):
    if masks is None:
        options = {"box": BOX} | options
    (batch,) = inpaint(model, [picture], request("inpaint", **options), masks=masks)
    return batch


@pytest.fixture(scope="module")
def latent():
    return tiny_latent_model()


def outside(size=SIZE, inside=INSIDE):
    known = np.ones((size, size), bool)
    known[inside] = False
    return known


@pytest.mark.parametrize("options", METHODS)
def test_known_pixels_come_back_byte_for_byte(exact_model, options):
    picture = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 1), np.uint8)
    drawn = filled_in(exact_model, picture, n=3, **options)
    known = outside()
    assert len(drawn) == 3 and drawn.ids == (0, 1, 2)
    for pixels in drawn.pixels.numpy():
        assert np.array_equal(pixels[known], picture[known])
        assert (pixels[~known] != picture[~known]).mean() > 0.8
    assert not torch.equal(drawn.pixels[0], drawn.pixels[1])


@pytest.mark.parametrize("options", METHODS)
def test_what_is_drawn_is_the_posterior(exact_model, options):
    """Pixels of their own: what is known says nothing of the hole, which is drawn as if alone."""
    bright = np.full((SIZE, SIZE, 1), 255, np.uint8)
    images = to_images(filled_in(exact_model, bright, n=200, steps="100", **options).pixels)
    drawn = images[:, :, *INSIDE].double()
    count = drawn.numel()
    assert abs(drawn.mean() - MEAN) < 5 * STD / count**0.5 + 0.006
    assert abs(drawn.std() / STD - 1) < 5 / (2 * count) ** 0.5 + 0.06


@pytest.mark.parametrize("which", ["pixels", "latents"])
def test_what_was_in_the_hole_does_not_count(which, latent):
    """Nor of a latent model's, whose encoder looks around."""
    model, size, inside = (latent, 16, (slice(4, 10), slice(6, 12))) if which == "latents" else (
        tiny_model(classes=(), null=False, channels=3), 8, INSIDE
    )  # fmt: skip
    one, other = (levels(k, size, 3) for k in (0, 1))
    other[outside(size, inside)] = one[outside(size, inside)]
    mask = ~outside(size, inside)
    results = [filled_in(model, picture, [mask]) for picture in (one, other)]
    assert torch.equal(results[0].pixels, results[1].pixels)


def test_all_ways_to_name_a_hole_are_the_same(exact_model, tmp_path):
    picture = levels()
    mask = ~outside()
    strokes = tmp_path / "strokes.json"
    strokes.write_text(json.dumps([{"width": 1, "points": [[x, 1], [x, 4]]} for x in (2, 3, 4)]))
    boxed = filled_in(exact_model, picture)
    clear = np.concatenate([np.repeat(picture, 3, 2), (~mask[..., None] * 255).astype(np.uint8)], 2)
    ways = [
        filled_in(exact_model, picture, [mask]),
        filled_in(exact_model, picture, [mask.astype(np.uint8) * 255]),
        filled_in(exact_model, picture, box=None, strokes=str(strokes)),
    ]
    assert all(torch.equal(way.pixels, boxed.pixels) for way in ways)
    alpha = filled_in(exact_model, clear, box=None, mask="alpha")
    assert np.array_equal(alpha.pixels[0].numpy()[~mask], picture[~mask])
    assert torch.equal(alpha.pixels, boxed.pixels)


def test_a_result_depends_on_its_picture_seed_and_number_alone(exact_model):
    a, b = levels(0), levels(1)
    wanted = request("inpaint", box=BOX, n=4, batch_size=3, method="repaint", jump=5, repeats=2)
    both = list(inpaint(exact_model, [a, b], wanted))
    alone = filled_in(exact_model, b, n=2, first=2, method="repaint", jump=5, repeats=2)
    assert torch.equal(both[1].pixels[2:], alone.pixels) and both[1].ids == (0, 1, 2, 3)
    other = filled_in(exact_model, b, n=2, first=2, seed=1)
    assert not torch.equal(other.pixels, alone.pixels)


def test_a_hole_that_is_nearly_all_is_a_plain_sample(exact_model):
    """One known pixel of 36 that have nothing to do with each other."""
    mask = np.ones((SIZE, SIZE), bool)
    mask[0, 0] = False
    plain = sample(exact_model, steps="20", clip="none", precision="float32", n=2)
    drawn = filled_in(exact_model, levels(), [mask])
    assert torch.equal(drawn.pixels.flatten(1)[:, 1:], plain.pixels.flatten(1)[:, 1:])


def test_latent_models_keep_pixels_too(latent):
    picture = levels(3, 16, 3)
    known = outside(16, (slice(4, 9), slice(5, 12)))  # crosses latent positions
    drawn = filled_in(latent, picture, [~known], n=2)
    for pixels in drawn.pixels.numpy():
        assert np.array_equal(pixels[known], picture[known])
        assert not np.array_equal(pixels[~known], picture[~known])


def test_feathers_pass_into_the_picture(latent):
    picture = levels(3, 16, 3)
    sharp = filled_in(latent, picture, box=(5, 5, 6, 6)).pixels[0].numpy().astype(int)
    soft = filled_in(latent, picture, box=(5, 5, 6, 6), feather=2).pixels[0].numpy().astype(int)
    assert np.array_equal(sharp[5:11, 5:11], soft[5:11, 5:11])
    around = np.ones((16, 16), bool)
    around[3:13, 3:13] = False
    assert np.array_equal(soft[around], picture[around])
    ring = ~around
    ring[5:11, 5:11] = False
    assert (soft[ring] != picture[ring]).mean() > 0.5
    weights = feathered(torch.zeros(1, 1, 1, 7).index_fill(3, torch.tensor([3]), 1), 2)
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0]))


def test_holes_are_filled_smoothly():
    images = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16).clone()
    unknown = torch.zeros(1, 1, 16, 16)
    unknown[..., 5:10, 4:11] = 1
    spoilt = torch.where(unknown > 0, 9.0, images)
    smooth = filled(spoilt, unknown)
    assert (smooth - images).abs().max() < 0.35 and torch.equal(smooth[unknown == 0], images[unknown == 0])
    assert torch.equal(filled(images, torch.zeros_like(unknown)), images)
    assert torch.isfinite(filled(spoilt, torch.ones_like(unknown))).all()


@pytest.mark.parametrize("which", ["pixels", "latents"])
def test_margins_of_any_amount(which, latent):
    """The frame is a multiple of what the network divides; of it as much is given out as was asked for."""
    model = latent if which == "latents" else tiny_model(classes=(), null=False, channels=3)
    picture = levels(0, 9, 3)
    options = {"left": 3, "right": 0, "top": 1, "bottom": 5, "steps": "3"}
    (batch,) = outpaint(model, [picture], request("outpaint", **options))
    assert batch.pixels.shape == (2, 9 + 1 + 5, 9 + 3, 3)
    assert np.array_equal(batch.pixels[1, 1:10, 3:12].numpy(), picture)
    (windows,) = outpaint(model, [picture], request("outpaint", fit="tile", **options))
    assert windows.pixels.shape == batch.pixels.shape
    assert np.array_equal(windows.pixels[1, 1:10, 3:12].numpy(), picture)


def test_pictures_of_several_sizes_go_side_by_side():
    model = tiny_model(classes=(), null=False)
    pictures = [levels(0, 8), levels(1, 13), levels(2, 8)]
    wanted = request("inpaint", box=(1, 1, 4, 4), fit="tile", steps="3", clip="static")
    together = list(inpaint(model, pictures, wanted))
    assert [batch.pixels.shape[1:3] for batch in together] == [(8, 8), (13, 13), (8, 8)]
    for picture, batch in zip(pictures, together, strict=True):
        known = outside(len(picture), (slice(1, 5), slice(1, 5)))
        assert np.array_equal(batch.pixels[0].numpy()[known], picture[known])


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_holes_are_cropped_and_padded_with_their_pictures(exact_model, fit):
    picture = np.zeros((24, 12, 1), np.uint8)
    hole = np.zeros((24, 12), bool)
    hole[10:14, 4:8] = True
    picture[hole] = 255
    drawn = filled_in(exact_model, picture, [hole], fit=fit, n=1)
    black = (drawn.pixels[0] == 0).numpy()
    assert black[0].all() and black[-1].all() and not black[3, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["none is named", "mask, box or strokes"]),
        ({"box": (2, 2, 9, 2)}, ["box 2,2,9,2", "6x6"]),
        ({"box": (-1, 2, 2, 2)}, ["box -1,2,2,2"]),
        ({"box": (1, 1, 0, 2)}, ["box 1,1,0,2"]),
        ({"box": (0, 0, 6, 6)}, ["leaves nothing"]),
        ({"box": BOX, "mask": "alpha"}, ["mask=alpha and box=", "one way"]),
        ({"mask": "alpha"}, ["opaque"]),
        ({"mask": "none.png"}, ["none.png does not exist"]),
        ({"strokes": "none.json"}, ["strokes=none.json", "No such file"]),
        ({"box": BOX, "feather": 2}, ["feather=2", "latents"]),
        ({"box": BOX, "method": "told"}, ["method=told", "not trained"]),
        ({"box": BOX, "method": "magic"}, ["method", "repaint"]),
        ({"box": BOX, "jump": 3}, ["jump=3", "repaint"]),
        ({"box": BOX, "method": "repaint", "jump": 20}, ["jump=20", "20 steps"]),
        ({"box": BOX, "method": "repaint", "repeats": 0}, ["repeats=0"]),
        ({"box": BOX, "strength": 0.3}, ["strength=0.3", "inpaint"]),
        ({"box": BOX, "left": 3}, ["left=3", "outpaint"]),
        ({"box": BOX, "height": 12}, ["height=12"]),
    ],
)  # fmt: skip
def test_refusals(exact_model, options, words):
    with pytest.raises(ValueError) as error:
        list(
            inpaint(
                exact_model,
                [levels()],
                request("inpaint", **options),
            )
        )
    for word in words:
        assert word in str(error.value)


def test_masks_that_do_not_fit(exact_model, tmp_path):
    small, none, everything = np.ones((4, 5), bool), np.zeros((6, 6), bool), np.ones((6, 6), bool)
    for mask, words in (
        (small, ["mask is 5x4", "6x6"]), (none, ["has no hole"]), (everything, ["leaves nothing"]),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:
            filled_in(exact_model, levels(), [mask])
        assert all(word in str(error.value) for word in words)
    with pytest.raises(ValueError, match="2 masks for 1 picture"):
        filled_in(exact_model, levels(), [none, none])
    for text in ("words", '{"width": 3}', '[{"width": 3}]', '[{"width": 0, "points": [[1, 1]]}]',
                 '[{"width": Infinity, "points": [[1, 1]]}]', '[{"width": 3, "points": [[1, NaN]]}]',
                 '[{"width": 3, "points": [[1, 1e300], [2, 2]]}]'):  # fmt: skip
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(ValueError, match="s.json( holds no|: a) stroke"):
            filled_in(exact_model, levels(), box=None, strokes=str(tmp_path / "s.json"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["left, right, top or bottom"]),
        ({"left": -2}, ["left=-2"]),
        ({"right": 10**9}, ["1000000006x6 pixels", "max_pixels"]),
        ({"right": 10**6}, ["1000006x6 pixels", "fit=tile or a patch"]),
        ({"left": 2, "box": BOX}, ["box", "inpaint"]),
        ({"left": 2, "fit": "crop"}, ["fit=crop", "tile"]),
    ],
)
def test_refusals_of_margins(exact_model, options, words):
    with pytest.raises(ValueError) as error:
        list(outpaint(exact_model, [levels()], request("outpaint", **options)))
    for word in words:
        assert word in str(error.value)

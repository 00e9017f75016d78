"""Colours, detail and strokes: what is held is held to the byte, what the options do, what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.edit.conftest import MEAN, SIZE, STD, levels, request
from tests.models import tiny_latent_model, tiny_model, tiny_upsampler
from unnoise.edit import colorize, consistency, stroke, upscale
from unnoise.edit.folder import Folder
from unnoise.edit.jobs import redraw_files
from unnoise.edit.plan import plan_edit
from unnoise.edit.rounding import levels_with_mean
from unnoise.generate import sample
from unnoise.images import is_whole_png, to_images
from unnoise.planning import plan

METHODS = [{}, {"method": "repaint", "jump": 4, "repeats": 2}, {"sampler": "ddpm"}]


@pytest.fixture(scope="module")
def rgb():
    return tiny_model(classes=(), null=False, channels=3)


@given(
    values=st.lists(st.floats(-400, 700), min_size=1, max_size=16),
    mean=st.integers(0, 255),
)
def test_rounded_levels_have_their_mean(values, mean):
    found = levels_with_mean(torch.tensor(values), torch.tensor(mean))
    assert found.dtype == torch.uint8 and found.double().sum() == mean * len(values)
    # No swap of a level between two places comes nearer: the projection keeps the order of the values.
    order = torch.tensor(values).argsort(stable=True)
    assert (found[order].int().diff() >= -1).all()


def test_levels_that_have_it_are_only_rounded():
    values = torch.tensor([[10.2, 20.4, 29.4], [0.0, 255.0, 0.0]])
    assert torch.equal(levels_with_mean(values, torch.tensor([20, 85])), torch.tensor(
        [[10, 21, 29], [0, 255, 0]], dtype=torch.uint8
    ))  # fmt: skip


@pytest.mark.parametrize("options", METHODS)
def test_colours_leave_the_grey_as_it_was(rgb, options):
    """To the byte: the mean of the channels, though each of them is within black and white."""
    grey = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    (batch,) = colorize(rgb, [grey], request("colorize", n=3, **options))
    drawn = batch.pixels.numpy().astype(int)
    assert (drawn.sum(-1) == 3 * grey[..., 0].astype(int)).all()
    assert np.ptp(drawn, -1).max() > 20 and not np.array_equal(drawn[0], drawn[1])


def test_of_a_picture_in_colour_its_mean_alone_counts(rgb):
    coloured = levels(0, 8, 3)
    grey = np.repeat(coloured.astype(float).mean(-1, keepdims=True).round().astype(np.uint8), 3, -1)
    both = [list(colorize(rgb, [p], request("colorize")))[0].pixels for p in (coloured, grey)]
    assert torch.equal(*both)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("options", METHODS)
def test_detail_leaves_the_small_picture_as_it_was(factor, options):
    """Shrunk again by means of blocks it is the small one to the byte; consistency says so."""
    model = tiny_model(classes=(), null=False)
    small = np.random.default_rng(0).integers(0, 256, (8 // factor, 8 // factor, 1), np.uint8)
    (batch,) = upscale(model, [small], request("upscale", factor=factor, n=3, **options))
    drawn = batch.pixels.numpy().astype(int).reshape(3, len(small), factor, len(small), factor)
    assert (drawn.sum((2, 4)) == factor**2 * small[..., 0].astype(int)).all()
    assert consistency(small=torch.from_numpy(small), large=batch.pixels[0]) == float("inf")
    assert not torch.equal(batch.pixels[0], batch.pixels[1])


def test_detail_is_drawn_as_the_posterior_says(exact_model):
    """Pixels of their own: within a block whose mean is known they vary by (1 - 1/4) of their variance."""
    small = np.full((3, 3, 1), 140, np.uint8)
    options = {"factor": 2, "n": 200, "steps": "100", "sampler": "ddpm"}
    (batch,) = upscale(exact_model, [small], request("upscale", **options))
    images = to_images(batch.pixels).double()
    count = images.numel()
    assert images.mean() == pytest.approx(140 / 127.5 - 1, abs=1e-6)
    assert abs(images.var() / (0.75 * STD**2) - 1) < 5 * (2 / count) ** 0.5 + 0.1


def test_large_pictures_are_enlarged_in_squares():
    model = tiny_model(classes=(), null=False)
    small = levels(0, 7)[:5]
    (batch,) = upscale(model, [small], request("upscale", factor=2, fit="tile", steps="3"))
    assert batch.pixels.shape == (2, 10, 14, 1)
    assert consistency(small=torch.from_numpy(small), large=batch.pixels[0]) == float("inf")


@pytest.mark.parametrize("factor", [3, 5, 12])
def test_any_factor_in_squares(factor):
    """Also one that does not divide the model's size, or is beyond it."""
    model, small = tiny_model(classes=(), null=False), levels(0, 3)
    (batch,) = upscale(model, [small], request("upscale", factor=factor, fit="tile", steps="3"))
    assert batch.pixels.shape == (2, 3 * factor, 3 * factor, 1)
    assert consistency(small=torch.from_numpy(small), large=batch.pixels[0]) == float("inf")


def test_upsamplers_are_told_the_small_picture():
    """As `sample` tells them, with the same noise."""
    model, small = tiny_upsampler(), levels(0, 4)
    options = {"labels": ("sandal",), "n": 2, "steps": "5", "seed": 3}
    (batch,) = upscale(model, [small], request("upscale", **options))
    plain = sample(model, low_res=small[None], clip="none", precision="float32", **options)
    assert (batch.pixels.int() - plain.pixels.int()).abs().max() <= 1 and batch.names == ("Sandal",) * 2
    noisy = tiny_upsampler(noise=0.5)
    wanted = request("upscale", low_res_noise=0.4, **options)
    (batch,) = upscale(noisy, [small], wanted)
    options |= {"low_res_noise": 0.4}
    plain = sample(noisy, low_res=small[None], clip="none", precision="float32", **options)
    assert (batch.pixels.int() - plain.pixels.int()).abs().max() <= 1
    for bad, words in (
        ({"factor": 4}, "factor=4: this model was trained to make 8x8 of 4x4, 2 times larger; leave it out"),
        ({"method": "replace"}, "method=replace: this model is an upsampler"),
        ({"low_res": "in"}, "low_res=in: an edit enlarges the pictures that it is given"),
        ({"shrink": True}, "shrink=True: an edit enlarges"),
        ({"fit": "tile"}, "fit=tile: this upsampler makes 8x8 of 4x4 and no other size"),
        ({"fit": "refuse"}, "it is 7x7, and the model makes 8x8 of 4x4, 2 times larger; choose fit crop"),
    ):
        picture = levels(0, 7) if "fit" in bad else small
        with pytest.raises(ValueError, match=words):
            list(upscale(model, [picture], request("upscale", labels=("sandal",), **bad)))


def test_results_of_any_number_are_drawn_one_batch_after_the_other(exact_model, tmp_path):
    """None is waited for, or listed, before the first is written."""

    class Enough(Exception):
        pass

    def enough(count):
        raise Enough

    Image.fromarray(levels()[..., 0]).save(tmp_path / "a.png")
    wanted = request("vary", n=10**12, steps="2", batch_size=2)
    folder = Folder(out=tmp_path / "out", edit=plan_edit(exact_model, wanted), weights="", on_result=enough)
    with pytest.raises(Enough):
        redraw_files(folder, [tmp_path / "a.png"])
    assert is_whole_png(tmp_path / "out/a-000.png")


def test_strokes_stay_outside_their_hole(exact_model):
    """Inside it is drawn as far as the strength says: 0 leaves it, and all is drawn without a hole."""
    painted, hole = levels(), np.zeros((SIZE, SIZE), bool)
    hole[1:4, 2:6] = True
    painted[hole] = 250
    (batch,) = stroke(exact_model, [painted], request("stroke", strength=0.6, n=3), masks=[hole])
    for pixels in batch.pixels.numpy():
        assert np.array_equal(pixels[~hole], painted[~hole]) and (pixels[hole] != 250).any()
    (still,) = stroke(exact_model, [painted], request("stroke", strength=0.0), masks=[hole])
    assert np.array_equal(still.pixels[0].numpy(), painted)
    (whole,) = stroke(exact_model, [painted], request("stroke", strength=0.6))
    assert (whole.pixels[0].numpy()[~hole] != painted[~hole]).mean() > 0.8


def test_repeats_lead_further_from_the_strokes(exact_model):
    """Each time x0 is a draw of what the noised one may have been, so the pull to the mean multiplies."""
    painted = np.full((SIZE, SIZE, 1), 230, np.uint8)
    start = to_images(painted[None])[0, 0, 0, 0].item() - MEAN
    options = {"sampler": "ddpm", "steps": "100", "n": 60, "strength": 0.3}
    ready = plan(exact_model, request("stroke", **options).generate)
    reached = int((ready.schedule.timesteps <= 0.3 * 199).sum()) - 1
    alpha_bar = ready.schedule.alpha_bar[reached].item()
    pull = alpha_bar * STD**2 / (alpha_bar * STD**2 + 1 - alpha_bar)
    for repeats in (1, 2, 3):
        (batch,) = stroke(exact_model, [painted], request("stroke", repeats=repeats, **options))
        images = to_images(batch.pixels).double()
        wanted = MEAN + pull**repeats * start
        assert abs(images.mean() - wanted) < 5 * STD / images.numel() ** 0.5 + 0.012


def test_latent_models_draw_over_strokes():
    model, painted = tiny_latent_model(), levels(0, 16, 3)
    hole = np.zeros((16, 16), bool)
    hole[3:9, 4:11] = True
    (batch,) = stroke(model, [painted], request("stroke", strength=0.5, repeats=2), masks=[hole])
    assert np.array_equal(batch.pixels[0].numpy()[~hole], painted[~hole])


@pytest.mark.parametrize(
    ("edit", "options", "words"),
    [
        (upscale, {}, ["say how many with factor"]),
        (upscale, {"factor": 3}, ["factor=3 does not divide the 8", "2, 4"]),
        (upscale, {"factor": 1}, ["factor=1"]),
        (upscale, {"factor": 4}, ["it is 4x4, and the model makes 8x8 of 2x2, 4 times larger"]),
        (upscale, {"factor": 9, "fit": "tile", "max_pixels": 1000}, ["36x36 pixels", "max_pixels=1,000"]),
        (upscale, {"factor": 2, "box": (1, 1, 1, 1)}, ["box", "inpaint"]),
        (colorize, {"factor": 2}, ["factor=2", "upscale"]),
        (colorize, {"method": "told"}, ["method=told"]),
        (stroke, {"strength": 1.2}, ["strength=1.2", "0 to 1"]),
        (stroke, {"repeats": 0}, ["repeats=0"]),
        (stroke, {"method": "replace"}, ["method", "stroke"]),
        (stroke, {"jump": 2}, ["jump=2"]),
    ],
)
def test_refusals(rgb, edit, options, words):
    with pytest.raises(ValueError) as error:
        list(edit(rgb, [levels(0, 4, 3)], request(edit.__name__, **options)))
    for word in words:
        assert word in str(error.value)


def test_grey_models_have_no_colours_to_draw():
    with pytest.raises(ValueError, match="draws pictures of 1 channels, and colorize needs 3"):
        list(colorize(tiny_model(), [levels(0, 8)], request("colorize")))

"""Ways between pictures: ends, closed forms, classes, chains, and what cannot be joined."""

import numpy as np
import pytest
import torch

from tests.edit.conftest import MEAN, STD, levels, request
from unnoise.edit import interpolate, invert
from unnoise.generate import sample
from unnoise.images import to_images


def way(model, *ends, **options):
    return interpolate(model, ends, request("interpolate", **options))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp-2m"])
def test_seeds_meet_their_own_pictures(exact_model, sampler):
    """To the bit at the ends, with a sampler that adds noise too; between them it goes step by step."""
    options = {"sampler": sampler, "eta": 1.0} if sampler == "dpmpp-2m" else {"sampler": sampler}
    strip = way(exact_model, seeds=("4", "9:2"), frames=5, **options)
    plain = {"steps": "20", "clip": "none", "precision": "float32", "n": 1} | options
    assert torch.equal(strip.pixels[0], sample(exact_model, seed=4, **plain).pixels[0])
    assert torch.equal(strip.pixels[4], sample(exact_model, seed=9, first=2, **plain).pixels[0])
    steps = (strip.pixels[1:].int() - strip.pixels[:-1].int()).abs().float().mean((1, 2, 3))
    whole = (strip.pixels[0].int() - strip.pixels[4].int()).abs().float().mean()
    assert len(strip) == 5 and (steps > 0).all() and (steps < whole).all()


def test_pictures_come_back_at_the_ends_and_the_middle_is_known(exact_model):
    """Gaussian data are drawn by a linear map, so the middle of the scores on the sphere is the picture's."""
    a, b = np.full((6, 6, 1), 128, np.uint8), np.full((6, 6, 1), 128, np.uint8)
    a[:3], b[3:] = 200, 60
    strip = way(exact_model, a, b, frames=3, corrections=6)
    assert (strip.pixels[0].int() - torch.tensor(a).int()).abs().max() <= 1  # truncated, as samples are
    assert (strip.pixels[2].int() - torch.tensor(b).int()).abs().max() <= 1
    scores = [(to_images(p[None])[0].double() - MEAN) / STD for p in (a, b)]
    angle = torch.arccos((scores[0] * scores[1]).sum() / (scores[0].norm() * scores[1].norm()))
    middle = MEAN + STD * (scores[0] + scores[1]) * (angle / 2).sin() / angle.sin()
    assert (to_images(strip.pixels[1][None])[0] - middle).abs().max() < 0.03


def test_noise_files_stand_for_their_pictures(exact_model):
    a, b = levels(0), levels(1)
    found = list(invert(exact_model, [a, b], request("invert")))
    codes = way(exact_model, found[0].code, found[1].code, frames=4)
    mixed = way(exact_model, a, found[1].code, frames=4)
    pictures = way(exact_model, a, b, frames=4)
    assert torch.equal(codes.pixels, pictures.pixels) and torch.equal(mixed.pixels, pictures.pixels)


def test_half_way_to_noise(exact_model):
    """Strength 0 is a straight cross-fade of the pictures; more of it leaves less of them at the ends."""
    a, b = levels(0), levels(1)
    fade = way(exact_model, a, b, mix="x_t", strength=0.0, frames=3)
    wanted = 0.5 * a.astype(float) + 0.5 * b.astype(float)
    assert np.abs(fade.pixels[1].numpy() - wanted).max() <= 1.5
    lost = [
        (way(exact_model, a, b, mix="x_t", strength=s).pixels[0].int() - torch.tensor(a).int())
        .abs().float().mean().item()
        for s in (0.0, 0.2, 0.5, 1.0)
    ]  # fmt: skip
    assert lost == sorted(lost) and lost[0] <= 1
    strip = way(exact_model, a, b, mix="x_t", strength=0.5, frames=5, sampler="ddpm")
    assert torch.equal(strip.pixels, way(exact_model, a, b, mix="x_t", frames=5, sampler="ddpm").pixels)


def test_classes_of_the_ends_change_half_way(model):
    strip = way(model, seeds=("1", "2"), labels=("sandal", "sneaker"), frames=6, steps="4")
    assert strip.names == ("Sandal",) * 3 + ("Sneaker",) * 3
    assert strip.labels.tolist() == [2] * 3 + [3] * 3
    one = way(model, seeds=("1", "2"), labels=("sandal",), frames=6, steps="4")
    assert one.names == ("Sandal",) * 6
    assert (one.pixels[:3].int() - strip.pixels[:3].int()).abs().max() <= 1
    assert (one.pixels[3:].int() - strip.pixels[3:].int()).abs().max() > 1
    none = way(model, seeds=("1", "2"), frames=6, steps="4")
    assert none.names == () and none.labels is None


def test_a_chain_of_ends(exact_model):
    strip = way(exact_model, levels(), seeds=("1", "2"), frames=4)
    assert strip.ids == tuple(range(7))
    last = way(exact_model, seeds=("1", "2"), frames=4)
    assert torch.equal(strip.pixels[3:], last.pixels)


@pytest.mark.parametrize(
    ("ends", "options", "words"),
    [
        ([], {}, ["none is given", "two or more"]),
        ([levels()], {}, ["1 is given"]),
        ([], {"seeds": ("1",)}, ["1 is given"]),
        ([], {"seeds": ("1", "two")}, ["'two'", "7:3"]),
        ([levels()], {"seeds": ("1",), "mix": "x_t"}, ["x_t", "seeds"]),
        ([levels(), levels(1)], {"sampler": "ddpm"}, ["ddpm", "adds noise"]),
        ([levels(), levels(1)], {"strength": 0.2}, ["strength=0.2", "x_t"]),
        ([levels(), levels(1)], {"frames": 1}, ["frames=1"]),
        ([], {"seeds": ("1", "2"), "frames": 10**7}, ["frames=10000000", "360,000,000 pixels", "fewer"]),
        ([levels(), levels(1)], {"mix": "x"}, ["mix", "x_T"]),
        ([levels(), levels(1, size=7)], {}, ["7x7", "6x6", "crop", "pad"]),
    ],
)
def test_refusals(exact_model, ends, options, words):
    with pytest.raises(ValueError) as error:
        way(exact_model, *ends, **options)
    for word in words:
        assert word in str(error.value)

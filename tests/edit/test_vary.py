"""Variations: what the strength leaves of a picture, and who depends on what."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.edit.conftest import MEAN, SIZE, STD, levels, request
from tests.models import tiny_classifier, tiny_model, tiny_upsampler
from unnoise.edit import vary
from unnoise.edit.plan import entry
from unnoise.generate import sample
from unnoise.images import to_images
from unnoise.noisy_classifier import save_noisy_classifier
from unnoise.planning import plan


def varied(model, picture, **options):
    (batch,) = vary(model, [picture], request("vary", **options))
    return batch


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp-2m", "unipc"])
def test_the_two_ends_of_strength(exact_model, sampler):
    """At 0 the picture to the bit, at 1 a plain sample with the same noise, less and less of it between."""
    picture, options = levels(), {"sampler": sampler, "seed": 3, "n": 3}
    still = varied(exact_model, picture, strength=0.0, **options)
    assert all(np.array_equal(p, picture) for p in still.pixels)
    plain = sample(exact_model, steps="20", clip="none", precision="float32", **options)
    whole = varied(exact_model, picture, strength=1.0, **options)
    assert torch.equal(whole.pixels, plain.pixels) and whole.ids == plain.ids == (0, 1, 2)
    apart = [
        (varied(exact_model, picture, strength=s, **options).pixels.int() - torch.tensor(picture).int())
        .abs().float().mean().item()
        for s in (0.1, 1.0)
    ]  # fmt: skip
    assert 0 < apart[0] < apart[1]


@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_variants_are_draws_of_what_the_noisy_picture_may_have_been(exact_model, strength):
    """x_t of the picture, then x0 of x_t: mean and variance are known, and ancestral sampling meets them."""
    picture = np.full((SIZE, SIZE, 1), 220, np.uint8)
    x0 = to_images(picture[None])[0, 0, 0, 0].item()
    options = {"sampler": "ddpm", "steps": "200", "n": 30, "strength": strength}
    drawn = to_images(varied(exact_model, picture, **options).pixels).double()
    ready = plan(exact_model, request("vary", **options).generate)
    alpha_bar = ready.schedule.alpha_bar[entry(ready, strength)].item()
    total = alpha_bar * STD**2 + 1 - alpha_bar
    mean = MEAN + alpha_bar * STD**2 / total * (x0 - MEAN)
    gain = alpha_bar**0.5 * STD**2 / total
    variance = gain**2 * (1 - alpha_bar) + STD**2 * (1 - alpha_bar) / total
    count = drawn.numel()
    assert abs(drawn.mean() - mean) < 5 * (variance / count) ** 0.5 + 0.006
    assert abs(drawn.var() / variance - 1) < 5 * (2 / count) ** 0.5 + 0.06


def test_strength_means_the_same_noise_on_every_grid(exact_model):
    """A share of the training steps, whatever steps are walked."""
    for steps in ("10", "50", "quad20", "200"):
        ready = plan(exact_model, request("vary", steps=steps).generate)
        assert entry(ready, 0.0) == -1 and entry(ready, 1.0) == ready.schedule.steps - 1
        for strength in (0.1, 0.5, 0.8):
            times = ready.schedule.timesteps
            k = entry(ready, strength)
            assert times[k] <= strength * 199 and (k + 1 == len(times) or times[k + 1] > strength * 199)
    with pytest.raises(ValueError, match=r"strength=0\.01 is less than the first .* 0\.095 or more"):
        entry(plan(exact_model, request("vary", steps="trailing10").generate), 0.01)


def test_a_variant_depends_on_its_picture_seed_and_number_alone(model):
    a, b = levels(0, 8), levels(1, 8)
    options = {"steps": "6", "strength": 0.6, "labels": ("sandal",), "sampler": "ddpm"}
    both = list(vary(model, [a, b], request("vary", n=5, batch_size=3, **options)))
    alone = varied(model, b, n=2, first=3, **options)
    assert alone.ids == (3, 4) and both[1].ids == (0, 1, 2, 3, 4)
    assert (both[1].pixels[3:].int() - alone.pixels.int()).abs().max() <= 1
    assert both[0].names == ("Sandal",) * 5 and both[0].labels.tolist() == [2] * 5
    assert not torch.equal(both[0].pixels[0], both[1].pixels[0])
    other = varied(model, b, n=2, first=3, **options | {"seed": 1})
    assert (other.pixels.int() - alone.pixels.int()).abs().max() > 1


def test_exact_variants_are_equal_to_the_bit(model):
    a, b = levels(0, 8), levels(1, 8)
    options = {"steps": "4", "exact": True, "sampler": "ddpm", "labels": ("sandal", "0")}
    both = list(vary(model, [a, b], request("vary", n=11, **options)))
    seen = []
    lone = request("vary", n=3, first=6, **options | {"labels": ("0",)})
    (alone,) = vary(model, [b], lone, on_step=seen.append)
    assert torch.equal(both[1].pixels[6:9], alone.pixels)
    # Each in its own place of a batch of eight, whatever is beside it.
    ids = list(dict.fromkeys(p.ids for p in seen))
    assert [(len(row), row[6], row[7], row[0]) for row in ids] == [(8, 6, 7, 6), (8, 8, 8, 8)]


def test_classes_and_guidance(model):
    a = levels(0, 8)
    plain = varied(model, a)
    assert plain.labels is None and plain.names == ()  # drawn with the null class
    told = varied(model, a, labels=("sandal",))
    guided = varied(model, a, labels=("sandal",), guidance=3.0)
    assert len({batch.pixels.numpy().tobytes() for batch in (plain, told, guided)}) == 3
    with pytest.raises(ValueError, match="guidance leads towards a class, and none is named"):
        vary(model, [a], request("vary", guidance=2.0))
    with pytest.raises(ValueError, match="label dropout"):
        vary(tiny_model(null=False), [a], request("vary"))
    with pytest.raises(ValueError, match="3 labels for 2 pictures"):
        vary(model, [a, a], request("vary", labels=("0", "1", "2")))
    (first, second) = vary(model, [a, a], request("vary", labels=("0", "1")))
    assert first.names[0] == "T-shirt/top" and second.names[0] == "Trouser"


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_classifier_guides_variants_as_it_guides_samples(model, tmp_path, sampler):
    """Also as the only one that knows the class, and never without a class."""
    file = tmp_path / "classifier.safetensors"
    save_noisy_classifier(file, tiny_classifier())
    options = {"classifier": str(file), "scale": 3.0, "sampler": sampler, "steps": "4", "labels": ("sandal",)}
    for extra in ({}, {"conditional": False}, {"guidance": 2.0}):
        wanted = options | extra
        guided = varied(model, levels(0, 8), strength=1.0, **wanted)
        plain = sample(model, n=2, clip="none", precision="float32", **wanted)
        assert (guided.pixels.int() - plain.pixels.int()).abs().max() <= 1
    off = varied(model, levels(0, 8), strength=1.0, **options | {"scale": 0.0})
    assert (off.pixels.int() - guided.pixels.int()).abs().max() > 1
    with pytest.raises(ValueError, match="none is named"):
        vary(model, [levels(0, 8)], request("vary", **options | {"labels": ()}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 1.5}, ["strength=1.5", "0 to 1"]),
        ({"strength": -0.1}, ["strength=-0.1"]),
        ({"strength": float("nan")}, ["strength"]),
        ({"seeds": ("3",)}, ["seeds", "vary", "interpolate"]),
        ({"frames": 4}, ["frames=4", "vary"]),
        ({"corrections": 0}, ["corrections=0", "invert"]),
        ({"fit": "squeeze"}, ["fit", "crop"]),
        ({"background": "reddish"}, ["reddish", "#rrggbb"]),
        ({"n": 0}, ["n=0"]),
        ({"steps": "201"}, ["steps=201"]),
        ({"labels": ("sandal",)}, ["unconditional"]),
    ],
)
def test_refusals(exact_model, options, words):
    with pytest.raises(ValueError) as error:
        vary(exact_model, [levels()], request("vary", **options))
    for word in words:
        assert word in str(error.value)


def test_upsamplers_edit_nothing():
    with pytest.raises(ValueError, match="is an upsampler: it enlarges pictures of 4x4"):
        vary(tiny_upsampler(), [levels(0, 8)], request("vary"))


def test_progress_counts_the_steps_that_are_walked(exact_model):
    seen = []
    list(vary(exact_model, [levels()], request("vary", strength=0.5), on_step=seen.append))
    assert [p.step for p in seen] == list(range(1, 11)) and {p.steps for p in seen} == {10}


def test_the_request_is_not_changed(exact_model):
    wanted = request("vary")
    before = dataclasses.asdict(wanted)
    list(vary(exact_model, [levels()], wanted))
    assert dataclasses.asdict(wanted) == before

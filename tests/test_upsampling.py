"""Enlarging small pictures through the public route: what the network is told, and who depends on what."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.goldens import Case, assert_close, golden
from tests.models import tiny_model, tiny_upsampler
from tests.networks.unets import settings_of
from tests.weights.test_published import saved
from unnoise.config.model import ModelConfig
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition
from unnoise.generate import sample
from unnoise.images import to_images
from unnoise.model import build_model, load_model, save_model
from unnoise.modelfile import ModelInfo
from unnoise.planning import plan

FAST = {"steps": "4", "precision": "float32"}


@pytest.fixture(scope="module")
def model():
    return tiny_upsampler()


def small(count=5, side=4, seed=0, channels=1):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def folder_of(pixels, folder, classes):
    for k, picture in enumerate(pixels):
        (folder / classes[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[..., 0]).save(folder / classes[k] / f"{k}.png")
    return str(folder)


def listening(model):
    """Replace the model's network by one that notes what it is told."""
    told, forward = [], model.network.forward

    def note(x, t, cond):
        told.append((x, t, cond))
        return forward(x, t, cond)

    model.network.forward = note
    return told


@golden("adm_unet", only=lambda spec: spec["class_"] == "SuperResModel")
def test_a_file_draws_with_the_recorded_call(case: Case, tmp_path):
    """A model file with the original's weights: the network is called as the record was, and answers so."""
    args = case.spec["constructor_args"]
    side, low = case.input("x").shape[-1], case.input("low_res")
    channels = args["in_channels"]
    variance = "learned_range" if args["out_channels"] == 2 * channels else "fixed_large"
    network = settings_of(args, super_res=True)
    config = ModelConfig(
        network=network, image_size=side, channels=channels, low_res=low.shape[-1], variance=variance
    )
    fresh = build_model(config, ModelInfo())
    save_model(tmp_path / "up.safetensors", fresh, weights=case.state_dict())
    model = load_model(tmp_path / "up.safetensors")
    told = listening(model)
    pixels = small(len(low), low.shape[-1], channels=channels)
    label = case.input("y") if case.has_input("y") else None
    asked = [] if label is None else [str(k) for k in label.tolist()]
    sample(model, low_res=pixels, labels=asked, sampler="ddpm", **FAST)
    assert len(told) == 4
    for _, _, cond in told:
        assert torch.equal(cond.concat, to_images(pixels))
        assert cond.label is None if label is None else torch.equal(cond.label, label)
        assert cond.level is None
    with torch.no_grad():
        answer = model.network(case.input("x"), case.input("timesteps"), Condition(label=label, concat=low))
    assert_close(answer, case.output("output"), 1e-5, "output")


def test_picture_k_depends_on_the_seed_k_and_the_kth_small_picture(model):
    pixels = small(5)
    whole = sample(model, low_res=pixels, seed=3, exact=True, **FAST)
    assert whole.ids == tuple(range(5)) and whole.pixels.shape == (5, 8, 8, 1)
    again = sample(model, low_res=pixels, seed=3, exact=True, batch_size=2, first=2, n=2, **FAST)
    assert torch.equal(again.pixels, whole.pixels[2:4])
    others = pixels.copy()
    others[3] = 255 - others[3]
    changed = sample(model, low_res=others, seed=3, exact=True, **FAST).pixels != whole.pixels
    assert changed.flatten(1).any(1).tolist() == [False, False, False, True, False]


def test_few_pictures_are_taken_in_turn_and_differ_by_their_noise(model):
    drawn = sample(model, low_res=small(2), labels=["sandal"], n=4, **FAST).pixels.int()
    for one, other in ((0, 2), (1, 3)):
        assert 0 < (drawn[one] - drawn[other]).abs().float().mean()


def test_an_upsampler_meets_other_noise_than_the_model_before_it(model):
    request = GenerateRequest(n=1, low_res="", **FAST)
    base = plan(tiny_model(), request)
    up = plan(model, request, low_res=_held(model))
    assert base.purpose == "noise" != up.purpose
    assert up.purpose != plan(tiny_upsampler(size=16), request, low_res=_held(model)).purpose


def _held(model):
    from unnoise.low_res import hold_low_res

    return hold_low_res(model.config, small(1))


@pytest.mark.parametrize("sampler", ["ddpm", "heun", "dpmpp-2m", "unipc"])
def test_every_sampler_and_guidance(model, sampler):
    options = {"low_res": small(2), "labels": ["sneaker"], "sampler": sampler, **FAST}
    plain, guided = sample(model, **options), sample(model, guidance=3.0, **options)
    assert not torch.equal(plain.pixels, guided.pixels)


class TestNoise:
    def test_the_level_and_the_noise_that_the_network_is_told(self):
        model = tiny_upsampler(noise=0.5)
        told = listening(model)
        pixels = small(300, seed=1)
        sample(model, low_res=pixels, low_res_noise=0.3, steps="1", precision="float32", batch_size=300)
        cond = told[0][2]
        assert torch.equal(cond.level, torch.full((300,), 0.3))
        z = (cond.concat - (1 - 0.09) ** 0.5 * to_images(pixels)) / 0.3
        bound = 5 / z.numel() ** 0.5
        assert abs(z.mean().item()) < bound and abs(z.var().item() - 1) < 1.5 * bound
        x = told[0][0]
        assert abs((z.flatten(1) * x.flatten(1)[:, :16]).mean().item()) < bound, "not the noise of x_T"

    def test_one_noise_for_all_steps_and_any_batch(self):
        model = tiny_upsampler(noise=0.5)
        told = listening(model)
        options = {"low_res": small(3), "low_res_noise": 0.5, **FAST}
        sample(model, **options)
        sample(model, batch_size=1, **options)
        assert len({cond.concat[0].numpy().tobytes() for _, _, cond in told[:5]}) == 1
        whole, alone = told[0][2].concat, torch.cat([told[4 * k][2].concat for k in (1, 2, 3)])
        assert torch.equal(whole, alone)

    def test_none_is_a_level_too(self):
        model = tiny_upsampler(noise=0.5)
        told = listening(model)
        pixels = small(2)
        sample(model, low_res=pixels, **FAST)
        assert torch.equal(told[0][2].concat, to_images(pixels)) and told[0][2].level.tolist() == [0, 0]

    @pytest.mark.parametrize("level", [-0.1, 0.51])
    def test_levels_beyond_the_training_are_refused(self, level):
        with pytest.raises(ValueError, match=r"use 0\.\.0\.5"):
            sample(tiny_upsampler(noise=0.5), low_res=small(), low_res_noise=level)

    def test_without_augmentation_there_is_no_noise(self, model):
        with pytest.raises(ValueError, match="use 0: this one was trained without"):
            sample(model, low_res=small(), low_res_noise=0.1)


class TestClasses:
    def test_of_folders_by_name(self, model, tmp_path):
        folder = folder_of(small(4), tmp_path, ["ankle-boot", "sandal", "ankle-boot", "Trouser"])
        ready = plan(model, GenerateRequest(n=4, low_res=folder))
        assert [ready.name(k) for k in range(4)] == ["Trouser", "Ankle boot", "Ankle boot", "Sandal"]
        assert ready.turn == []

    def test_of_npz_files_by_number(self, model, tmp_path):
        np.savez(tmp_path / "a.npz", small(4), np.array([4, 0, 2, 2]))
        batch = sample(model, low_res=str(tmp_path / "a.npz"), **FAST)
        assert batch.labels.tolist() == [4, 0, 2, 2] and len(batch) == 4

    def test_of_drawn_pictures(self, model):
        base = sample(tiny_model(size=4), n=3, labels=["sneaker", "sandal"], **FAST)
        assert sample(model, low_res=base, **FAST).names == ("Sneaker", "Sandal", "Sneaker")

    def test_given_ones_go_first(self, model, tmp_path):
        folder = folder_of(small(2), tmp_path, ["sandal", "nothing we know"])
        assert sample(model, low_res=folder, labels=["sneaker"], **FAST).names == ("Sneaker",) * 2
        with pytest.raises(
            ValueError, match="class 'nothing we know' of the small pictures is none.*--label"
        ):
            sample(model, low_res=folder, **FAST)

    def test_beginnings_are_no_names(self, model, tmp_path):
        folder = folder_of(small(2), tmp_path, ["ankle", "sandal"])
        with pytest.raises(ValueError, match="class 'ankle'"):
            sample(model, low_res=folder, **FAST)

    def test_nobody_knows(self, model):
        batch = sample(model, low_res=small(2), **FAST)
        assert batch.labels.tolist() == [5, 5] and batch.names == (), "the null class"
        with pytest.raises(ValueError, match="say with --label"):
            sample(tiny_upsampler(null=False), low_res=small(2), **FAST)

    def test_an_unconditional_upsampler_needs_none(self, tmp_path):
        folder = folder_of(small(2), tmp_path, ["cats", "dogs"])
        batch = sample(tiny_upsampler(classes=()), low_res=folder, **FAST)
        assert batch.labels is None and batch.names == ()


def test_large_pictures_are_shrunk_as_in_training(tmp_path):
    model = tiny_upsampler()
    told = listening(model)
    large = small(2, side=8)
    np.savez(tmp_path / "large.npz", large)
    sample(model, low_res=str(tmp_path / "large.npz"), shrink=True, labels=["0"], **FAST)
    means = to_images(large).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    torch.testing.assert_close(told[0][2].concat, means)


def test_grey_pictures_for_a_colour_model(tmp_path):
    model = tiny_upsampler(channels=3)
    told = listening(model)
    np.savez(tmp_path / "grey.npz", small(2))
    assert sample(model, low_res=str(tmp_path / "grey.npz"), **FAST).pixels.shape == (2, 8, 8, 3)
    assert torch.equal(told[0][2].concat[:, 0], told[0][2].concat[:, 2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "draws none alone; name some with --low-res"),
        ({"low_res": "no/such/folder"}, "no/such/folder"),
        ({"low_res": small(side=5)}, r"\(5, 5, 5, 1\), this model enlarges uint8 \(N, 4, 4, 1\)"),
        ({"low_res": small().astype(np.float32)}, "low_res is float32"),
        ({"low_res": small(), "labels": ["cat"]}, "'cat'"),
    ],
)
def test_refusals(model, options, words):
    with pytest.raises(ValueError, match=words):
        sample(model, **options, **FAST)


def test_refused_files(model, tmp_path):
    for name, pixels in (("five", small(side=5)), ("colour", small(channels=3)), ("four", small())):
        np.savez(tmp_path / f"{name}.npz", pixels)
    for name, words in (
        ("five", "has pictures of 5x5, this model enlarges 4x4"),
        ("colour", "has pictures of 3 channels, this model enlarges 1"),
    ):
        with pytest.raises(ValueError, match=words):
            sample(model, low_res=str(tmp_path / f"{name}.npz"), **FAST)
    with pytest.raises(ValueError, match="5 pictures .* are smaller than the 8x8"):
        sample(model, low_res=str(tmp_path / "four.npz"), shrink=True, **FAST)
    (tmp_path / "some").mkdir()
    Image.fromarray(small()[0, ..., 0]).save(tmp_path / "some" / "a.png")
    (tmp_path / "some" / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="1 pictures .* are broken, the first is b.png"):
        sample(model, low_res=str(tmp_path / "some"), **FAST)


def test_other_models_take_no_small_pictures():
    for name, value in {"low_res": "a", "shrink": True, "low_res_noise": 0.1}.items():
        with pytest.raises(ValueError, match=f"{name}=.* is for upsamplers"):
            sample(tiny_model(), **{name: value})
    with pytest.raises(ValueError, match="is for upsamplers"):
        sample(tiny_model(), low_res=small())


def test_settings_that_make_no_upsampler():
    from unnoise.config.resolve import check_model

    for changes, words in (
        ({"low_res": 8}, "low_res=8 is not below model.image_size=8; use 1..7"),
        ({"low_res": None, "low_res_noise": 0.1}, "is for upsamplers"),
        ({"low_res": 4, "low_res_noise": 1.0}, "use 0 or less than 1"),
    ):
        values = json.loads(json.dumps({"image_size": 8, "channels": 1} | changes))
        with pytest.raises(ValueError, match=words):
            check_model(ModelConfig(**values))


def test_a_published_file_enlarges(tmp_path):
    """Laid out as OpenAI's: recognised by its shapes, told the small picture, no class but --label's."""
    saved(tmp_path / "any-name.pt", "adm-up-tiny")
    model = load_model(tmp_path / "any-name.pt")
    assert model.info.preset == "adm-up-tiny" and model.config.low_res == 8
    batch = sample(model, low_res=small(2, 8, channels=3), labels=[7], sampler="ddpm", **FAST)
    assert batch.pixels.shape == (2, 16, 16, 3) and batch.labels.tolist() == [7, 7]
    with pytest.raises(ValueError, match="say with --label"):
        sample(model, low_res=small(2, 8, channels=3), **FAST)

"""Companions of latent models: every guidance in latents, off, and those that know other latents refused."""

from dataclasses import replace

import pytest
import torch

from tests.goldens import recipe_state_dict
from tests.models import NAMES, tiny_classifier, tiny_model
from tests.train.test_latents import stage_of
from unnoise.config.model import LatentConfig, ModelConfig, ScheduleConfig, ToldConfig
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import classifier_guide
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.samplers import SAMPLERS, Ddim, Ddpm
from unnoise.diffusion.spacing import grid
from unnoise.diffusion.walk import run
from unnoise.generate import sample
from unnoise.images import save_png, to_pixels
from unnoise.model import build_model, save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.conditioner_settings import SpatialRescalerSettings
from unnoise.networks.settings import UNetSettings
from unnoise.noisy_classifier import build_noisy_classifier, save_noisy_classifier

DRAWING = [name for name, kind in SAMPLERS.items() if not kind.ascends]
SCALE = (0.8,)


def latent_model(*, classes=NAMES, stage_seed=0, scale=SCALE, size=8, steps=100, seed=0, told=()):
    """A model of the latents of a small KL first stage, every weight random."""
    stage = replace(stage_of("kl", seed=stage_seed), scale=scale)
    beside = 3 if told else 0
    network = UNetSettings(
        in_channels=2 + beside, out_channels=2, width=32, depth=1, channel_mult=(1, 2), attention=(2,),
        heads=1, classes=len(classes) + 1 if classes else None,
    )  # fmt: skip
    config = ModelConfig(
        network=network, schedule=ScheduleConfig(steps=steps), variance="fixed_small", image_size=size,
        channels=1, latent=LatentConfig(channels=2, factor=2, first_stage=stage.hash), told=told,
    )  # fmt: skip
    info = ModelInfo(classes=tuple(classes), null_label=len(classes) if classes else None)
    model = build_model(config, info, stage)
    shapes = {key: list(value.shape) for key, value in model.network.state_dict().items()}
    state = recipe_state_dict(shapes, seed, [key for key in shapes if key.endswith("label_emb.weight")])
    model.network.load_state_dict(state)
    model.network.eval().requires_grad_(False)
    return model


def latent_classifier(*, stage_seed=0, scale=SCALE, size=4, latent=True, **options):
    """A noisy classifier of those latents, every weight random."""
    stage = replace(stage_of("kl", seed=stage_seed), scale=scale)
    plain = tiny_classifier(channels=2, size=size, **options)
    known = LatentConfig(channels=2, factor=2, first_stage=stage.hash)
    config = replace(plain.config, latent=known, latent_scale=scale)
    made = build_noisy_classifier(config, plain.info)
    made.network.load_state_dict(plain.network.state_dict())
    made.network.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def model():
    return latent_model()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("companions")
    save_noisy_classifier(folder / "classifier.safetensors", latent_classifier())
    save_model(folder / "weaker.safetensors", latent_model(seed=3))
    return folder


def draw(model, **options):
    return sample(model, **{"n": 3, "steps": "4", "precision": "float32", "labels": "sandal"} | options)


def by_hand(model, sampler, guide):
    """The same three pictures from the pieces of diffusion/, decoded."""
    schedule, noise = grid("4", model.schedule), SeededNoise(0, range(3))
    cond = Condition(label=torch.full((3,), 2))
    x = noise(torch.empty(3, 2, 4, 4), step=-1, draw=0)
    for step in run(sampler, model.denoiser, x, schedule.path(x), cond=cond, noise=noise, guide=guide):
        x = step.x
    return to_pixels(model.decode(x))


@pytest.mark.parametrize("sampler", [Ddim(), Ddpm()])
def test_the_gradient_is_taken_in_latents(model, files, sampler):
    name = {Ddim: "ddim", Ddpm: "ddpm"}[type(sampler)]
    drawn = draw(model, sampler=name, classifier=str(files / "classifier.safetensors"), scale=3.0)
    guide = classifier_guide(latent_classifier().network, 3.0)
    assert torch.equal(drawn.pixels, by_hand(model, sampler, guide))
    assert not torch.equal(drawn.pixels, by_hand(model, sampler, None))


@pytest.mark.parametrize("sampler", DRAWING)
def test_every_sampler_takes_every_guidance_and_off_scales_are_identities(model, files, sampler):
    classifier, weaker = str(files / "classifier.safetensors"), str(files / "weaker.safetensors")
    plain = draw(model, sampler=sampler).pixels
    off = {"classifier": classifier, "scale": 0.0, "weaker": weaker, "weaker_scale": 1.0}
    assert torch.equal(draw(model, sampler=sampler, **off).pixels, plain)
    for moved in ({"classifier": classifier, "scale": 4.0}, {"weaker": weaker, "weaker_scale": 1.5}):
        assert not torch.equal(draw(model, sampler=sampler, **moved).pixels, plain), moved


def test_a_classifier_gives_an_unconditional_model_classes(files):
    drawn = draw(latent_model(classes=()), classifier=str(files / "classifier.safetensors"), scale=2.0)
    assert drawn.names == ("Sandal",) * 3


def test_a_model_that_is_told_other_things_may_be_guided_to_a_class(files, tmp_path):
    encoder = SpatialRescalerSettings(in_channels=1, out_channels=3, stages=0)
    model = latent_model(classes=(), told=(ToldConfig(what="low_res", encoder=encoder),))
    (tmp_path / "given").mkdir()
    pixels = torch.arange(192, dtype=torch.uint8).view(3, 8, 8, 1).numpy()
    for k in range(3):
        save_png(tmp_path / "given" / f"{k}.png", pixels[k], {})
    options = {"given": str(tmp_path / "given"), "classifier": str(files / "classifier.safetensors")}
    drawn = draw(model, scale=4.0, guidance=2.0, **options)
    assert drawn.names == ("Sandal",) * 3
    other = draw(model, scale=4.0, guidance=2.0, labels="trouser", **options)
    assert not torch.equal(drawn.pixels, other.pixels)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"stage_seed": 1}, ["latents of another first stage", "--first-stage MODEL"]),
        ({"scale": (0.5,)}, ["scaled by 0.5", "scaled by 0.8", "--first-stage MODEL"]),
        ({"scale": (0.8, 0.7)}, ["scaled by 0.8, 0.7"]),
        ({"size": 8}, ["a side of 16 pixels", "for a side of 8"]),
        ({"steps": 50}, ["50 steps", "with 100"]),
        ({"classes": NAMES[:3]}, ["3 classes", "the model 5"]),
        ({"classes": tuple("abcde")}, ["'a'", "T-shirt/top"]),
        ({"noised": False}, ["clean pictures alone"]),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(model, tmp_path, other, words):
    file = tmp_path / "classifier.safetensors"
    save_noisy_classifier(file, latent_classifier(**other))
    with pytest.raises(ValueError) as refused:
        draw(model, classifier=str(file), scale=1.0)
    assert "\n" not in str(refused.value)
    for word in [str(file), *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"stage_seed": 1}, ["weaker model knows the latents of another first stage"]),
        ({"scale": (0.5,)}, ["weaker model knows latents scaled by 0.5", "scaled by 0.8"]),
        ({"size": 16}, ["16", "for a side of 8"]),
        ({"steps": 50}, ["50 steps"]),
        ({"classes": NAMES[:3]}, ["4 class rows"]),
    ],
)
def test_a_weaker_model_that_does_not_fit_is_refused(model, tmp_path, other, words):
    file = tmp_path / "weaker.safetensors"
    save_model(file, latent_model(**other))
    with pytest.raises(ValueError) as refused:
        draw(model, weaker=str(file))
    for word in [str(file), *words]:
        assert word in str(refused.value)


def test_pixels_and_latents_do_not_guide_each_other(model, files, tmp_path):
    save_noisy_classifier(tmp_path / "pixels.safetensors", tiny_classifier())
    save_model(tmp_path / "model.safetensors", tiny_model())
    for options in (
        {"classifier": str(tmp_path / "pixels.safetensors"), "scale": 1.0},
        {"weaker": str(tmp_path / "model.safetensors")},
    ):
        with pytest.raises(ValueError, match="knows pixels and the model draws latents; train one with"):
            draw(model, **options)
    for options in (
        {"classifier": str(files / "classifier.safetensors"), "scale": 1.0},
        {"weaker": str(files / "weaker.safetensors")},
    ):
        with pytest.raises(ValueError, match="knows latents and the model draws pixels; train one with"):
            draw(tiny_model(), **options)

"""Models stored as half precision: half the bytes, the same model after reading and writing."""

import dataclasses

import pytest
import torch

from tests.models import tiny_classifier, tiny_latent_model, tiny_model
from tests.networks.first_stages import TINY_KL
from tests.test_gan import tiny_gan_model
from unnoise.classifier import build_classifier, load_classifier, save_classifier
from unnoise.cli.convert import convert
from unnoise.config.schema import AutoencoderConfig
from unnoise.first_stage import load_first_stage, make_first_stage, save_first_stage
from unnoise.gan import load_gan, save_gan
from unnoise.model import load_model, save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import ClassifierSettings
from unnoise.noisy_classifier import load_noisy_classifier, save_noisy_classifier
from unnoise.rounding import TYPES, round_weights

HALVES = pytest.mark.parametrize("dtype", list(TYPES))


def same(one, other):
    """Whether two networks hold the same numbers."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def near(one, other, dtype):
    """Whether the numbers of two networks differ, and by no more than rounding does."""
    a, b = (torch.cat([v.flatten() for v in net.state_dict().values()]) for net in (one, other))
    eps = torch.finfo(TYPES[dtype]).eps
    return not torch.equal(a, b) and bool(((a - b).abs() <= eps * a.abs() / 2 + 1e-7).all())


@HALVES
def test_a_model_is_stored_as_half_and_draws(dtype, tmp_path):
    model = tiny_model()
    save_model(tmp_path / "model.safetensors", model)
    convert(tmp_path / "model.safetensors", tmp_path / "half.safetensors", dtype=dtype)
    half = load_model(tmp_path / "half.safetensors")
    assert near(model.network, half.network, dtype)
    assert all(value.dtype == torch.float32 for value in half.network.parameters())
    assert half.config == model.config and half.classes == model.classes
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("model", "half")]
    weights = 4 * sum(value.numel() for value in model.network.parameters())
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, rel=0.01)
    one, other = (each.sample(n=2, steps=3, seed=1).pixels for each in (model, half))
    assert (one.int() - other.int()).abs().max() <= 8
    convert(tmp_path / "half.safetensors", tmp_path / "again.safetensors", dtype=dtype)
    assert same(load_model(tmp_path / "again.safetensors").network, half.network)


def test_a_latent_model_goes_with_the_latents_of_its_rounded_first_stage(tmp_path):
    model = tiny_latent_model()
    save_model(tmp_path / "model.safetensors", model)
    convert(tmp_path / "model.safetensors", tmp_path / "half.safetensors", dtype="float16")
    half = load_model(tmp_path / "half.safetensors")
    assert near(model.first_stage.network, half.first_stage.network, "float16")
    assert half.first_stage.scale == model.first_stage.scale
    assert half.config.latent.first_stage == half.first_stage.hash != model.first_stage.hash
    rest = dataclasses.replace(half.config, latent=model.config.latent)
    assert rest == model.config


def test_a_model_is_stored_with_the_guidance_that_it_advises(tmp_path):
    model = tiny_model()
    save_model(tmp_path / "model.safetensors", model)
    convert(tmp_path / "model.safetensors", tmp_path / "advising.safetensors", guidance=2.5)
    advising = load_model(tmp_path / "advising.safetensors")
    assert advising.info.guidance == 2.5 and advising.info.classes == model.info.classes
    assert same(model.network, advising.network)
    drawn = advising.sample(n=2, steps=3).pixels
    assert torch.equal(drawn, model.sample(n=2, steps=3, guidance=2.5).pixels)
    for broken, guidance, words in (
        (tiny_model(null=False), 2.5, "label dropout"),
        (model, float("nan"), "is no scale"),
    ):
        save_model(tmp_path / "broken.safetensors", broken)
        with pytest.raises(ValueError, match=words):
            convert(tmp_path / "broken.safetensors", tmp_path / "out.safetensors", guidance=guidance)
    assert not (tmp_path / "out.safetensors").exists()


def test_first_stages_and_classifiers_too(tmp_path):
    torch.manual_seed(0)
    stage = make_first_stage(AutoencoderConfig(network=TINY_KL, image_size=16))
    save_first_stage(tmp_path / "stage.safetensors", stage)
    convert(tmp_path / "stage.safetensors", tmp_path / "half-stage.safetensors", dtype="float16")
    assert near(stage.network, load_first_stage(tmp_path / "half-stage.safetensors").network, "float16")
    classifier = tiny_classifier()
    save_noisy_classifier(tmp_path / "c.safetensors", classifier)
    convert(tmp_path / "c.safetensors", tmp_path / "half-c.safetensors", dtype="bfloat16")
    half = load_noisy_classifier(tmp_path / "half-c.safetensors")
    assert near(classifier.network, half.network, "bfloat16") and half.info.classes == classifier.info.classes


def test_plain_classifiers_and_gans_too(tmp_path):
    torch.manual_seed(0)
    settings = ClassifierSettings(widths=(8,), features=4, classes=2)
    plain = build_classifier(settings, ModelInfo(classes=("a", "b")))
    save_classifier(tmp_path / "plain.safetensors", plain)
    convert(tmp_path / "plain.safetensors", tmp_path / "half-plain.safetensors", dtype="float16")
    half = load_classifier(tmp_path / "half-plain.safetensors")
    assert near(plain.network, half.network, "float16") and half.classes == ("a", "b")
    gan = tiny_gan_model()
    save_gan(tmp_path / "gan.safetensors", gan)
    convert(tmp_path / "gan.safetensors", tmp_path / "half-gan.safetensors", dtype="float16")
    assert near(gan.network, load_gan(tmp_path / "half-gan.safetensors").network, "float16")


def test_numbers_too_large_for_float16_are_refused():
    network = torch.nn.Linear(2, 2)
    network.weight.data[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"weight holds 1e\+05, above 6\.55e\+04; store it in bfloat16"):
        round_weights(network, torch.float16)
    round_weights(network, torch.bfloat16)
    assert torch.equal(network.weight, network.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("options", "said"),
    [({"dtype": "int8"}, "--dtype int8"), ({"dtype": "float16", "to": "diffusers"}, "files of ours")],
)
def test_what_cannot_be_stored_is_refused(options, said, tmp_path):
    save_model(tmp_path / "model.safetensors", tiny_model())
    with pytest.raises(ValueError, match=said):
        convert(tmp_path / "model.safetensors", tmp_path / "out.safetensors", **options)

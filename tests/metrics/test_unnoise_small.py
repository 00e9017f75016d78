"""The features that ship with the package: whole, licensed, and able to tell good pictures from worse."""

import hashlib
import re
from importlib.resources import files

import numpy as np
import pytest
import torch

from tests.models import tiny_model
from unnoise.classifier import accuracy, build_classifier, load_classifier, save_classifier
from unnoise.config.schema import DataConfig
from unnoise.data import open_data
from unnoise.data.split import part
from unnoise.metrics.extractors import open_features
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.statistics import Gaussian, Moments
from unnoise.model import save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import ClassifierSettings

WEIGHTS = files("unnoise.metrics").joinpath("unnoise_small.safetensors")
CARD = files("unnoise.metrics").joinpath("unnoise_small.md")


@pytest.fixture(scope="module")
def network():
    return open_features("unnoise-small")


@pytest.fixture(scope="module")
def clothes():
    return open_data(DataConfig(source="fashion-mnist-10k"))


def test_the_card_is_of_these_weights(network):
    content = WEIGHTS.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    text = CARD.read_text(encoding="utf-8")
    assert len(content) <= 3e6
    assert network.weights_hash == digest and digest in text
    assert "MIT" in text and "OFL" in text and "unnoise train unnoise-small" in text
    assert float(re.search(r"28x28 grey \| ([\d.]+) %", text)[1]) >= 90


def test_clothes_are_named(clothes):
    """Training pictures; the card tells of the 10,000 test pictures."""
    model = load_classifier(str(WEIGHTS))
    assert model.classes[:1] == ("Ankle boot",) and len(model.classes) == 114
    chosen = clothes.take(np.arange(600))
    said = model.classify(chosen.pixels)
    right = [
        model.classes[k] == clothes.classes[t]
        for k, t in zip(said.tolist(), chosen.label.tolist(), strict=True)
    ]
    assert np.mean(right) > 0.87


def test_features_have_one_length_at_every_size(network):
    for side, channels in ((16, 1), (28, 1), (33, 3), (64, 3), (100, 3)):
        pixels = torch.randint(0, 256, (2, side, side, channels), dtype=torch.uint8)
        found = network(pixels)
        assert found.pool.shape == (2, 192) and found.spatial.shape == (2, 392)
        torch.testing.assert_close(found.probs.sum(1), torch.ones(2))
        assert all(torch.isfinite(t).all() for t in (found.pool, found.spatial))


def test_grey_is_rgb_of_equal_channels_and_colour_counts(network):
    pixels = torch.randint(0, 256, (2, 28, 28, 1), dtype=torch.uint8)
    torch.testing.assert_close(network(pixels).pool, network(pixels.expand(-1, -1, -1, 3)).pool)
    red = torch.zeros(1, 28, 28, 3, dtype=torch.uint8)
    red[..., 0] = 255
    assert not torch.allclose(network(red).pool, network(red.flip(3)).pool, atol=0.01)


def test_other_channels_are_refused(network):
    with pytest.raises(ValueError, match="2 channels"):
        network(torch.zeros(1, 28, 28, 2, dtype=torch.uint8))


def statistics(network, pixels) -> Gaussian:
    moments = Moments(192)
    for block in pixels.split(250):
        moments.update(network(block).pool)
    return moments.gaussian()


def test_the_distance_grows_with_the_damage(network, clothes):
    """Other real pictures are nearest; noise, blur, a turn, a missing class lead away, more of it further."""
    pixels = clothes.take(np.arange(1000)).pixels
    real, other = statistics(network, pixels[:500]), pixels[500:]
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))

    def noisy(level: float) -> torch.Tensor:
        return (other + level * noise).clamp(0, 255).to(torch.uint8)

    def distance(changed: torch.Tensor) -> float:
        return float(frechet_distance(real=real, fake=statistics(network, changed)))

    def blurred(reach: int) -> torch.Tensor:
        x = torch.nn.functional.avg_pool2d(other.permute(0, 3, 1, 2).float(), 2 * reach + 1, 1, reach)
        return x.permute(0, 2, 3, 1).to(torch.uint8)

    floor = distance(other)
    assert floor < distance(noisy(8)) < distance(noisy(40))
    assert floor < distance(blurred(1)) < distance(blurred(3))
    assert 2 * floor < distance(other.flip(1))
    fewer = other[torch.arange(len(other)) % 10 != 3]
    assert floor < distance(fewer)


def test_any_classifier_serves_by_its_path(tmp_path):
    torch.manual_seed(0)
    settings = ClassifierSettings(widths=(8, 12), features=10, classes=2)
    save_classifier(tmp_path / "model.safetensors", build_classifier(settings, ModelInfo(classes=("a", "b"))))
    for name in (str(tmp_path), str(tmp_path / "model.safetensors")):
        found = open_features(name)
        assert found.name == f"classifier-{found.weights_hash[:8]}"
        assert found(torch.zeros(2, 20, 20, 3, dtype=torch.uint8)).pool.shape == (2, 10)


def test_a_model_that_draws_is_no_feature_network(tmp_path):
    save_model(tmp_path / "model.safetensors", tiny_model())
    with pytest.raises(ValueError, match="is a diffusion model, not a classifier"):
        open_features(str(tmp_path))


def test_nine_of_ten_test_pictures():
    """2,500 of the 10,000 of which the card tells; 0.88 leaves four standard errors."""
    try:
        test = open_data(DataConfig(source="fashion-mnist:test"))
    except ValueError:
        pytest.skip("Fashion-MNIST is not on this machine")
    assert accuracy(load_classifier(str(WEIGHTS)), part(test, np.arange(2500))) > 0.88

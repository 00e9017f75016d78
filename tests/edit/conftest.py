"""What the tests of editing share: an exact model of Gaussian pixels, pictures, requests."""

import numpy as np
import pytest
import torch

from tests.analytic import Gaussian, Network
from tests.models import tiny_model
from unnoise.config.model import LatentConfig, ModelConfig, ScheduleConfig
from unnoise.config.requests import EditRequest, GenerateRequest
from unnoise.diffusion.denoiser import Denoiser
from unnoise.model import Model, make_schedule
from unnoise.networks.settings import UNetSettings

MEAN, STD = 0.1, 0.25
SIZE = 6


class Exact(Network):
    """Float32 all the way, as a network computes."""

    compute_dtype = None


def exact_of(channels=1, stage=None):
    """A model of pixels, or latents, N(MEAN, STD^2), each for itself: every result has a closed form."""
    config = ModelConfig(
        network=UNetSettings(in_channels=channels, out_channels=channels, classes=None),
        schedule=ScheduleConfig(steps=200),
        image_size=SIZE if stage is None else SIZE * stage.factor,
        channels=channels if stage is None else stage.config.network.in_channels,
        latent=None
        if stage is None
        else LatentConfig(channels=channels, factor=stage.factor, first_stage=""),
        variance="fixed_small",
    )
    schedule = make_schedule(config)
    data = Gaussian(torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD**2, dtype=torch.float64))
    denoiser = Denoiser(Exact(data, schedule), predicts="eps", variance="fixed_small")
    return Model(denoiser, schedule, config, first_stage=stage)


@pytest.fixture(scope="session")
def exact_model():
    """Grey pixels."""
    return exact_of()


@pytest.fixture(scope="session")
def model():
    """A tiny network that knows classes, with random weights."""
    return tiny_model()


def levels(seed=0, size=SIZE, channels=1):
    """A picture of noise about the middle, uint8 (size, size, channels)."""
    drawn = np.random.default_rng(seed).normal(127.5 * (MEAN + 1), 127.5 * STD, (size, size, channels))
    return drawn.clip(0, 255).astype(np.uint8)


def request(kind, /, **options):
    """An EditRequest; options that it does not have are those of its GenerateRequest."""
    own = {name: options.pop(name) for name in list(options) if name in EditRequest.__dataclass_fields__}
    drawn = {"precision": "float32", "clip": "none", "steps": "20", "n": 2} | options
    return EditRequest(kind=kind, generate=GenerateRequest(**drawn), **own)

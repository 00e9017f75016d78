"""Tiny models with random weights, for tests of what is around a model."""

from dataclasses import replace

import torch

from tests.goldens import recipe_state_dict
from unnoise.config.model import LatentConfig, ModelConfig, ScheduleConfig
from unnoise.config.schema import AutoencoderConfig, NoisyClassifierConfig
from unnoise.first_stage import make_first_stage
from unnoise.model import Model, build_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.first_stage_settings import KlSettings
from unnoise.networks.settings import EncoderUNetSettings, UNetSettings
from unnoise.noisy_classifier import NoisyClassifier, build_noisy_classifier

NAMES = ("T-shirt/top", "Trouser", "Sandal", "Sneaker", "Ankle boot")


def tiny_model(
    *, classes=NAMES, null=True, channels=1, size=8, width=32, seed=0, steps=100, predicts="x0", schedule=None
) -> Model:
    """A U-Net of two levels with attention; every weight is random, the output layer's too."""
    rows = len(classes) + null if classes else None
    network = UNetSettings(
        in_channels=channels, out_channels=2 * channels, width=width, depth=1, channel_mult=(1, 2),
        attention=(2,), heads=1, classes=rows,
    )  # fmt: skip
    config = ModelConfig(
        network=network,
        schedule=schedule or ScheduleConfig(steps=steps),
        image_size=size,
        channels=channels,
        predicts=predicts,
    )
    info = ModelInfo(classes=tuple(classes), null_label=len(classes) if classes and null else None)
    return _filled(build_model(config, info), seed)


def _filled(model: Model, seed: int) -> Model:
    shapes = {key: list(value.shape) for key, value in model.network.state_dict().items()}
    state = recipe_state_dict(shapes, seed, ["label_emb.weight"])
    state["out.2.weight"] *= 0.3  # pictures in the middle of the range, where every rounding error shows
    model.network.load_state_dict(state)
    model.network.eval().requires_grad_(False)
    return model


def tiny_classifier(
    *,
    classes=NAMES,
    channels=1,
    size=8,
    seed=5,
    steps=100,
    count=None,
    pool="attention",
    schedule=None,
    noised=True,
) -> NoisyClassifier:
    """A noisy classifier beside `tiny_model`, every weight random; with `count` the classes have no names."""
    network = EncoderUNetSettings(
        image_size=size, in_channels=channels, classes=count or len(classes), pool=pool, width=32, depth=1,
        channel_mult=(1, 2), attention=(2,), head_channels=16,
    )  # fmt: skip
    schedule = schedule or ScheduleConfig(steps=steps)
    config = NoisyClassifierConfig(network=network, schedule=schedule, noised=noised)
    model = build_noisy_classifier(config, ModelInfo(classes=() if count else tuple(classes)))
    shapes = {key: list(value.shape) for key, value in model.network.state_dict().items()}
    model.network.load_state_dict(recipe_state_dict(shapes, seed))
    model.network.eval().requires_grad_(False)
    return model


def tiny_upsampler(
    *, classes=NAMES, null=True, channels=1, size=8, low_res=4, noise=0.0, seed=1, steps=100
) -> Model:
    """The same kind of network, told a small picture; with `noise`, how noisy that is too."""
    base = tiny_model(classes=classes, null=null, channels=channels, size=size, steps=steps)
    network = replace(base.config.network, in_channels=2 * channels, concat_level=noise > 0)
    config = replace(base.config, network=network, low_res=low_res, low_res_noise=noise)
    return _filled(build_model(config, base.info), seed)


def tiny_latent_model(*, channels=3, size=16, seed=2, kind=KlSettings, **changes) -> Model:
    """A model of the latents of a first stage at a factor of 2, told no class; every weight is random."""
    settings = kind(in_channels=channels, width=32, depth=1, channel_mult=(1, 1), latent_channels=2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stage = make_first_stage(AutoencoderConfig(network=settings, image_size=size))
    stage.network.eval().requires_grad_(False)
    base = tiny_model(classes=(), null=False, channels=2, size=size // 2)
    latent = LatentConfig(channels=2, factor=2, first_stage=stage.hash)
    config = replace(base.config, latent=latent, channels=channels, image_size=size, **changes)
    return _filled(build_model(config, base.info, stage), seed)


def with_info(model: Model, **changes) -> Model:
    """The same weights described otherwise."""
    return replace(model, info=replace(model.info, **changes))

"""Tiny latent models that count as published, and their files as CompVis's code writes them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.goldens import recipe_state_dict
from unnoise.config.model import ModelConfig, ToldConfig
from unnoise.config.schema import TrainConfig
from unnoise.diffusion.schedule import make_betas
from unnoise.modelfile import layout
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.build import build_network
from unnoise.networks.conditioners import build_conditioner
from unnoise.networks.first_stage_settings import FirstStageSettings
from unnoise.presets import Preset, load, load_preset
from unnoise.presets.load import Expect
from unnoise.weights import compvis
from unnoise.weights.compvis import AVERAGE, ENCODER, FIRST_STAGE, NETWORK


def built(build: Any, settings: Any) -> nn.Module:
    """A network without memory."""
    with torch.device("meta"):
        return build(settings)


def stage_preset(settings: FirstStageSettings, size: int) -> Preset:
    """A preset, called `tiny`, of a first stage for pictures of this side."""
    like = load_preset("kl-f8")
    assert like.expect is not None and like.config.autoencoder is not None
    autoencoder = replace(like.config.autoencoder, network=settings, image_size=size)
    expect = replace(like.expect, layout=layout(built(build_first_stage, settings)))
    return replace(like, name="tiny", config=replace(like.config, autoencoder=autoencoder), expect=expect)


def latent_preset(
    name: str,
    model: ModelConfig,
    size: int,
    *,
    told: Mapping[str, int] | None = None,
    classes: int = 0,
    label_dropout: float = 0.0,
    scale: float | None = 1.0,
) -> Preset:
    """A preset of a published model that draws the latents of `stage_preset`.

    model: without what follows from the data; told: what it is told -> its channels or tokens.
    """
    expect = Expect(
        size=size, channels=3, classes=classes, parameters=0, layout="", first_stage="tiny", scale=scale,
        told=dict(told or {}),
    )  # fmt: skip
    config = TrainConfig(model=model, label_dropout=label_dropout)
    return Preset(name=name, summary="", source="", licence="MIT", config=config, expect=expect)


def publish(monkeypatch: pytest.MonkeyPatch, models: Iterable[Preset], stage: Preset) -> None:
    """Have these be all the published models, with this first stage."""
    monkeypatch.setattr(load, "load_preset", lambda name: {stage.name: stage}[name])
    known = {}
    for model in models:
        network = built(build_network, model.published().model.network)
        known[model.name] = replace(model, expect=replace(model.expect, layout=layout(network)))
    monkeypatch.setattr(compvis, "latent_presets", lambda: known)
    monkeypatch.setattr(compvis, "load_preset", lambda name: {stage.name: stage}[name])
    monkeypatch.setattr(compvis, "preset_names", lambda: [stage.name])


def stage_state(stage: Preset) -> dict[str, Tensor]:
    """Random weights of a first stage."""
    assert stage.config.autoencoder is not None
    return _random(built(build_first_stage, stage.config.autoencoder.network), 1)


def encoder_of(model: Preset) -> nn.Module | None:
    """What reads what a published model is told; None where it has no weights."""
    told: tuple[ToldConfig, ...] = model.published().model.told
    network = built(build_conditioner, told[0].encoder) if told else None
    return network if network is not None and list(network.parameters()) else None


def checkpoint(preset: Preset, stage: Preset) -> dict[str, Any]:
    """What Lightning writes for a model: random weights, an average of its own, a schedule, a loss."""
    model, reader = preset.published().model, encoder_of(preset)
    network, average = (_random(built(build_network, model.network), seed) for seed in (2, 3))
    encoder = _random(reader, 4) if reader else {}
    s = model.schedule
    state = {
        **{NETWORK + key: value for key, value in network.items()},
        **{AVERAGE + key.replace(".", ""): value for key, value in average.items()},
        **{FIRST_STAGE + key: value for key, value in stage_state(stage).items()},
        **{ENCODER + key: value for key, value in encoder.items()},
        FIRST_STAGE + "loss.logvar": torch.zeros(()),
        "model_ema.num_updates": torch.tensor(3),
        "betas": make_betas(s.name, s.steps, start=s.beta_start, end=s.beta_end).float(),
    }
    if preset.expect.scale is None:
        state["scale_factor"] = torch.tensor(0.7)
    return {"epoch": 3, "global_step": 500, "state_dict": state}


def saved(path: Path, content: Mapping[str, Any]) -> Path:
    torch.save(dict(content), path)
    return path


def _random(network: nn.Module, seed: int) -> dict[str, Tensor]:
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    return recipe_state_dict(shapes, seed)

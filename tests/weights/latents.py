"""Tiny latent models that count as published, and their files as CompVis's code writes them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.goldens import recipe_state_dict
from unnoise.diffusion.schedule import make_betas
from unnoise.modelfile import layout
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.build import build_network
from unnoise.networks.conditioners import build_conditioner
from unnoise.networks.first_stage_settings import FirstStageSettings
from unnoise.presets import Preset, load_preset
from unnoise.weights import compvis
from unnoise.weights.compvis import AVERAGE, ENCODER, FIRST_STAGE, NETWORK
from unnoise.weights.latent_models import LatentModel


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


def publish(monkeypatch: pytest.MonkeyPatch, models: Iterable[LatentModel], stage: Preset) -> None:
    """Have these be all the published models, with this first stage."""
    known = {
        model.name: replace(model, layout=layout(built(build_network, model.network)), first_stage=stage.name)
        for model in models
    }
    monkeypatch.setattr(compvis, "latent_models", lambda: known)
    monkeypatch.setattr(compvis, "load_preset", lambda name: {stage.name: stage}[name])
    monkeypatch.setattr(compvis, "preset_names", lambda: [stage.name])


def stage_state(stage: Preset) -> dict[str, Tensor]:
    """Random weights of a first stage."""
    assert stage.config.autoencoder is not None
    return _random(built(build_first_stage, stage.config.autoencoder.network), 1)


def checkpoint(model: LatentModel, stage: Preset) -> dict[str, Any]:
    """What Lightning writes for a model: random weights, an average of its own, a schedule, a loss."""
    network, average = (_random(built(build_network, model.network), seed) for seed in (2, 3))
    encoder = _random(built(build_conditioner, model.encoder), 4) if model.encoder else {}
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
    if model.scale is None:
        state["scale_factor"] = torch.tensor(0.7)
    return {"epoch": 3, "global_step": 500, "state_dict": state}


def saved(path: Path, content: Mapping[str, Any]) -> Path:
    torch.save(dict(content), path)
    return path


def _random(network: nn.Module, seed: int) -> dict[str, Tensor]:
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    return recipe_state_dict(shapes, seed)

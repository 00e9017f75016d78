"""Makes models and first stages of ours of CompVis's checkpoints (see `compvis`)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise.config.model import LatentConfig
from unnoise.first_stage import FirstStage
from unnoise.model import Model, build_model
from unnoise.modelfile import ModelInfo, put_weights
from unnoise.networks.autoencoder import build_first_stage
from unnoise.weights.compvis import (
    LatentCheckpoint,
    is_compvis,
    is_first_stage,
    recognise,
    recognise_first_stage,
    split,
    without_losses,
)


def is_known(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the keys of something that `read` makes."""
    return is_compvis(state) or is_first_stage(state)


def read(state: Mapping[str, Tensor], path: Path, *, name: str = "") -> Model | FirstStage:
    """The latent model, or the first stage alone, of a checkpoint's tensors, ready to use.

    name: of the published one, where it should be no other; "" recognises it.
    """
    if is_compvis(state):
        return model_of(recognise(split(state, path), path, name=name), path)
    weights = without_losses(state)
    preset = recognise_first_stage(weights, path, name=name)
    assert preset.config.autoencoder is not None, "it is of a first stage"
    with torch.device("meta"):
        network = build_first_stage(preset.config.autoencoder.network)
    put_weights(network, weights, path)
    return FirstStage(
        network, preset.config.autoencoder, ModelInfo(preset=preset.name, licence=preset.licence)
    )


def model_of(found: LatentCheckpoint, path: Path) -> Model:
    """A model with its first stage, of a checkpoint that was recognised."""
    stage = _first_stage(found, path)
    latent = LatentConfig(channels=stage.channels, factor=stage.factor, first_stage=stage.hash)
    config = replace(found.config, latent=latent)
    info = ModelInfo(preset=found.name, licence=found.licence, null_label=found.null_label)
    with torch.device("meta"):
        model = build_model(config, info, stage)
    weights = found.network_state
    if config.told:
        weights = {f"network.{key}": value for key, value in weights.items()}
        weights |= {f"encoders.0.{key}": value for key, value in found.encoder_state.items()}
    put_weights(model.network, weights, path)
    return model


def _first_stage(found: LatentCheckpoint, path: Path) -> FirstStage:
    with torch.device("meta"):
        network = build_first_stage(found.first_stage)
    put_weights(network, found.first_stage_state, path)
    info = ModelInfo(preset=found.first_stage_name, licence=found.licence)
    return FirstStage(network, found.autoencoder, info, scale=(found.scale,))

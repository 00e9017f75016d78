"""Makes models and first stages of ours of CompVis's checkpoints (see `compvis`)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unnoise.config.model import LatentConfig, ModelConfig, ToldConfig
from unnoise.first_stage import FirstStage
from unnoise.model import Model, build_model
from unnoise.modelfile import ModelInfo, put_weights
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.conditioner_settings import (
    ClassEmbedderSettings,
    ConditionerSettings,
    SpatialRescalerSettings,
)
from unnoise.weights.compvis import (
    LatentCheckpoint,
    is_compvis,
    is_first_stage,
    recognise,
    recognise_first_stage,
    split,
    without_losses,
)

NOT_TOLD = 0.1
"""Share of pictures that guided models were not told their condition; what theirs was is not published."""


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
    told = _told(found)
    null_label = None
    if found.guided and isinstance(found.encoder, ClassEmbedderSettings) and found.encoder.classes:
        null_label = found.encoder.classes - 1
    config = ModelConfig(
        network=found.network,
        schedule=found.schedule,
        predicts="eps",
        variance="fixed_small",
        image_size=found.autoencoder.image_size,
        channels=found.first_stage.in_channels,
        latent=LatentConfig(channels=stage.channels, factor=stage.factor, first_stage=stage.hash),
        told=told,
    )
    info = ModelInfo(preset=found.name, licence=found.licence, null_label=null_label)
    with torch.device("meta"):
        model = build_model(config, info, stage)
    weights = found.network_state
    if told:
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


def _told(found: LatentCheckpoint) -> tuple[ToldConfig, ...]:
    """What the model is told; what no encoder was trained for lies beside x as it is."""
    if found.told is None:
        return ()
    encoder: ConditionerSettings | None = found.encoder
    if encoder is None:
        inputs, outputs = found.network.in_channels, found.network.out_channels
        assert inputs and outputs, "settings are complete"
        encoder = SpatialRescalerSettings(in_channels=inputs - outputs, out_channels=None, stages=0)
    told = ToldConfig(
        what=found.told,
        encoder=encoder,
        dropout=NOT_TOLD if found.guided else 0.0,
        degradation="worn",
        hole="black",
    )
    return (told,)

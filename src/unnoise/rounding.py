"""Models of half the size: weights rounded to what float16 or bfloat16 holds, and stored as that."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from unnoise.classifier import ClassifierModel, save_classifier
from unnoise.first_stage import FirstStage, save_first_stage
from unnoise.gan import GanModel, save_gan
from unnoise.model import Model, save_model
from unnoise.noisy_classifier import NoisyClassifier, save_noisy_classifier

Stored = Model | FirstStage | NoisyClassifier | ClassifierModel | GanModel
"""What a file of ours can hold."""

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""What weights can be stored in besides float32; float16 rounds eight times as finely, up to 65,504."""


def round_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Round weights and buffers in place to values that `dtype` holds, their own type staying as it is.

    ValueError when a number is too large for it.
    """
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        near = value.to(dtype)
        if not torch.equal(near.isfinite(), value.isfinite()):
            limit = torch.finfo(dtype).max
            raise ValueError(
                f"{name} holds {value.abs().max():.3g}, above {limit:.3g}; store it in bfloat16 or float32"
            )
        value.copy_(near)


def rounded(model: Model, dtype: torch.dtype) -> Model:
    """A model whose weights, those of its first stage too, were rounded in place.

    The first stage is then another one, with other latents by a hair: the model is of those.
    """
    round_weights(model.network, dtype)
    latent = model.config.latent
    if model.first_stage is None or latent is None:
        return model
    round_weights(model.first_stage.network, dtype)
    stage = replace(model.first_stage)  # whose hash was not asked yet
    config = replace(model.config, latent=replace(latent, first_stage=stage.hash))
    return Model(model.denoiser, model.schedule, config, model.info, stage)


def store(path: Path | str, found: Stored, dtype: torch.dtype | None = None) -> None:
    """Write what a file of ours can hold, its weights rounded in place to `dtype` first; None keeps them."""
    if isinstance(found, Model):
        save_model(path, found if dtype is None else rounded(found, dtype), dtype=dtype)
        return
    if dtype is not None:
        round_weights(found.network, dtype)
    if isinstance(found, FirstStage):
        save_first_stage(path, found, dtype=dtype)
    elif isinstance(found, NoisyClassifier):
        save_noisy_classifier(path, found, dtype=dtype)
    elif isinstance(found, ClassifierModel):
        save_classifier(path, found, dtype=dtype)
    else:
        save_gan(path, found, dtype=dtype)

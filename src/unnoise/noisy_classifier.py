"""A classifier of noisy pictures: its network, schedule and class names, in memory and as one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise.config.load import FORMAT, from_dict, to_dict
from unnoise.config.schema import NoisyClassifierConfig
from unnoise.diffusion.schedule import NoiseSchedule
from unnoise.model import make_schedule
from unnoise.modelfile import (
    METADATA_KEY,
    ModelInfo,
    find_model,
    kind_of,
    put_weights,
    read_header,
    read_weights,
)
from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.tensorfile import write_tensors

KIND = "noisy_classifier"
"""What the header of the file says that it holds."""


@dataclass(frozen=True, eq=False)
class NoisyClassifier:
    """A network that sees x_t and t, with the schedule that says how noisy x_t is."""

    network: EncoderUNet
    schedule: NoiseSchedule
    config: NoisyClassifierConfig
    info: ModelInfo = field(default_factory=ModelInfo)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty when the classes have numbers only."""
        return self.info.classes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> "NoisyClassifier":
        """The same classifier on another device (its network is moved, not copied)."""
        self.network.to(device)
        return self


def build_noisy_classifier(config: NoisyClassifierConfig, info: ModelInfo | None = None) -> NoisyClassifier:
    """A classifier with fresh weights, drawn by torch's generator, from complete settings."""
    info = info or ModelInfo()
    if info.classes and config.network.classes != len(info.classes):
        raise ValueError(
            f"noisy_classifier.network.classes={config.network.classes} does not fit {len(info.classes)} "
            "class names"
        )
    return NoisyClassifier(EncoderUNet(config.network), make_schedule(config), config, info)


def save_noisy_classifier(
    path: Path | str,
    model: NoisyClassifier,
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one safetensors file, atomically. `weights` (such as an average) replaces the network's own.

    Weights are stored as `dtype`, None keeping their type; round them first (see rounding).
    """
    from unnoise import __version__

    info = replace(model.info, version=model.info.version or __version__)
    header = {"format": FORMAT, "kind": KIND, KIND: to_dict(model.config), "info": to_dict(info)}
    state = model.network.state_dict() if weights is None else weights
    write_tensors(Path(path), state, {METADATA_KEY: json.dumps(header)}, dtype=dtype)


def load_noisy_classifier(
    path: Path | str, device: str | torch.device = "cpu", *, preset: str = ""
) -> NoisyClassifier:
    """The classifier of a file of ours, of a run directory, or of a published file (see weights.published).

    ValueError when the file holds something else.
    """
    from unnoise.first_stage import FirstStage
    from unnoise.weights import published
    from unnoise.weights.torchfile import is_torch_file

    path = find_model(Path(path))
    if is_torch_file(path):
        found = published.load(path, preset=preset)
        if not isinstance(found, NoisyClassifier):
            kind = "first stage" if isinstance(found, FirstStage) else "diffusion model"
            raise ValueError(f"{path} is a {kind}, not a classifier of noisy pictures; name one")
        return found.to(device)
    published.refuse_preset(path, preset)
    header = read_header(path)
    if header.get("kind") != KIND:
        raise ValueError(
            f"{path} is {kind_of(header)}, not a classifier of noisy pictures (noisy_classifier); train one "
            "with a preset of classifiers, such as noisy-classifier-28"
        )
    config = from_dict(NoisyClassifierConfig, header.get(KIND, {}), where=str(path))
    info = from_dict(ModelInfo, header.get("info", {}), where=str(path))
    with torch.device("meta"):
        model = build_noisy_classifier(config, info)
    put_weights(model.network, read_weights(path), path)
    return model.to(device)

"""The published latent diffusion models, from the YAML beside this file."""

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

from unnoise.config.kinds import ByKind
from unnoise.config.load import from_dict, parse_yaml
from unnoise.config.model import ScheduleConfig, Told
from unnoise.networks.conditioner_settings import ConditionerSettings
from unnoise.networks.settings import UNetSettings

SOURCE = "github.com/CompVis/latent-diffusion (arXiv 2112.10752)"


@dataclass(frozen=True, kw_only=True)
class LatentModel:
    """What a published model is made of; all predict eps with the posterior's variance."""

    name: str
    summary: str
    licence: str
    weights: str
    """Where the published file is."""
    parameters: int
    """Of the U-Net."""
    layout: str
    """First 16 hex digits of the SHA-256 of the sorted "key shape" lines of the U-Net's state dict."""
    network: UNetSettings
    first_stage: str
    """Name of the preset."""
    schedule: ScheduleConfig
    scale: float | None = 1.0
    """Factor of the latents; None where it is in the file."""
    told: Told | None = None
    """What the model is told besides x and t."""
    guided: bool = False
    """It also learned to draw without being told, as classifier-free guidance needs; of classes the last
    then stands for "no class"."""
    encoder: Annotated[ConditionerSettings, ByKind()] | None = None
    """Of it; None where nothing is trained for it: it lies beside x as it is, or is encoded elsewhere."""


@functools.cache
def latent_models() -> dict[str, LatentModel]:
    """All of them by name."""
    file = resources.files("unnoise.weights") / "latent_models.yaml"
    entries = parse_yaml(file.read_text(encoding="utf-8"), where=file.name)
    return {
        name: from_dict(LatentModel, {"name": name} | entry, where=f"latent model {name}")
        for name, entry in entries.items()
    }

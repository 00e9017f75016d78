"""Reads the YAML families beside this file into typed presets."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from unnoise.config.load import Assignment, from_dict, nearest, override, parse_yaml
from unnoise.config.model import LatentConfig
from unnoise.config.resolve import resolve
from unnoise.config.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What a preset's network must turn out to be on its own data; checked without allocating it."""

    size: int
    """Side in pixels of the pictures that the published model was trained on."""
    channels: int
    classes: int
    """0 for unlabelled pictures."""
    parameters: int
    layout: str
    """First 16 hex digits of the SHA-256 of the sorted "key shape" lines of its state dict."""
    first_stage: str = ""
    """Preset whose latents it draws, the numbers here then being of its U-Net alone; "" for pictures."""
    scale: float | None = 1.0
    """Factor of those latents; None where it is in the published file."""
    told: dict[str, int] = field(default_factory=dict)
    """What it is told -> its channels, or how many different tokens or classes there are."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe with its origin."""

    name: str
    summary: str
    source: str
    """The paper or repository that it repeats."""
    licence: str
    config: TrainConfig
    weights: str = ""
    """Where its published weights are; "" when there are none."""
    files: tuple[str, ...] = ()
    """How the names of its weights' files end; empty where the address of the weights ends in the name."""
    expect: Expect | None = None

    def is_name_of(self, file: Path) -> bool:
        """Whether a file is called as its weights are, or as the preset."""
        if self.files and file.name.endswith(self.files):
            return True
        return file.name == self.weights.rpartition("/")[2] or file.stem == self.name

    def published(self) -> TrainConfig:
        """The complete settings, on the data that `expect` describes."""
        if self.expect is None:
            raise ValueError(f"preset {self.name} does not say what data it is for; train it on your own")
        expect, config = self.expect, self.config
        if expect.first_stage:
            stage = load_preset(expect.first_stage).config.autoencoder
            assert stage is not None, "it names a first stage"
            network = stage.network
            latent = LatentConfig(
                channels=network.latent_channels, factor=network.size_factor, first_stage=""
            )
            config = replace(config, model=replace(config.model, latent=latent))
        return resolve(
            config, size=expect.size, channels=expect.channels, classes=expect.classes, told=expect.told
        )


@functools.cache
def _entries() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for file in sorted(resources.files("unnoise.presets").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            family = parse_yaml(file.read_text(encoding="utf-8"), where=file.name)
            entries.update(family)
    return entries


def preset_names() -> list[str]:
    """Names of all presets."""
    return list(_entries())


def preset_summaries() -> dict[str, str]:
    """One line about each preset."""
    return {name: entry["summary"] for name, entry in _entries().items()}


def latent_presets() -> dict[str, Preset]:
    """The published models of latents, by name."""
    names = [name for name, entry in _entries().items() if "first_stage" in entry.get("expect", {})]
    return {name: load_preset(name) for name in names}


def load_preset(name: str, assignments: Iterable[Assignment] = ()) -> Preset:
    """A preset by name, with "a.b=c" overrides of its training settings."""
    entries = _entries()
    if name not in entries:
        raise ValueError(f"unknown preset {name}{nearest(name, entries)} (there are: {', '.join(entries)})")
    entry = dict(entries[name])
    config = override(entry.pop("train"), assignments, TrainConfig) | {"preset": name}
    return from_dict(Preset, {"name": name, "config": config} | entry, where=f"preset {name}")

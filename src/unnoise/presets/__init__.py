"""Named recipes: a network, a schedule and how to train it, one YAML file a family."""

from unnoise.presets.load import Preset, latent_presets, load_preset, preset_names

__all__ = ["Preset", "latent_presets", "load_preset", "preset_names"]

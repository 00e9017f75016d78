"""unnoise: train, sample, edit with and measure image diffusion models.

Public names are imported on first use, so that `import unnoise` and `unnoise --help` stay instant.
"""

from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": ("unnoise.drawing", "load"),
    "Model": ("unnoise.model", "Model"),
    "GanModel": ("unnoise.gan", "GanModel"),
    "ModelInfo": ("unnoise.modelfile", "ModelInfo"),
    "build_model": ("unnoise.model", "build_model"),
    "save_model": ("unnoise.model", "save_model"),
    "GenerateRequest": ("unnoise.config.requests", "GenerateRequest"),
    "EditRequest": ("unnoise.config.requests", "EditRequest"),
    "TrainConfig": ("unnoise.config.schema", "TrainConfig"),
    "ModelConfig": ("unnoise.config.schema", "ModelConfig"),
    "DataConfig": ("unnoise.config.schema", "DataConfig"),
    "UNetSettings": ("unnoise.networks.settings", "UNetSettings"),
    "load_preset": ("unnoise.presets", "load_preset"),
    "preset_names": ("unnoise.presets", "preset_names"),
    "open_data": ("unnoise.data", "open_data"),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unnoise' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)

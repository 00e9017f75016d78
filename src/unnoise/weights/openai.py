"""Reads the .pt files of OpenAI's improved-diffusion and guided-diffusion: plain state dicts, nothing else.

Which network a file is for follows from its keys and shapes, compared with the presets; what shapes cannot
show (the order of attention heads, the schedule) from the file's name, or from the preset that is named.
"""

import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import read_config
from unnoise.config.resolve import resolve
from unnoise.config.schema import TrainConfig
from unnoise.model import Model, ModelInfo, build_model, layout_of, put_weights
from unnoise.noisy_classifier import NoisyClassifier, build_noisy_classifier
from unnoise.presets import Preset, load_preset, preset_names

LAST_BIAS = {"attention": "out.2.c_proj.bias", "adaptive": "out.3.bias", "spatial": "out.2.bias"}
"""Pool of a noisy classifier -> the parameter with one entry a class (spatial_v2: as adaptive)."""


class Ambiguous(ValueError):
    """Several networks have a file's shapes, and its name does not say which it is for."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"{path} may be any of {', '.join(names)}: their weights have the same shapes and mean different "
            "things; say which with --preset"
        )


def is_torch_file(path: Path) -> bool:
    """Whether a file is torch's (a zip archive or a pickle), or calls itself so."""
    if path.suffix in (".pt", ".pth"):
        return True
    with open(path, "rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def refuse_preset(path: Path, preset: str) -> None:
    """A file of ours says itself what it is."""
    if preset:
        raise ValueError(f"{path} says itself what it is; leave --preset={preset} out")


def load(path: Path, *, preset: str = "") -> Model | NoisyClassifier:
    """The model or the noisy classifier of a .pt file, on the CPU, ready to use.

    preset: name of a preset, or path of a YAML file, that says what the network is; "" recognises it. The
    weights stay in the file until they are read (memory-mapped): keep it as it is meanwhile. ValueError for a
    file that is damaged, holds code or other than tensors, or that no preset fits.
    """
    state = read_state(path)
    config, info = _chosen(state, path, preset) if preset else recognise(state, path)
    with torch.device("meta"):
        if config.noisy_classifier is not None:
            model: Any = build_noisy_classifier(config.noisy_classifier, info)
        else:
            model = build_model(config.model, info)
    put_weights(model.network, state, path)
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pt file by key, memory-mapped where its format allows; nothing inside is run."""
    archive = zipfile.is_zipfile(path)
    if not archive and _starts_like_zip(path):
        raise ValueError(f"{path} is cut short or damaged; download or copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, which the reader below judges itself
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive or None)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} {_why_unread(str(error))}") from None
    except Exception:  # damage shows in many ways: every one is the same to the user
        raise ValueError(f"{path} is cut short or damaged; download or copy it again") from None
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} holds no weights; name a file of OpenAI's, or one that unnoise wrote")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(
                f"{path} holds more than weights ({str(key)[:60]!r}); name a file of plain weights, such as "
                "ema_0.9999_500000.pt or 256x256_diffusion.pt"
            )
    return state


def _starts_like_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _why_unread(message: str) -> str:
    """torch's refusal in one line."""
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"global ([\w.]+)", message)
    if found:
        name = found[1].rstrip(".")
        return f"holds code besides weights ({name}); it was refused and nothing in it was run"
    return (
        "is damaged or holds more than weights, so it was refused and nothing in it was run; "
        "download or copy it again"
    )


def recognise(state: Mapping[str, Tensor], path: Path) -> tuple[TrainConfig, ModelInfo]:
    """The settings of the preset whose network has these keys and shapes; among several the name decides."""
    wanted = layout_of(state)
    fitting = [p for p in map(load_preset, preset_names()) if p.expect and p.expect.layout == wanted]
    if not fitting:
        raise ValueError(
            f"{path}: its {len(state)} weights fit no published model; name a preset, or a YAML file with "
            "its settings, with --preset (see `unnoise presets`)"
        )
    named = [p for p in fitting if p.is_name_of(path)]
    if named or len(fitting) == 1:
        return _published((named or fitting)[0])
    config, info = _published(fitting[0])
    if any(_function(p) != _function(fitting[0]) for p in fitting[1:]):
        raise Ambiguous(path, [p.name for p in fitting])
    return config, replace(info, preset="")  # they compute the same; which one it is stays open


def _published(preset: Preset) -> tuple[TrainConfig, ModelInfo]:
    return preset.published(), ModelInfo(preset=preset.name, licence=preset.licence)


def _function(preset: Preset) -> tuple[Any, Any]:
    """What a preset's network computes when it is not trained."""
    config = preset.published()
    network = replace(config.model.network, dropout=0.0, checkpoint=False)
    return replace(config.model, network=network), config.noisy_classifier


def _chosen(state: Mapping[str, Tensor], path: Path, name: str) -> tuple[TrainConfig, ModelInfo]:
    """The named preset or YAML file, completed by what the shapes show."""
    if name.endswith((".yaml", ".yml")):
        config, info = read_config(TrainConfig, Path(name)), ModelInfo()
    else:
        preset = load_preset(name)
        config, info = preset.config, ModelInfo(preset=name, licence=preset.licence)
    size, channels, classes = None, None, None
    with contextlib.suppress(KeyError):
        if config.noisy_classifier is not None:
            network = config.noisy_classifier.network
            size, channels = network.image_size, state["input_blocks.0.0.weight"].shape[1]
            classes = len(state[LAST_BIAS.get(network.pool, LAST_BIAS["adaptive"])])
        else:
            model = config.model
            per_channel = model.network.patch**2 * (1 + (model.variance in ("learned", "learned_range")))
            size, channels = model.image_size, len(state["out.2.bias"]) // per_channel
            label = state.get("label_emb.weight")
            classes = 0 if label is None else len(label) - (config.label_dropout > 0)
    if channels is None or classes is None:
        raise ValueError(f"{path} holds no network as {name} describes; name another with --preset")
    if size is None:
        raise ValueError(f"--preset {name}: image_size is not set; set it in the file")
    if config.label_dropout > 0 and classes:
        info = replace(info, null_label=classes)
    return resolve(config, size=size, channels=channels, classes=classes), info

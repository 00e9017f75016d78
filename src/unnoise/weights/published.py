"""Reads published files, from DDPM to latent diffusion: weights that say nothing of their network.

Which network a file is for follows from its keys and shapes, compared with the presets; what shapes cannot
show (the order of attention heads, the schedule) from the file's name, or from the preset that is named.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import read_config
from unnoise.config.resolve import resolve
from unnoise.config.schema import TrainConfig
from unnoise.first_stage import FirstStage
from unnoise.model import Model, build_model
from unnoise.modelfile import ModelInfo, layout_of, put_weights
from unnoise.networks.settings import UNetSettings
from unnoise.noisy_classifier import NoisyClassifier, build_noisy_classifier
from unnoise.presets import Preset, load_preset, preset_names
from unnoise.weights import compvis_models
from unnoise.weights.torchfile import read_state

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


def refuse_preset(path: Path, preset: str) -> None:
    """A file of ours says itself what it is."""
    if preset:
        raise ValueError(f"{path} says itself what it is; leave --preset={preset} out")


def load(path: Path, *, preset: str = "") -> Model | NoisyClassifier | FirstStage:
    """What a .pt or .ckpt file holds: a model, a noisy classifier, a first stage; on the CPU, ready to use.

    preset: name of a preset, or path of a YAML file, that says what the network is; "" recognises it. The
    weights stay in the file until they are read (memory-mapped): keep it as it is meanwhile. ValueError for a
    file that is damaged, holds code or other than tensors, or that no preset fits.
    """
    state = read_state(path)
    if compvis_models.is_known(state):
        return compvis_models.read(state, path, name=preset)
    config, info = _chosen(state, path, preset) if preset else recognise(state, path)
    with torch.device("meta"):
        if config.noisy_classifier is not None:
            model: Any = build_noisy_classifier(config.noisy_classifier, info)
        else:
            model = build_model(config.model, info)
    put_weights(model.network, state, path)
    return model


def doubt_about(state: Mapping[str, Tensor], path: Path) -> Ambiguous | None:
    """The doubt about what a file is for, where there is any. ValueError when no preset fits."""
    if compvis_models.is_known(state):
        return None  # those of one layout compute the same
    try:
        recognise(state, path)
    except Ambiguous as doubt:
        return doubt
    return None


def recognise(state: Mapping[str, Tensor], path: Path) -> tuple[TrainConfig, ModelInfo]:
    """The settings of the preset whose network has these keys and shapes; among several the name decides."""
    wanted = layout_of(state)
    fitting = [
        p
        for p in map(load_preset, preset_names())
        if p.expect and p.expect.layout == wanted and p.config.kind != "autoencoder"
        if not p.expect.first_stage  # their files have it, and are read by `compvis_models`
    ]
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
        if preset.expect is not None and preset.expect.first_stage:
            raise ValueError(
                f"{path} is no checkpoint of latent-diffusion, as --preset {name} says; name one with its "
                "U-Net, first stage and encoder, or another preset"
            )
        config, info = preset.config, ModelInfo(preset=name, licence=preset.licence)
    size, channels, classes = None, None, None
    with contextlib.suppress(KeyError):
        if config.noisy_classifier is not None:
            network = config.noisy_classifier.network
            size, channels = network.image_size, state["input_blocks.0.0.weight"].shape[1]
            classes = len(state[LAST_BIAS.get(network.pool, LAST_BIAS["adaptive"])])
        else:
            model = config.model
            patch = model.network.patch if isinstance(model.network, UNetSettings) else 1
            per_channel = patch**2 * (1 + (model.variance in ("learned", "learned_range")))
            size, channels = model.image_size, len(_last_bias(state)) // per_channel
            label = state.get("label_emb.weight")
            classes = 0 if label is None else len(label) - (config.label_dropout > 0)
    if channels is None or classes is None:
        raise ValueError(f"{path} holds no network as {name} describes; name another with --preset")
    if size is None:
        raise ValueError(f"--preset {name}: image_size is not set; set it in the file")
    if config.label_dropout > 0 and classes:
        info = replace(info, null_label=classes)
    return resolve(config, size=size, channels=channels, classes=classes), info


def _last_bias(state: Mapping[str, Tensor]) -> Tensor:
    """Of a U-Net's last convolution: one entry an output channel. KeyError where there is none."""
    return state["out.2.bias"] if "out.2.bias" in state else state["conv_out.bias"]

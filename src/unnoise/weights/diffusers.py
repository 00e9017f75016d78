"""Reads and writes models in diffusers' layout: a folder with the network, its scheduler and an index.

FOLDER/unet/config.json, FOLDER/unet/diffusion_pytorch_model.safetensors, FOLDER/scheduler/
scheduler_config.json, FOLDER/model_index.json; read is also a folder of the network alone, with
scheduler_config.json beside its config.json.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import from_dict, to_dict
from unnoise.model import Model, build_model
from unnoise.modelfile import put_weights, read_weights
from unnoise.tensorfile import write_tensors
from unnoise.weights.diffusers_config import (
    Scheduler,
    UNet2D,
    model_config,
    scheduler_options,
    unet_options,
)
from unnoise.weights.diffusers_keys import from_diffusers, to_diffusers
from unnoise.weights.torchfile import read_state

WEIGHTS = "diffusion_pytorch_model"
"""How the files of weights are called, before their endings."""
ENDINGS = (".safetensors", ".bin", ".fp16.safetensors", ".fp16.bin")
"""In the order of preference."""
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
DRAWING = {
    "clip_sample", "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value", "set_alpha_to_one",
    "skip_prk_steps", "steps_offset", "thresholding", "timestep_spacing",
}  # fmt: skip
"""Options of schedulers that say how to draw, which here a request says."""
VERSION = "0.30.0"
"""Of diffusers, whose options are written."""


def is_folder(path: Path) -> bool:
    """Whether a folder is one of diffusers'."""
    return any((path / name).is_file() for name in ("model_index.json", "unet/config.json", "config.json"))


def is_weights(path: Path) -> bool:
    """Whether a file holds the weights of a network that a config.json beside it describes."""
    return path.name.startswith(f"{WEIGHTS}.") and (path.parent / "config.json").is_file()


def find_weights(folder: Path) -> Path:
    """The file of the network's weights in a folder of diffusers'; ValueError when there is none."""
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    _read_json(unet / "config.json")
    for ending in ENDINGS:
        if (unet / (WEIGHTS + ending)).is_file():
            return unet / (WEIGHTS + ending)
    if list(unet.glob(f"{WEIGHTS}*.index.json")):
        raise ValueError(f"{unet} holds weights in several files; save them as one with diffusers")
    raise ValueError(f"{unet} holds no {WEIGHTS}.safetensors; copy the whole folder")


def load(path: Path) -> Model:
    """The model of a file that `find_weights` found, on the CPU, ready to draw."""
    unet = path.parent / "config.json"
    scheduler = path.parent / "scheduler_config.json"
    if not scheduler.is_file():
        scheduler = path.parent.parent / "scheduler" / "scheduler_config.json"
    config = model_config(
        from_dict(UNet2D, _options(unet, ("UNet2DModel",)), where=str(unet)),
        _scheduler(scheduler),
        str(unet),
    )
    state = read_weights(path) if path.suffix == ".safetensors" else read_state(path)
    state = from_diffusers({key: value.float() for key, value in state.items()}, config.network, path)
    with torch.device("meta"):
        model = build_model(config)
    put_weights(model.network, state, path)
    return model


def save(folder: Path, model: Model) -> None:
    """Write a model in diffusers' layout; ValueError, nothing written, when UNet2DModel cannot express it."""
    if model.config.latent is not None or model.config.told:
        raise ValueError(
            "diffusers' UNet2DModel draws pixels and is told a class at most; convert this model to one file "
            "of ours"
        )
    scheduler = scheduler_options(model.config)
    unet = unet_options(model.config.network, model.config.image_size)
    state = to_diffusers(model.network.state_dict(), model.config.network)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        _write(aside, unet, scheduler, state)
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(folder: Path, unet: UNet2D, scheduler: Scheduler, state: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True)
    index = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    for name, kind, options in (
        ("model_index.json", "DDPMPipeline", index),
        ("unet/config.json", "UNet2DModel", to_dict(unet)),
        ("scheduler/scheduler_config.json", "DDPMScheduler", {**to_dict(scheduler), "clip_sample": True}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        content = {"_class_name": kind, "_diffusers_version": VERSION, **options}
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_tensors(folder / "unet" / f"{WEIGHTS}.safetensors", state, {"format": "pt"})


def _scheduler(path: Path) -> Scheduler:
    if not path.is_file():
        raise ValueError(f"{path} is missing: it says what noise the model was trained on; copy it too")
    options = _options(path, SCHEDULERS)
    return from_dict(Scheduler, {k: v for k, v in options.items() if k not in DRAWING}, where=str(path))


def _options(path: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """The options in a file of settings, of one of the classes."""
    options = _read_json(path)
    kind = options.get("_class_name")
    if kind not in classes:
        raise ValueError(f"{path} describes a {kind}; only {', '.join(classes)} can be read")
    return {key: value for key, value in options.items() if not key.startswith("_")}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy the whole folder")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} cannot be read as JSON; copy it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no settings; copy it again")
    return found

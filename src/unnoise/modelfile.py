"""A model file: what it says of itself, reading it and writing it; every kind of model of ours has it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unnoise.config.load import check_format
from unnoise.tensorfile import flushed_aside

METADATA_KEY = "unnoise"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model file says about itself besides its architecture."""

    classes: tuple[str, ...] = ()
    null_label: int | None = None
    """The class index that stands for "no class"."""
    step: int = 0
    """Optimiser steps behind these weights."""
    ema_rate: float | None = None
    """None for weights that are no average."""
    preset: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """Summary of the training data: source, pictures, classes, fingerprint."""
    vocabulary: tuple[str, ...] = ()
    """Pieces of the words that it is told (see `text.Tokenizer`)."""
    text_encoder: str = ""
    """Hash of the frozen text encoder whose features it is told."""
    box_classes: tuple[str, ...] = ()
    """Names of the classes of the boxes that it is told."""
    scores: dict[str, float] = field(default_factory=dict)
    """What was measured of these weights, by name: KID[unnoise-small], ..."""
    guidance: float = 1.0
    """Scale of classifier-free guidance that is advised for drawing; 1 is off."""
    licence: str = ""
    version: str = ""
    """Of unnoise."""


def layout(network: nn.Module) -> str:
    """`layout_of` a network's state dict."""
    return layout_of(network.state_dict())


def layout_of(state: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 of the sorted "key shape" lines of a state dict."""
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def write_atomically(path: Path, content: bytes) -> None:
    """Write aside, flush to the disk, rename: readers see the old file or the new one, never a part."""
    with flushed_aside(path) as file:
        file.write(content)


def kind_of(header: Mapping[str, Any]) -> str:
    """What a header says that its file holds, as errors call it: "a diffusion model", "an autoencoder"."""
    kind = str(header.get("kind") or "diffusion model").replace("_", " ")
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def read_header(path: Path) -> dict[str, Any]:
    """The settings inside a model file, without its weights; ValueError when it is not ours or not whole."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file of another program: it does not say which network it belongs to; "
            "name a model file that unnoise wrote"
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: the settings inside cannot be read; the file is damaged") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: the settings inside cannot be read; the file is damaged")
    check_format(header.get("format"), str(path))
    return header


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)


def put_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a network, perhaps on the meta device, its weights; ValueError when they do not fit.

    Weights that are stored in another type become the network's own, float32.
    """
    own = network.state_dict()
    state = {key: value.to(own[key].dtype) if key in own else value for key, value in state.items()}
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: weights and settings do not fit: {' '.join(str(error).split())[:300]}"
        ) from None
    network.eval().requires_grad_(False)


def find_model(path: Path) -> Path:
    """The file of weights that a path means: itself, that in a run directory or a folder of diffusers', or,
    where nothing of that name is there, the shipped example of that name.
    """
    from unnoise import examples
    from unnoise.weights import diffusers

    if not path.exists():
        found = examples.find(str(path))
        if found is not None:
            return found
        shipped = ", ".join(examples.names())
        raise ValueError(
            f"{path} does not exist; name a model file or a run directory"
            + (f", or one that comes with unnoise: {shipped}" if shipped else "")
        )
    if not path.is_dir():
        if not path.is_file():
            raise ValueError(f"{path} is a device or a pipe; name a model file or a run directory")
        return path
    if (path / "model.safetensors").exists():
        return path / "model.safetensors"
    if diffusers.is_folder(path):
        return diffusers.find_weights(path)
    raise ValueError(f"{path} holds no model.safetensors; name a model file or a run directory")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not str(path).isascii() and os.fsencode(path) != str(path).encode(errors="replace"):
        raise ValueError(f"{path}: safetensors opens no file whose name is not UTF-8; rename it")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); name a model file, or copy it again"
        ) from None

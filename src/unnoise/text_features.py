"""Captions through a frozen text encoder (extra `hf`), computed once and kept on disk.

The encoder is a folder in the layout of Hugging Face's transformers, named by its path: weights are read from
safetensors, no code of the folder runs and nothing is downloaded.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise.data import cache

_BATCH = 64


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """What an encoder makes of captions. context: (N, L, D) float16; mask: (N, L) bool."""

    context: Tensor
    mask: Tensor
    encoder: str
    """Hash of the encoder's files: features of another one are not to be mixed with these."""


def encode_captions(
    folder: Path,
    captions: Sequence[str],
    *,
    length: int = 77,
    home: str | None = None,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> TextFeatures:
    """Features of every caption, from the cache when they are there. The empty text is encoded like any.

    length: tokens at most; home: folder of the cache, None takes the user's. ValueError for a folder that is
    no encoder, or without transformers.
    """
    if length < 3:
        raise ValueError(f"length={length} leaves no room for a word; use 3 or more")
    encoder = digest_of(folder)
    key = hashlib.sha256(json.dumps([1, encoder, length, list(captions)]).encode()).hexdigest()[:32]
    path = cache.home(home) / f"{key}.text.safetensors"
    if not path.exists():
        context, mask = _computed(folder, captions, length, device, on_progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.placing(path) as aside:
            save_file({"context": context, "mask": mask}, aside)
    stored = load_file(path)
    return TextFeatures(stored["context"], stored["mask"], encoder)


def digest_of(folder: Path) -> str:
    """Hash of an encoder's settings, vocabulary and weights. ValueError when the folder lacks them."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} is no text encoder; name a folder with config.json and model.safetensors")
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.txt"), *folder.glob("*.safetensors")]):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _computed(
    folder: Path,
    captions: Sequence[str],
    length: int,
    device: str,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Tensor, Tensor]:
    tokenizer, model = _loaded(folder, device)
    contexts, masks = [], []
    for start in range(0, len(captions), _BATCH):
        some = list(captions[start : start + _BATCH])
        tokens = tokenizer(
            some, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.no_grad():
            found = model(**tokens.to(device)).last_hidden_state
        contexts.append(found.to("cpu", torch.float16))
        masks.append(tokens["attention_mask"].to("cpu").bool())
        if on_progress is not None:
            on_progress(start + len(some), len(captions))
    return torch.cat(contexts), torch.cat(masks)


def _loaded(folder: Path, device: str) -> tuple[Any, Any]:
    """Tokenizer and network, weights in float32."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError(
            "a frozen text encoder needs the package transformers; install it with: pip install 'unnoise[hf]'"
        ) from error
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
        model = transformers.AutoModel.from_pretrained(str(folder), use_safetensors=True, **local)
    except (OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} cannot be loaded as a text encoder ({text}); name another one") from error
    return tokenizer, model.to(device).eval()

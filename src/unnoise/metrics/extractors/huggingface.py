"""Features of any Hugging Face vision model (DINOv2, CLIP): the extra `[hf]`; no code of the model's
repository runs.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.metrics.features import Features, rgb


@dataclass(frozen=True, eq=False)
class HuggingFaceFeatures:
    """The pooled output of a vision model, else its class token; preprocessing by the model's own image
    processor.
    """

    network: Any
    processor: Any
    name: str
    weights_hash: str
    preprocess: str
    device: str = "cpu"

    @classmethod
    def open(cls, name: str, *, device: str = "cpu") -> "HuggingFaceFeatures":
        """`name` on the hub or a local folder, loaded by transformers without remote code."""
        try:
            from transformers import AutoImageProcessor, AutoModel  # type: ignore[import-not-found]
            from transformers.utils.logging import disable_progress_bar  # type: ignore[import-not-found]
        except ImportError as error:
            raise ValueError(f"features=hf:{name} needs transformers; pip install 'unnoise[hf]'") from error
        disable_progress_bar()
        try:
            model = AutoModel.from_pretrained(name, trust_remote_code=False)
            processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"features=hf:{name} cannot be loaded ({first}); give a folder or go online"
            ) from error
        vision = getattr(model, "vision_model", model).to(device).eval().requires_grad_(False)
        short = Path(name).name if Path(name).is_dir() else name
        return cls(vision, processor, f"hf:{short}", _state_hash(vision), _about(processor), device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C)."""
        pictures: list[np.ndarray] = list(rgb(pixels).permute(0, 2, 3, 1).cpu().numpy())
        inputs = self.processor(images=pictures, return_tensors="pt").to(self.device)
        out = self.network(**inputs)
        pooled = getattr(out, "pooler_output", None)
        return Features((out.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1).float())


def _about(processor: Any) -> str:
    """The processor in a few words; the digest is of all its settings."""
    settings = json.loads(processor.to_json_string())
    sizes = [settings.get(key) or {} for key in ("crop_size", "size")]
    found = next((size for size in sizes if size), {})
    sides = "x".join(str(value) for value in found.values() if value) or "its own size"
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{type(processor).__name__} to {sides}, settings {digest}"


def _state_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

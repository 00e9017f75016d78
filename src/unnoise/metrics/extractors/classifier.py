"""Features of a plain classifier: `unnoise-small`, which ships with the package, or any that
`unnoise train` made.

They are no Inception features: their numbers are called FD[unnoise-small] and so on, and compare only with
numbers of the same network.
"""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.classifier import ClassifierModel, load_classifier
from unnoise.images import to_images
from unnoise.metrics.features import Features
from unnoise.metrics.weights import file_hash
from unnoise.modelfile import find_model

SHIPPED = "unnoise-small"
SMALLEST, LARGEST = 28, 64
"""Sides that the shipped network has learned from; others are resized to the nearest of these."""


@dataclass(frozen=True, eq=False)
class ClassifierFeatures:
    """pool (192 in unnoise-small), the middle level's first 8 channels at 7 x 7 places, probabilities."""

    model: ClassifierModel
    name: str
    weights_hash: str
    preprocess: str = (
        f"x / 127.5 - 1; sides below {SMALLEST} or above {LARGEST} pixels are resized to that, antialiased "
        "bilinear"
    )

    @classmethod
    def open(cls, *, weights: str | Path | None = None, device: str = "cpu") -> "ClassifierFeatures":
        """The shipped network, or the classifier of a model file or run directory.

        Another classifier is called after the start of its hash.
        """
        if weights is None:
            with as_file(files("unnoise.metrics").joinpath("unnoise_small.safetensors")) as path:
                return cls(load_classifier(path, device), SHIPPED, file_hash(path))
        path = find_model(Path(weights))
        model, digest = load_classifier(path, device), file_hash(path)
        return cls(model, f"classifier-{digest[:8]}", digest)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C), C 1 or 3."""
        taps = self.model.network.taps(_fitted(to_images(pixels.to(self.model.device))))
        return Features(taps.pool, taps.spatial, taps.logits.softmax(1))


def _fitted(images: Tensor) -> Tensor:
    """Images whose smaller side is in SMALLEST..LARGEST, the same where it was."""
    short = min(images.shape[2:])
    wanted = min(max(short, SMALLEST), LARGEST)
    if short == wanted:
        return images
    size = [round(side * wanted / short) for side in images.shape[2:]]
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

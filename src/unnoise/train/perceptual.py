"""What compares a picture with its reconstruction beyond pixels: LPIPS where it is to be had, else ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from unnoise.metrics import weights as store
from unnoise.metrics.extractors.classifier import SHIPPED, ClassifierFeatures
from unnoise.networks.classifier import Classifier
from unnoise.networks.lpips import Lpips

STLPIPS = "stlpips"
"""The package with shift-tolerant LPIPS on VGG16."""


class Distance(Protocol):
    """A distance of pairs, differentiable in the second."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, 1, 1, 1) of a, b: (B, 1 or 3, H, W) in [-1, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Perceptual:
    """A distance with its name for logs."""

    name: str
    distance: Distance

    def __call__(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """(B, 1, 1, 1) of (B, C, H, W) in [-1, 1]: of their colours, transparency aside."""
        colours = 3 if images.shape[1] >= 3 else 1
        a, b = (x[:, :colours].expand(-1, 3, -1, -1) for x in (images, reconstructions))
        return self.distance(a, b)


@dataclass(frozen=True, eq=False)
class FeatureDistance:
    """1 - cosine of f(a) and f(b), averaged over places and levels; f are a classifier's features.

    LPIPS without its learned weights (Zhang et al. 2018, arXiv 1801.03924), and of its size: 0.1 to 0.7.
    """

    network: Classifier

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, 1, 1, 1) of a, b: (B, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            wanted = self.network.levels_of(a)
        total = a.new_zeros(len(a), 1, 1, 1)
        for x, y in zip(wanted, self.network.levels_of(b), strict=True):
            apart = nn.functional.normalize(x, dim=1) - nn.functional.normalize(y, dim=1)
            total = total + 0.5 * apart.square().sum(1, keepdim=True).mean((2, 3), keepdim=True)
        return total / len(wanted)


def choose(name: str) -> str:
    """The network that "auto" means on this machine; any other name as it is, its file looked for.

    ValueError where there is none of that name.
    """
    if name == "auto":
        try:
            store.find(store.LPIPS_SHIFT_TOLERANT, download=False)
        except ValueError:
            return SHIPPED
        return STLPIPS
    if name == STLPIPS:
        store.find(store.LPIPS_SHIFT_TOLERANT)
    elif name not in (SHIPPED, "none") and not Path(name).is_file():
        raise ValueError(
            f"autoencoder.perceptual={name} is no file and no network; use auto, {STLPIPS}, {SHIPPED}, none, "
            "or the path of LPIPS weights on VGG16"
        )
    return name


def open_perceptual(name: str, device: torch.device) -> Perceptual | None:
    """The distance of a name that `choose` gave; None for none."""
    if name == "none":
        return None
    if name == SHIPPED:
        network = ClassifierFeatures.open(device=str(device)).model.network
        return Perceptual(f"features[{SHIPPED}]", FeatureDistance(network))
    path = store.find(store.LPIPS_SHIFT_TOLERANT, None if name == STLPIPS else name)
    state = store.read(path)
    tolerant = any(key.endswith(".filt") for key in state)
    network = Lpips.from_state(state).to(device)
    return Perceptual("LPIPS[shift-tolerant]" if tolerant else "LPIPS", network)

"""The low-resolution picture that an upsampler is told: how it is made, and made noisy on purpose.

Saharia et al. 2021 (arXiv 2104.07636); Dhariwal & Nichol 2021 (arXiv 2105.05233), section 4.4; noise
augmentation: Ho et al. 2021, "Cascaded Diffusion Models" (arXiv 2106.15282), section 4.2.
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from unnoise.diffusion.condition import Condition


def shrink(images: Tensor, side: int) -> Tensor:
    """Means over the area of each new pixel, as guided-diffusion makes its small pictures.

    (B, C, H, W) -> (B, C, side, side). Sides need not divide: a new pixel then takes every old one that
    it touches, whole.
    """
    return F.interpolate(images, (side, side), mode="area")


def noised(low: Tensor, level: Tensor, z: Tensor) -> Tensor:
    """sqrt(1 - level^2) low + level z: `low` as noisy as a picture of sigma = level. level: (B,) in [0, 1].

    A network that is trained on all levels up to some largest one mends what a model before it in a cascade
    got wrong, for it does not trust the details of its condition; the level says how far to trust them.
    """
    sigma = level.to(low.dtype).view(-1, 1, 1, 1)
    return (1 - sigma * sigma).sqrt() * low + sigma * z


def with_low_res(
    cond: Condition, low: Tensor, *, level: Tensor | None = None, z: Tensor | None = None
) -> Condition:
    """`cond` with the small pictures (B, C, h, w), noised by `z` where the network is told a level."""
    if level is None:
        return replace(cond, concat=low)
    assert z is not None
    return replace(cond, concat=noised(low, level, z), level=level)

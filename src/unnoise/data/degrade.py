"""Small pictures from large ones: by one filter, or worn as those that people have.

`worn` follows Zhang et al. 2021, "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution" (arXiv 2103.14006): two blurs, a resize and noise in an order that is drawn, and JPEG last.
Every draw is a function of (seed, purpose, place).
"""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unnoise.data import order
from unnoise.diffusion.low_res import shrink

FILTERS = ("bicubic", "area", "bilinear", "nearest")
_KERNEL = 15
"""Side of the blurs' kernels."""
_QUALITY = (30, 95)
"""Of JPEG, drawn uniformly."""
_NOISE = (1 / 255, 25 / 255)
"""Deviation of the noise for pixels in [0, 1]."""
_WIDTHS = (0.1, 2.0)
"""Deviations of a blur along its two axes, in pixels of a picture that is made two times smaller; in
proportion for other factors."""


def resized(images: Tensor, side: int, filter: str = "bicubic") -> Tensor:
    """(B, C, H, W) -> (B, C, side, side) by a filter of FILTERS, antialiased; within [-1, 1]."""
    if filter == "area":
        return shrink(images, side)
    if filter == "nearest":
        return F.interpolate(images, (side, side), mode="nearest-exact")
    if filter not in FILTERS:
        raise ValueError(f"filter={filter!r} is unknown; use {', '.join(FILTERS)}")
    return F.interpolate(images, (side, side), mode=filter, antialias=True).clamp(-1, 1)


def worn(images: Tensor, side: int, *, seed: int, places: np.ndarray) -> Tensor:
    """(B, C, H, W) in [-1, 1], C 1 or 3 -> (B, C, side, side) worn, with 256 levels.

    places: (B,) positions in the sequence of training, or numbers of pictures; each decides its own picture.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"{images.shape[1]} channels cannot be written as JPEG; use 1 or 3")
    if not 0 < side <= images.shape[2]:
        raise ValueError(
            f"side={side} is no smaller than pictures of {images.shape[2]}; use 1..{images.shape[2]}"
        )
    steps = np.argsort(
        order.uniforms(seed, "degrade order", places, 4), axis=1
    )  # 0, 1 blurs, 2 resize, 3 noise
    turn = np.argsort(steps, axis=1)  # (B, 4): when each step comes
    large, small = images, images.new_zeros(*images.shape[:2], side, side)
    factor = images.shape[2] / side
    for when in range(4):
        for step in (0, 1, 3):
            rows = np.flatnonzero(turn[:, step] == when)
            for shrunk in (False, True):
                some = rows[(turn[rows, 2] < when) == shrunk]
                if len(some) == 0:
                    continue
                pictures = (small if shrunk else large)[some]
                scale = 1.0 if shrunk else factor
                changed = _step(pictures, step, scale, seed=seed, places=places[some])
                large, small = (
                    (large, _placed(small, some, changed))
                    if shrunk
                    else (_placed(large, some, changed), small)
                )
        rows = np.flatnonzero(turn[:, 2] == when)
        if len(rows):
            small = _placed(small, rows, _shrunk(large[rows], side, seed=seed, places=places[rows]))
    return _jpeg(small, seed=seed, places=places)


def grey(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601: (B, 3, H, W) -> (B, 1, H, W), what a colorizing model is told."""
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _placed(images: Tensor, rows: np.ndarray, changed: Tensor) -> Tensor:
    return images.index_copy(0, torch.from_numpy(rows), changed)


def _step(images: Tensor, step: int, factor: float, *, seed: int, places: np.ndarray) -> Tensor:
    """A blur (0: alike in all directions, 1: along an axis) or noise (3)."""
    if step == 3:
        return _noisy(images, seed=seed, places=places)
    drawn = order.uniforms(seed, f"degrade blur {step}", places, 3)
    least, most = (width * max(factor, 1.0) / 2 for width in _WIDTHS)
    long = least + (most - least) * drawn[:, 0]
    short = long if step == 0 else least + (most - least) * drawn[:, 1]
    return blurred(images, gaussians(long, short, math.pi * drawn[:, 2]))


def gaussians(long: np.ndarray, short: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Kernels exp(-1/2 (u^2 / long^2 + v^2 / short^2)), u and v turned by `angle`; each (K,) -> (K, s, s)."""
    reach = np.arange(_KERNEL) - _KERNEL // 2
    x, y = reach[None, None, :], reach[None, :, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cos * x + sin * y, -sin * x + cos * y
    kernels = np.exp(-0.5 * ((u / long[:, None, None]) ** 2 + (v / short[:, None, None]) ** 2))
    return np.asarray(kernels / kernels.sum((1, 2), keepdims=True))


def blurred(images: Tensor, kernels: np.ndarray) -> Tensor:
    """Each picture under its own kernel, edges repeated. (B, C, H, W), (B, s, s) -> (B, C, H, W)."""
    batch, channels, height, width = images.shape
    edge = kernels.shape[1] // 2
    around = F.pad(images, (edge,) * 4, mode="replicate").reshape(1, batch * channels, height + 2 * edge, -1)
    weights = torch.from_numpy(kernels).to(images).repeat_interleave(channels, 0)[:, None]
    return F.conv2d(around, weights, groups=batch * channels).view(batch, channels, height, width)


def _noisy(images: Tensor, *, seed: int, places: np.ndarray) -> Tensor:
    """Noise of a drawn deviation, the same in all channels for half of the pictures."""
    drawn = order.uniforms(seed, "degrade noise", places, 2)
    least, most = _NOISE
    std = 2 * (least + (most - least) * drawn[:, 0])  # for pixels in [-1, 1]
    z = order.normals(seed, "degrade noise levels", places, images[0].numel()).reshape(images.shape)
    z = np.where(drawn[:, 1, None, None, None] < 0.5, z[:, :1], z)
    noise = torch.from_numpy(z * std[:, None, None, None]).to(images)
    return (images + noise).clamp(-1, 1)


def _shrunk(images: Tensor, side: int, *, seed: int, places: np.ndarray) -> Tensor:
    """Made small, each picture by a filter that is drawn."""
    chosen = (order.uniforms(seed, "degrade filter", places, 1)[:, 0] * len(FILTERS)).astype(int)
    small = images.new_zeros(*images.shape[:2], side, side)
    for k, name in enumerate(FILTERS):
        rows = np.flatnonzero(chosen == k)
        if len(rows):
            small = _placed(small, rows, resized(images[rows], side, name))
    return small


def _jpeg(images: Tensor, *, seed: int, places: np.ndarray) -> Tensor:
    """Written and read as JPEG of a drawn quality."""
    least, most = _QUALITY
    quality = least + (order.uniforms(seed, "degrade jpeg", places, 1)[:, 0] * (most - least + 1)).astype(int)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    read = []
    for picture, level in zip(pixels, quality, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(
            file, "JPEG", quality=int(level)
        )
        read.append(np.asarray(Image.open(file, formats=["JPEG"])).reshape(picture.shape))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(images) / 127.5 - 1

"""What is drawn on: a picture in the frame that a model fills, the hole in it, and the part given out.

A frame is of the model's size, or larger by multiples of what its network and first stage divide.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.config.requests import EditRequest
from unnoise.data.decode import BrokenPicture
from unnoise.edit.holes import check_hole, fitted_hole
from unnoise.edit.pictures import Picture, Upright, as_levels, fitted
from unnoise.images import to_images

GREY = 128
"""Level of margins where somebody looks at them before they are drawn."""


@dataclass(frozen=True)
class Window:
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Tensor) -> Tensor:
        """What of pixels (H, W, ...) is inside."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture in its frame."""

    name: str
    before: Tensor
    """uint8 (h, w, C): the picture as it came in, in the model's channels."""
    known: Tensor
    """uint8 (H, W, C): the frame; in the hole it does not count."""
    window: Window
    """What of the frame is given out."""
    hole: Tensor | None = None
    """(H, W) bool, True where it is drawn; None where nothing of it is a hole."""
    small: Tensor | None = None
    """uint8 (h, w, C): what of the frame is known, where it is enlarged."""

    @property
    def images(self) -> Tensor:
        """(1, C, H, W) in [-1, 1]."""
        return to_images(self.known[None])

    @property
    def unknown(self) -> Tensor:
        """(1, 1, H, W) float, 1 in the hole."""
        assert self.hole is not None
        return self.hole[None, None].float()

    @property
    def seen(self) -> Tensor:
        """uint8 (h, w, C): what is given out, before anything is drawn."""
        return self.window.cut(self.known)

    @property
    def seen_hole(self) -> Tensor | None:
        """The hole of it as a picture (h, w, C), white; None without one."""
        if self.hole is None:
            return None
        white = self.window.cut(self.hole).to(torch.uint8) * 255
        return white[..., None].expand(-1, -1, self.known.shape[2])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the picture and of the hole."""
        picture = Picture(self.name, self.before)
        if self.hole is None:
            return picture.digest
        content = hashlib.sha256(picture.digest.encode() + repr(tuple(self.hole.shape)).encode())
        content.update(np.packbits(self.hole.numpy()).tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class Frame:
    """What frames a model can fill."""

    side: int
    """That of its training."""
    step: int
    """Both sides are a multiple of this."""

    def length(self, side: int) -> int:
        """The least side that holds so many pixels: that of training, or more in steps."""
        return max(self.side, math.ceil(side / self.step) * self.step)


def framed(picture: Upright, hole: np.ndarray | None, frame: Frame, request: EditRequest) -> Canvas:
    """The picture made as large as the model says, or under `tile` put into a frame that holds it."""
    if hole is not None:
        check_hole(picture, hole)
    if request.fit == "tile":
        return extended(picture, hole, frame, Margins())
    try:
        pixels = torch.from_numpy(np.array(fitted(picture.image, frame.side, request)))
    except BrokenPicture as error:
        raise ValueError(f"{picture.called}: {error}") from None
    window = Window(0, 0, frame.side, frame.side)
    if hole is None:
        return Canvas(picture.name, pixels, pixels, window)
    cut = fitted_hole(hole, frame.side, request.fit)
    check_hole(picture, cut)
    return Canvas(picture.name, pixels, pixels, window, torch.from_numpy(cut.copy()))


@dataclass(frozen=True)
class Margins:
    """Pixels around a picture."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


def extended(picture: Upright, hole: np.ndarray | None, frame: Frame, margins: Margins) -> Canvas:
    """The picture with margins, in the least frame that holds them; what is beyond them is not given out.

    With margins, or a hole, all around the picture is a hole too; without, its edges are repeated there.
    """
    pixels = as_levels(picture.image)
    high, wide = pixels.shape[:2]
    window = Window(0, 0, margins.top + high + margins.bottom, margins.left + wide + margins.right)
    height, width = frame.length(window.height), frame.length(window.width)
    around = ((margins.top, height - high - margins.top), (margins.left, width - wide - margins.left))
    before = torch.from_numpy(np.array(pixels))
    if hole is None and margins == Margins():
        known = np.pad(pixels, (*around, (0, 0)), mode="edge")
        return Canvas(picture.name, before, torch.from_numpy(known), window)
    known = np.pad(pixels, (*around, (0, 0)), constant_values=GREY)
    inside = np.zeros((high, wide), bool) if hole is None else hole
    whole = np.pad(inside, around, constant_values=True)
    return Canvas(picture.name, before, torch.from_numpy(known), window, torch.from_numpy(whole))


def filled(images: Tensor, unknown: Tensor) -> Tensor:
    """Images whose hole is filled from around it, smoothly: means of ever larger squares of what is known.

    images: (B, C, H, W); unknown: (B, 1, H, W), 1 in the hole. What was in the hole does not count.
    """
    known = 1 - unknown
    if bool((known == 1).all()):
        return images
    value, weight = images * known, known
    if min(images.shape[2:]) > 1:
        small = F.avg_pool2d(value, 2, ceil_mode=True), F.avg_pool2d(weight, 2, ceil_mode=True)
        seen = (small[1] > 0).to(small[1])
        coarse = filled(small[0] / small[1].clamp(min=1e-12) * seen, 1 - seen)
        rest = F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
    else:
        rest = (value.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)).expand_as(
            value
        )
    return value + unknown * rest


def feathered(unknown: Tensor, pixels: int) -> Tensor:
    """Weight of what is drawn: 1 in the hole, falling in a straight line to 0 over `pixels` around it."""
    weight = unknown
    for distance in range(1, pixels + 1):
        reach = F.max_pool2d(unknown, 2 * distance + 1, stride=1, padding=distance)
        weight = torch.maximum(weight, reach * (1 - distance / (pixels + 1)))
    return weight

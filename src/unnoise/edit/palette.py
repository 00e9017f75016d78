"""Colours of one picture for another: where they lie in the plane that is at right angles to grey.

Their mean and covariance are those of a normal distribution. Two of these are as far apart as their means and
the roots of their covariances, nearly as in the 2-Wasserstein distance, and in its unit: grey levels.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.edit.pictures import read_upright

PLANE = torch.tensor([[2**-0.5, -(2**-0.5), 0.0], [6**-0.5, 6**-0.5, -2 * 6**-0.5]])
"""Two orthonormal axes of colour, (2, 3): red against green, and both against blue."""


@dataclass(frozen=True, eq=False)
class Palette:
    """How the colours of a picture lie."""

    mean: Tensor
    """(2,), levels in [-1, 1]."""
    spread: Tensor
    """(2, 2): the root of their covariance."""
    digest: str
    """SHA-256 of the picture's pixels."""

    def missing(self, images: Tensor) -> Tensor:
        """What lies otherwise in images (B, 3, H, W): (B, 6), as long as the change of x that mends it."""
        mean, spread = lie(images.flatten(2))
        off = torch.cat([self.mean.to(mean) - mean, (self.spread.to(spread) - spread).flatten(1)], 1)
        # A shift of all pixels by a level is a change of x of length sqrt(pixels).
        length: float = (images.shape[2] * images.shape[3]) ** 0.5
        return off * length


def lie(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 2) and root of the covariance (B, 2, 2) of colours (B, 3, N) in their plane."""
    colours = PLANE.to(levels) @ levels
    mean = colours.mean(2)
    centred = colours - mean[..., None]
    return mean, root(centred @ centred.transpose(1, 2) / levels.shape[2])


def root(matrix: Tensor) -> Tensor:
    """The root of symmetric positive matrices (B, 2, 2): (M + sqrt(det M) I) / sqrt(tr M + 2 sqrt(det M)).

    Kept from 0, where it has no gradient, by a variance of 1e-6.
    """
    matrix = matrix + 1e-6 * torch.eye(2).to(matrix)
    determinant = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    side = determinant.clamp(min=1e-12).sqrt()
    size = (matrix[:, 0, 0] + matrix[:, 1, 1] + 2 * side).sqrt()
    return (matrix + side.view(-1, 1, 1) * torch.eye(2).to(matrix)) / size.view(-1, 1, 1)


def read_palette(path: str, request: EditRequest) -> Palette:
    """The colours of a picture, of its opaque pixels. ValueError when there is none."""
    if not Path(path).is_file():
        raise ValueError(f"palette={path} is no file; name a picture with colours")
    picture = read_upright(Path(path), 3, request)
    levels = np.asarray(picture.image).reshape(-1, 3)
    if picture.clear is not None:
        levels = levels[~picture.clear.reshape(-1)]
    if not len(levels):
        raise ValueError(f"palette={path} has no opaque pixel; name a picture with colours")
    mean, spread = lie(torch.from_numpy(levels.T / 127.5 - 1)[None])
    return Palette(mean[0].float(), spread[0].float(), hashlib.sha256(levels.tobytes()).hexdigest())

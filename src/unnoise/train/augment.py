"""Changes of pictures that gradients pass through (DiffAugment, Zhao et al. 2020, arXiv 2006.10738).

The discriminator sees real and drawn pictures changed alike, so that it cannot learn few pictures by heart
and the generator does not learn the changes. Numbers in [0, 1) that are given decide what a change does.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NUMBERS = 7
"""Numbers in [0, 1) that decide all changes of one picture."""
SHIFT = 1 / 8
"""Of a side: how far a picture is moved at most."""
HOLE = 1 / 2
"""Of a side: that of the square which is cut out."""


def augmented(images: Tensor, numbers: Tensor, kinds: Sequence[str]) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] changed as numbers (B, NUMBERS) in [0, 1) say; `kinds` of KINDS."""
    for kind in kinds:
        images = KINDS[kind](images, numbers.to(images.dtype))
    return images


def color(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness by up to 0.5, saturation by factors 0..2, contrast by 0.5..1.5."""
    brightness, saturation, contrast = numbers[:, :3, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def translation(images: Tensor, numbers: Tensor) -> Tensor:
    """Moved by up to an eighth of the sides, grey behind."""
    count, _, height, width = images.shape
    most = [round(SHIFT * side) for side in (height, width)]
    down, right = (
        ((2 * m + 1) * n).floor().long() - m for m, n in zip(most, numbers[:, 3:5].unbind(1), strict=True)
    )
    padded = F.pad(images, (most[1], most[1], most[0], most[0]))
    rows = torch.arange(height, device=images.device) + most[0] - down[:, None]
    columns = torch.arange(width, device=images.device) + most[1] - right[:, None]
    picture = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, numbers: Tensor) -> Tensor:
    """A square of half the sides, that may reach over the edge, in grey."""
    _, _, height, width = images.shape
    inside = torch.ones_like(images[:, :1])
    seen = []
    for side, number in zip((height, width), numbers[:, 5:7].unbind(1), strict=True):
        hole = max(1, round(HOLE * side))
        first = ((side + 1) * number).floor()[:, None] - hole // 2
        along = torch.arange(side, device=images.device)
        seen.append((along >= first) & (along < first + hole))
    covered = seen[0][:, None, :, None] & seen[1][:, None, None, :]
    return images * inside.masked_fill(covered, 0.0)


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}

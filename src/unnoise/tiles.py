"""A map applied tile by tile, in memory that the tiles bound, and blended where they overlap.

Rombach et al. 2022 (arXiv 2112.10752) sample beyond the size of training in this way. Theirs weigh a position
by its distance to the border of its tile, as here; the last tile here ends with the picture, whatever its
size, where theirs leave a rest out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST, MOST = 0.01, 0.5
"""Weights are clamped to this, the distance to the border as a share of the tile's side."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Squares of `size` positions, `stride` apart in both directions."""

    size: int
    stride: int
    ranked: bool = False
    """Weigh a tile as a whole by its distance to the border too (LDM's tie breaker)."""

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size:
            raise ValueError(
                f"tiles of {self.size} positions {self.stride} apart leave gaps; use a distance of 1.."
                f"{max(self.size, 1)}"
            )

    def starts(self, side: int) -> list[int]:
        """First positions of the tiles along a side; one where the side is no longer than a tile."""
        if side <= self.size:
            return [0]
        return [*range(0, side - self.size, self.stride), side - self.size]


def border_distance(height: int, width: int) -> Tensor:
    """Distance of each position to the nearest border, as a share of the sides: (height, width), 0 at it."""
    sides = []
    for count in (height, width):
        place = torch.arange(count) / max(count - 1, 1)
        sides.append(torch.minimum(place, 1 - place) if count > 1 else torch.full((1,), MOST))
    return torch.minimum(sides[0][:, None], sides[1])


def tile_weights(height: int, width: int) -> Tensor:
    """Weight of each position of a tile: (height, width)."""
    return border_distance(height, width).clamp(LEAST, MOST)


def apply_tiled(function: Callable[[Tensor], Tensor], x: Tensor, tiling: Tiling) -> Tensor:
    """sum of weight * function(tile) / sum of weights, over the tiles of x (B, C, H, W).

    `function` may change the channels, and the size by a whole factor or its inverse: the same for all tiles.
    """
    height, width = x.shape[2:]
    rows, columns = tiling.starts(height), tiling.starts(width)
    ranks = tile_weights(len(rows), len(columns)) if tiling.ranked else torch.ones(len(rows), len(columns))
    total, weights = None, None
    for r, top in enumerate(rows):
        for c, left in enumerate(columns):
            tile = x[:, :, top : top + tiling.size, left : left + tiling.size]
            y = function(tile)
            scale = _Scale(tile.shape[2], y.shape[2])
            if total is None or weights is None:
                total = y.new_zeros(*y.shape[:2], scale.of(height), scale.of(width))
                weights = y.new_zeros(total.shape[2:])
            place = (scale.span(top, y.shape[2]), scale.span(left, y.shape[3]))
            weight = ranks[r, c] * tile_weights(*y.shape[2:]).to(y)
            total[:, :, place[0], place[1]] += weight * y
            weights[place] += weight
    assert total is not None and weights is not None
    return total / weights


@dataclass(frozen=True)
class _Scale:
    """What a side of `before` positions became."""

    before: int
    after: int

    def of(self, position: int) -> int:
        """The position in the result."""
        if position * self.after % self.before:
            raise ValueError(
                f"tiles of {self.before} positions become {self.after}, which does not fit position "
                f"{position}; use sizes and distances that the down-sampling divides"
            )
        return position * self.after // self.before

    def span(self, start: int, length: int) -> slice:
        """The place of a tile in the result."""
        return slice(self.of(start), self.of(start) + length)

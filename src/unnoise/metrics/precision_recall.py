"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), exactly as ADM's evaluator and
as torch-fidelity compute them.

A set's manifold is the union of the balls around its points that reach to their k-th nearest neighbour.
Precision is the share of samples inside the real manifold, recall the share of real pictures inside the
samples' manifold. k = 3; a point on the sphere is inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.metrics.distances import (
    BLOCK,
    blocks,
    half_squared_distances,
    smallest,
    squared_distances,
    squared_norms,
)
from unnoise.metrics.neighbours import inside_balls, neighbour_distances
from unnoise.metrics.sketch import sketches
from unnoise.metrics.statistics import as_matrix

HALF_BLOCK = 10_000
"""ADM's block: one overflow turns this many rows and columns to float32."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Shares in [0, 1], and for every picture whether it lies in the other side's manifold."""

    precision: float
    recall: float
    fake_inside: Tensor  # (N_fake,) bool
    real_inside: Tensor  # (N_real,) bool


def pair_of(real: Tensor, fake: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Both sides as finite float32 (N, D) of one width with more than k rows each; else a ValueError."""
    a, b = as_matrix(real, "real features").float(), as_matrix(fake, "sample features").float()
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"real features have {a.shape[1]} dimensions, samples {b.shape[1]}; use one network for both"
        )
    for name, x in (("real", a), ("sample", b)):
        if len(x) <= k:
            raise ValueError(f"{len(x)} {name} pictures have no {k} neighbours each; use at least {k + 1}")
    return a, b


def manifold_radii(
    features: Tensor, *, ks: Sequence[int] = (3,), half: bool = False, block: int = BLOCK
) -> Tensor:
    """SQUARED distance of each point to its k-th nearest other: (N, len(ks)).

    half: ADM's float16 distances, in which a point's distance to itself is not always 0 nor the smallest;
    index k of the sorted row all the same.
    """
    x = as_matrix(features).float()
    if half:
        size = max(block, HALF_BLOCK)
        found = []
        for rows in blocks(len(x), size):
            parts = [
                smallest(half_squared_distances(x[rows], x[c]), max(ks) + 1) for c in blocks(len(x), size)
            ]
            found.append(smallest(torch.cat(parts, 1), max(ks) + 1))
        return torch.cat(found)[:, list(ks)]
    return neighbour_distances(x, max(ks), block=block)[:, list(ks)]


def precision_recall(
    *,
    real: Tensor,
    fake: Tensor,
    k: int = 3,
    half: bool = False,
    block: int = BLOCK,
    real_radii: Tensor | None = None,
) -> PrecisionRecall:
    """ADM's precision and recall of (N, D) features.

    Squared distances |u|^2 - 2uv + |v|^2, `<=`. float32 values are firm; `half` is the original's float16
    first, which moves the shares by 0 - 0.002 and depends on the device there. Memory: a few `block` x
    `block` float32 matrices (half: 10,000 x 10,000). `real_radii` (N_real,) of an earlier call of
    `manifold_radii` saves half of the work.
    """
    a, b = pair_of(real, fake, k)
    if half:
        if real_radii is None:
            real_radii = manifold_radii(a, ks=(k,), half=True, block=block)[:, 0]
        fake_radii = manifold_radii(b, ks=(k,), half=True, block=block)[:, 0]
        real_in, fake_in = _inside_half(a, b, real_radii, fake_radii, max(block, HALF_BLOCK))
    else:
        pair = sketches(a, b)
        of_a, of_b = pair or (None, None)
        if real_radii is None:
            real_radii = neighbour_distances(a, k, block=block, sketch=of_a)[:, k]
        fake_radii = neighbour_distances(b, k, block=block, sketch=of_b)[:, k]
        real_in, fake_in = inside_balls(a, b, real_radii, fake_radii, block=block, pair=pair)
    return PrecisionRecall(_share(fake_in), _share(real_in), fake_in, real_in)


def _share(inside: Tensor) -> float:
    return float(inside.double().mean())


def _inside_half(a: Tensor, b: Tensor, radii_a: Tensor, radii_b: Tensor, block: int) -> tuple[Tensor, Tensor]:
    in_a = torch.zeros(len(a), dtype=torch.bool, device=a.device)
    in_b = torch.zeros(len(b), dtype=torch.bool, device=a.device)
    for rows in blocks(len(a), block):
        for columns in blocks(len(b), block):
            d = half_squared_distances(a[rows], b[columns])
            in_a[rows] |= (d <= radii_b[columns]).any(1)
            in_b[columns] |= (d <= radii_a[rows, None]).any(0)
    return in_a, in_b


def precision_recall_fidelity(
    *, real: Tensor, fake: Tensor, k: int = 3, block: int = BLOCK
) -> PrecisionRecall:
    """torch-fidelity's precision and recall: plain (not squared) float32 distances of `torch.cdist`, else
    ADM's definition.

    Equal up to ties that the rounding of the two distances breaks differently (one or two pictures).
    """
    a, b = pair_of(real, fake, k)

    def radii(x: Tensor) -> Tensor:
        rows = [_cdist_rows(x[r], x, block, lambda d: smallest(d, k + 1)) for r in blocks(len(x), block)]
        return torch.cat([smallest(torch.cat(parts, 1), k + 1)[:, k] for parts in rows])

    def inside(x: Tensor, centres: Tensor, reach: Tensor) -> Tensor:
        found = []
        for r in blocks(len(x), block):
            hits = [(torch.cdist(x[r], centres[c]) <= reach[c]).any(1) for c in blocks(len(centres), block)]
            found.append(torch.stack(hits).any(0))
        return torch.cat(found)

    fake_in, real_in = inside(b, a, radii(a)), inside(a, b, radii(b))
    return PrecisionRecall(_share(fake_in), _share(real_in), fake_in, real_in)


def _cdist_rows(rows: Tensor, x: Tensor, block: int, reduce: Callable[[Tensor], Tensor]) -> list[Tensor]:
    return [reduce(torch.cdist(rows, x[c])) for c in blocks(len(x), block)]


@dataclass(frozen=True, eq=False)
class Realism:
    """Where each sample stands to the real manifold."""

    inside: Tensor  # (N_fake, len(ks)) bool
    score: Tensor  # (N_fake,): max over real points of radius / distance, both squared; 1 and more is inside
    nearest: Tensor  # (N_fake,) int64: the nearest real picture


def realism(
    *, real: Tensor, fake: Tensor, ks: Sequence[int] = (3,), eps: float = 1e-5, block: int = BLOCK
) -> Realism:
    """Membership, realism score (Kynkaanniemi et al. section 5, on squared distances with the first k, as
    ADM's evaluator) and nearest real picture.
    """
    a, b = pair_of(real, fake, max(ks))
    radii = manifold_radii(a, ks=ks, block=block)
    norms_a, norms_b = squared_norms(a), squared_norms(b)
    inside, score, nearest = [], [], []
    for c in blocks(len(b), block):
        hit = torch.zeros(len(b[c]), len(ks), dtype=torch.bool, device=a.device)
        best = torch.zeros(len(b[c]), device=a.device)
        closest = torch.full((len(b[c]),), float("inf"), device=a.device)
        where = torch.zeros(len(b[c]), dtype=torch.int64, device=a.device)
        for r in blocks(len(a), block):
            d = squared_distances(b[c], a[r], norms_b[c], norms_a[r]).clamp_min_(0)
            for i in range(len(ks)):
                hit[:, i] |= (d <= radii[r, i]).any(1)
            low, index = d.min(1)
            where = torch.where(low < closest, index + r.start, where)
            closest = torch.minimum(closest, low)
            best = torch.maximum(best, (radii[r, 0] / (d + eps)).amax(1))
        inside.append(hit)
        score.append(best)
        nearest.append(where)
    return Realism(torch.cat(inside), torch.cat(score), torch.cat(nearest))

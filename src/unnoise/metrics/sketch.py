"""Lower bounds of distances from a few directions, which spare most of the exact ones when features have few
degrees of freedom.

With an orthonormal basis Q and x = Q Q^T x + r, |x - y|^2 >= |Q^T (x - y)|^2 + (|r_x| - |r_y|)^2: the
distance of sketches of `RANK` + 1 numbers. A neighbour is found exactly once all others are bounded away. A
sample of the rows says first whether that decides enough of them to be worth it; on features without
structure nothing is tried further.
"""

import torch
from torch import Tensor

from unnoise.metrics.distances import BLOCK, blocks, squared_distances, squared_norms

RANK = 64
CANDIDATES = 20
HITS = 4
TOGETHER = 8
PROBE = 256
"""Rows that decide whether the rest is tried."""
WORTHWHILE = 0.6
"""Share of the probed rows that must come out decided."""
SMALLEST = 1024
"""Fewer points than this are measured outright."""


def _basis(x: Tensor, rank: int) -> Tensor:
    """Orthonormal (D, rank) that spans most of the variance of centred (N, D): two power iterations."""
    part = x[:: max(1, len(x) // 2048)]
    start = torch.randn(x.shape[1], rank, generator=torch.Generator().manual_seed(0)).to(x)
    for _ in range(2):
        start = torch.linalg.qr(part.T @ (part @ start)).Q
    return start


class Sketch:
    """Centred points, their sketches, and the rounding that a bound must be granted."""

    def __init__(self, x: Tensor, mean: Tensor, basis: Tensor) -> None:
        self.x = x - mean
        self.norms = squared_norms(self.x)
        low = self.x @ basis
        rest = torch.empty(len(x), device=x.device)
        for r in blocks(len(x), BLOCK):
            rest[r] = squared_norms(self.x[r] - low[r] @ basis.T).sqrt()
        self.low = torch.cat([low, rest[:, None]], 1)
        self.low_norms = squared_norms(self.low)
        self.slack = 1e-5 * float(self.norms.max())

    def __len__(self) -> int:
        return len(self.x)

    def bounds(self, rows: Tensor, other: "Sketch") -> Tensor:
        """Lower bounds of the squared distances of rows to all of `other`, less the rounding."""
        return squared_distances(
            self.low[rows], other.low, self.low_norms[rows] - self.slack, other.low_norms - other.slack
        )

    def exact(self, rows: Tensor, other: "Sketch", chosen: Tensor) -> Tensor:
        """Squared distances of rows to their chosen points of `other`; (R,), (R, m) -> (R, m)."""
        m = chosen.shape[1]
        cross = torch.empty(chosen.shape, device=self.x.device)
        for r in blocks(len(rows), TOGETHER):
            # One small matrix product whose block diagonal is wanted: faster than as many dot products.
            products = self.x[rows[r]] @ other.x[chosen[r].flatten()].T
            cross[r] = products.view(len(products), -1, m).diagonal().T
        return cross.mul_(-2).add_(self.norms[rows][:, None]).add_(other.norms[chosen]).clamp_min_(0)


def _sketches(*sets: Tensor) -> list[Sketch]:
    mean = sets[0].mean(0)
    basis = _basis(sets[0] - mean, min(RANK, sets[0].shape[1]))
    return [Sketch(x, mean, basis) for x in sets]


def _lowest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and places of the `count` smallest of each row."""
    found = values.topk(min(count, values.shape[1]), largest=False, sorted=True)
    return found.values, found.indices


def _probe(n: int, device: torch.device) -> Tensor:
    return torch.linspace(0, n - 1, min(PROBE, n), device=device).long()


def sketched_neighbours(x: Tensor, k: int, *, block: int = BLOCK) -> Tensor | None:
    """Squared distances to itself and the k nearest others, (N, k + 1); None where sketches do not help."""
    if len(x) < SMALLEST or x.shape[1] <= 2 * RANK or k + 1 >= CANDIDATES:
        return None
    (s,) = _sketches(x)

    def rows_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        low, chosen = _lowest(s.bounds(rows, s), CANDIDATES)
        best = s.exact(rows, s, chosen).topk(k + 1, largest=False, sorted=True).values
        return best, low[:, -1] > best[:, k]

    if rows_of(_probe(len(x), x.device))[1].double().mean() < WORTHWHILE:
        return None
    everything = torch.arange(len(x), device=x.device)
    found = [rows_of(everything[r]) for r in blocks(len(x), block)]
    out, sure = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
    left = (~sure).nonzero()[:, 0]
    for r in blocks(len(left), block):
        rows = left[r]
        d = squared_distances(s.x[rows], s.x, s.norms[rows], s.norms)
        out[rows] = d.topk(k + 1, largest=False, sorted=True).values.clamp_min_(0)
    return out


def sketched_membership(
    a: Tensor, b: Tensor, reach_a: Tensor, reach_b: Tensor, *, block: int = BLOCK
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((a inside a ball of b, a still open), the same of b): what lower bounds and a few exact distances
    decide.
    """
    nothing = [
        (
            torch.zeros(len(x), dtype=torch.bool, device=x.device),
            torch.ones(len(x), dtype=torch.bool, device=x.device),
        )
        for x in (a, b)
    ]
    if min(len(a), len(b)) < SMALLEST or a.shape[1] <= 2 * RANK:
        return nothing[0], nothing[1]
    sketch_b, sketch_a = _sketches(b, a)

    def decide(points: Sketch, centres: Sketch, reach: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        margin, chosen = _lowest(points.bounds(rows, centres).sub_(reach), HITS)
        inside = (points.exact(rows, centres, chosen) <= reach[chosen]).any(1)
        return inside, ~inside & (margin[:, -1] <= 0)

    results: list[tuple[Tensor, Tensor]] = []
    for points, centres, reach in ((sketch_a, sketch_b, reach_b), (sketch_b, sketch_a, reach_a)):
        _, undecided = decide(points, centres, reach, _probe(len(points), a.device))
        if undecided.double().mean() > 1 - WORTHWHILE:
            results.append(nothing[len(results)])
            continue
        everything = torch.arange(len(points), device=a.device)
        found = [decide(points, centres, reach, everything[r]) for r in blocks(len(points), block)]
        results.append((torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])))
    return results[0], results[1]

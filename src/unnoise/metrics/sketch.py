"""Lower bounds of distances from a few directions, which spare most of the exact ones when features have few
degrees of freedom.

With an orthonormal basis Q and x - mean = Q Q^T (x - mean) + r, |x - y|^2 >= |Q^T (x - y)|^2 + (|r_x| -
|r_y|)^2: the distance of sketches of `RANK` + 1 numbers. A neighbour is found exactly once all others are
bounded away. A sample of the rows says first whether that decides enough of them to be worth it; on features
without structure nothing is tried further.
"""

import warnings

import torch
from torch import Tensor

from unnoise.metrics.distances import blocks, lowest, squared_norms

RANK = 64
CANDIDATES = 20
HITS = 4
TOGETHER = 8
PANEL = 2**21
"""Bounds that are held at once, few enough to stay in a cache."""
PROBE = 256
"""Rows that decide whether the rest is tried."""
WORTHWHILE = 0.6
"""Share of the probed rows that must come out decided."""
SMALLEST = 1024
"""Fewer points than this are measured outright."""


def _basis(x: Tensor, rank: int) -> Tensor:
    """Orthonormal (D, rank) that spans most of the variance of centred (N, D): two power iterations."""
    start = torch.randn(x.shape[1], rank, generator=torch.Generator().manual_seed(0)).to(x)
    for _ in range(2):
        start = torch.linalg.qr(x.T @ (x @ start)).Q
    return start


class Sketch:
    """Points, their sketches, and the rounding that a bound must be granted."""

    def __init__(self, x: Tensor, mean: Tensor, basis: Tensor) -> None:
        self.x = x
        self.norms = squared_norms(x)
        low = torch.empty(len(x), basis.shape[1] + 1, device=x.device)
        for r in self.panels(x.shape[1]):
            centred = x[r] - mean
            low[r, :-1] = centred @ basis
            low[r, -1] = torch.linalg.vector_norm(centred.addmm_(low[r, :-1], basis.T, alpha=-1), dim=1)
        self.low = low
        self.low_norms = squared_norms(low)
        self.slack = 1e-5 * float(self.norms.max())

    def __len__(self) -> int:
        return len(self.x)

    def panels(self, width: int) -> list[slice]:
        """Rows in parts of which `width` numbers each fit into a cache."""
        return list(blocks(len(self.x), max(16, PANEL // width)))

    def nearest(
        self, rows: Tensor, other: "Sketch", count: int, reach: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Values and places of the `count` smallest lower bounds of rows' squared distances to `other`, less
        `reach` of each of those, ascending; (R,) -> twice (R, count).
        """
        offset = other.low_norms - (self.slack + other.slack)
        if reach is not None:
            offset = offset - reach
        values, places = lowest(torch.addmm(offset, self.low[rows], other.low.T, alpha=-2), count)
        return values + self.low_norms[rows][:, None], places

    def exact(self, rows: Tensor, other: "Sketch", chosen: Tensor) -> Tensor:
        """Squared distances of rows to their chosen points of `other`; (R,), (R, m) -> (R, m)."""
        products = sampled_products if self.x.device.type == "cpu" else gathered_products
        cross = products(self.x[rows], other.x, chosen)
        return cross.mul_(-2).add_(self.norms[rows][:, None]).add_(other.norms[chosen]).clamp_min_(0)


def sampled_products(a: Tensor, b: Tensor, chosen: Tensor) -> Tensor:
    """a_i . b_j for the chosen j of each i; (R, D), (M, D), (R, m) -> (R, m). Copies no row of b: 200,000
    products of 2048 numbers take 0.2 s, as much as gathering their rows alone.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        places = torch.sparse_csr_tensor(
            torch.arange(0, chosen.numel() + 1, chosen.shape[1]),
            chosen.flatten(),
            torch.zeros(chosen.numel()),
            (len(a), len(b)),
            check_invariants=False,
        )
    found: Tensor = torch.sparse.sampled_addmm(places, a, b.T, beta=0.0).values()
    return found.view(chosen.shape)


def gathered_products(a: Tensor, b: Tensor, chosen: Tensor) -> Tensor:
    """The same where there is no sampled product (not on a CPU), by one small matrix product whose block
    diagonal is wanted: faster than as many dot products.
    """
    found = torch.empty(chosen.shape, device=a.device)
    for r in blocks(len(a), TOGETHER):
        square = a[r] @ b[chosen[r].flatten()].T
        found[r] = square.view(len(square), -1, chosen.shape[1]).diagonal().T
    return found


def sketches(*sets: Tensor) -> list[Sketch] | None:
    """Sketches of sets (N, D) on one basis; None where there are too few points or dimensions to gain."""
    if min(len(x) for x in sets) < SMALLEST or sets[0].shape[1] <= 2 * RANK:
        return None
    part = torch.cat([x[:: max(1, len(x) * len(sets) // 2048)] for x in sets])
    mean = part.mean(0)
    basis = _basis(part - mean, RANK)
    return [Sketch(x, mean, basis) for x in sets]


def _probe(n: int, device: torch.device) -> Tensor:
    return torch.linspace(0, n - 1, min(PROBE, n), device=device).long()


def sketched_neighbours(s: Sketch, k: int) -> tuple[Tensor, Tensor] | None:
    """Squared distances of points to themselves and the k nearest others, (N, k + 1), and which rows of that
    are open; None where sketches do not help.
    """
    if k + 1 >= CANDIDATES:
        return None

    def rows_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        low, chosen = s.nearest(rows, s, CANDIDATES)
        best = s.exact(rows, s, chosen).topk(k + 1, largest=False, sorted=True).values
        return best, low[:, -1] <= best[:, k]

    if rows_of(_probe(len(s), s.x.device))[1].double().mean() > 1 - WORTHWHILE:
        return None
    everything = torch.arange(len(s), device=s.x.device)
    found = [rows_of(everything[r]) for r in s.panels(len(s))]
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])


def sketched_membership(points: Sketch, centres: Sketch, reach: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which points lie in a ball of `centres`, and which are still open: what lower bounds and a few exact
    distances decide; None where that is little.
    """

    def decide(rows: Tensor) -> tuple[Tensor, Tensor]:
        margin, chosen = points.nearest(rows, centres, HITS, reach)
        inside = (points.exact(rows, centres, chosen) <= reach[chosen]).any(1)
        return inside, ~inside & (margin[:, -1] <= 0)

    if decide(_probe(len(points), reach.device))[1].double().mean() > 1 - WORTHWHILE:
        return None
    everything = torch.arange(len(points), device=reach.device)
    found = [decide(everything[r]) for r in points.panels(len(centres))]
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

"""Squared Euclidean distances in blocks of bounded memory, and the k nearest neighbours from them.

Everything that compares sets of features point by point stands on this: precision, recall, density, coverage,
nearest training pictures.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1024
CHUNK = 32


def squared_norms(x: Tensor) -> Tensor:
    """|x|^2 of each row of (N, D)."""
    return x.square().sum(1)


def squared_distances(a: Tensor, b: Tensor, norms_a: Tensor, norms_b: Tensor) -> Tensor:
    """|a|^2 - 2 a b + |b|^2 as one matrix product; (len(a), len(b)), not clamped at 0."""
    return torch.addmm(norms_b[None], a, b.T, alpha=-2).add_(norms_a[:, None])


def half_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """ADM's squared distances: float16 after each elementary step, sums and products accumulated in float32,
    clamped at 0.

    Where any of them overflows float16 the whole block is float32. Returns float32.
    """

    def rounded(x: Tensor) -> Tensor:
        return x.half().float()

    def steps(a: Tensor, b: Tensor, cast: bool) -> Tensor:
        f = rounded if cast else torch.Tensor.float
        a, b = f(a), f(b)
        norms_a, norms_b = f(f(a * a).sum(1)), f(f(b * b).sum(1))
        cross = f(2 * f(a @ b.T))
        return f(f(norms_a[:, None] - cross) + norms_b[None]).clamp_min(0)

    half = steps(a, b, True)
    return half if bool(torch.isfinite(half).all()) else steps(a, b, False)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    for begin in range(0, n, size):
        yield slice(begin, min(begin + size, n))


def smallest(values: Tensor, k: int) -> Tensor:
    """The k smallest of each row, ascending; (rows, k).

    All k lie in the k chunks of a row that have the smallest minima, so only those are sorted: much less work
    than a partition of the row.
    """
    n = values.shape[1]
    if n > 4 * k * CHUNK:
        whole = n - n % CHUNK
        chunked = values[:, :whole].reshape(len(values), -1, CHUNK)
        best = chunked.amin(2).topk(k, largest=False, sorted=False).indices
        chosen = chunked.gather(1, best[:, :, None].expand(-1, -1, CHUNK)).flatten(1)
        values = torch.cat([chosen, values[:, whole:]], 1)
    if values.shape[1] < k:
        pad = values.new_full((len(values), k - values.shape[1]), float("inf"))
        values = torch.cat([values, pad], 1)
    return values.topk(k, largest=False, sorted=True).values


def neighbour_distances(x: Tensor, k: int, *, block: int = BLOCK) -> Tensor:
    """Squared distances of each row of (N, D) to itself and its k nearest others, ascending: (N, k + 1),
    clamped at 0.

    Each pair of blocks is multiplied once and read from both sides.
    """
    norms = squared_norms(x)
    slices = list(blocks(len(x), block))
    best = x.new_full((len(x), k + 1), float("inf"))

    def add(rows: slice, values: Tensor, lowest: Tensor) -> None:
        """values: a matrix of distances, `lowest` its row minima; rows that no value improves are left
        alone.
        """
        known = best[rows]
        closer = (lowest < known[:, k]).nonzero()[:, 0]
        if len(closer):
            known[closer] = smallest(torch.cat([known[closer], smallest(values[closer], k + 1)], 1), k + 1)

    for rows in slices:
        for columns in slices[rows.start // block :]:
            d = squared_distances(x[rows], x[columns], norms[rows], norms[columns])
            add(rows, d, d.amin(1))
            if columns is not rows:
                add(columns, d.T, d.amin(0))
    return best.clamp_min_(0)


def principal_directions(x: Tensor, rank: int) -> Tensor:
    """Orthonormal (D, rank) that spans most of the variance of (N, D): one power iteration, fixed start."""
    start = torch.randn(x.shape[1], rank, generator=torch.Generator().manual_seed(0)).to(x)
    centred = x - x.mean(0)
    basis: Tensor = torch.linalg.qr(centred.T @ (centred @ start)).Q
    return basis


def _argmin(values: Tensor) -> Tensor:
    """Index of the smallest of each row but for the last columns % CHUNK; far faster on a CPU than
    `argmin`.
    """
    whole = values.shape[1] - values.shape[1] % CHUNK
    if whole == 0:
        return values.argmin(1)
    chunks = values[:, :whole].reshape(len(values), -1, CHUNK)
    best = chunks.amin(2).argmin(1)
    inside: Tensor = chunks[torch.arange(len(values), device=values.device), best]
    return best * CHUNK + inside.argmin(1)


def likely_neighbours(
    a: Tensor, b: Tensor, reach_a: Tensor, reach_b: Tensor, *, rank: int = 32, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """For each a the b in whose ball of squared radius reach_b it most likely lies, and for each b likewise:
    int64 (len(a),) and (len(b),).

    By estimates of |a - b|^2 - reach from `rank` principal directions and the norms of the rest, a few
    hundredths of the cost of the distances: hints, never results.
    """
    basis = principal_directions(b[:: max(1, len(b) // 2048)], min(rank, b.shape[1]))
    low_a, low_b = -2 * (a @ basis), b @ basis
    rest_a, rest_b = squared_norms(a) - reach_a, squared_norms(b) - reach_b

    def best(low: Tensor, others: Tensor, rest: Tensor) -> Tensor:
        found = []
        for r in blocks(len(low), block):
            parts = [(c, torch.addmm(rest[None, c], low[r], others[c].T)) for c in blocks(len(others), block)]
            places = torch.stack([_argmin(e) + c.start for c, e in parts], 1)
            lowest = torch.stack([e.amin(1) for _, e in parts], 1).argmin(1, keepdim=True)
            found.append(places.gather(1, lowest)[:, 0])
        return torch.cat(found)

    return best(low_a, low_b, rest_b), best(low_b, low_a, rest_a)

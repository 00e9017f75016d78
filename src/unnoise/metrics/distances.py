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
    """Squared distances of each row of (N, D) to itself and its k nearest others, ascending: (N, k + 1), >=
    0.

    Where a few directions bound the distances well, only a few candidates of each row are measured
    (`sketch.py`); else each pair of blocks is multiplied once and read from both sides. Exact either way.
    """
    from unnoise.metrics.sketch import sketched_neighbours

    found = sketched_neighbours(x, k, block=block)
    return _all_neighbours(x, k, block) if found is None else found


def _all_neighbours(x: Tensor, k: int, block: int) -> Tensor:
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

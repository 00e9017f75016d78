"""Squared Euclidean distances in blocks of bounded memory, and the smallest of them.

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
    norms: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norms.square_()


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
    """The k smallest of each row, ascending; (rows, k), padded with infinity."""
    if values.shape[1] < k:
        pad = values.new_full((len(values), k - values.shape[1]), float("inf"))
        values = torch.cat([values, pad], 1)
    return lowest(values, k)[0]


def lowest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row, ascending, and their columns; k is at most the number of columns.

    All k lie in the k chunks of a row that have the smallest minima, so only those are sorted: much less work
    than a partition of the row.
    """
    n = values.shape[1]
    if n <= 4 * k * CHUNK:
        found = values.topk(k, largest=False, sorted=True)
        return found.values, found.indices
    whole = n - n % CHUNK
    chunked = values[:, :whole].reshape(len(values), -1, CHUNK)
    best = chunked.amin(2).topk(k, largest=False, sorted=False).indices[:, :, None]
    chosen = chunked.gather(1, best.expand(-1, -1, CHUNK)).flatten(1)
    found = torch.cat([chosen, values[:, whole:]], 1).topk(k, largest=False, sorted=True)
    columns = (best * CHUNK + torch.arange(CHUNK, device=values.device)).flatten(1)
    rest = torch.arange(whole, n, device=values.device).expand(len(values), -1)
    return found.values, torch.cat([columns, rest], 1).gather(1, found.indices)

"""Distances among the pictures of one side: the costly part of density, coverage, precision and near-copies,
of a reference the same for all samples, so kept beside its features.
"""

import contextlib

from safetensors import SafetensorError
from torch import Tensor

from unnoise.metrics.collect import keep, kept
from unnoise.metrics.features import Table
from unnoise.metrics.neighbours import neighbour_distances

NAME = "neighbours"


def own_neighbours(table: Table, k: int, *, block: int) -> Tensor:
    """`neighbour_distances` of a table's pool, (N, k + 1), found in the cache or computed into it."""
    path = None if table.folder is None else table.folder / f"{NAME}-{table.n}-{k}.safetensors"
    known = (kept(path) or {}).get(NAME) if path else None
    if known is not None and known.shape == (table.n, k + 1):
        return known
    found = neighbour_distances(table.load("pool"), k, block=block)
    if path:
        # Features that may only be read serve as well: the search is then made each time.
        with contextlib.suppress(OSError, SafetensorError):
            keep(path, {NAME: found})
    return found

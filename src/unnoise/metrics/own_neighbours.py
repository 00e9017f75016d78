"""Distances among the pictures of one side: the costly part of density, coverage, precision and near-copies,
of a reference the same for all samples, so kept beside its features.
"""

import os

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise.metrics.features import Table
from unnoise.metrics.neighbours import neighbour_distances

NAME = "neighbours"


def own_neighbours(table: Table, k: int, *, block: int) -> Tensor:
    """`neighbour_distances` of a table's pool, (N, k + 1), found in the cache or computed into it."""
    path = None if table.folder is None else table.folder / f"{NAME}-{table.n}-{k}.safetensors"
    if path is not None and path.exists():
        try:
            found = load_file(path)[NAME]
            if found.shape == (table.n, k + 1):
                return found
        except (SafetensorError, OSError, KeyError):
            pass  # damaged: computed again
    found = neighbour_distances(table.load("pool"), k, block=block)
    if path is not None:
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file({NAME: found.contiguous()}, aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    assert isinstance(found, Tensor)
    return found

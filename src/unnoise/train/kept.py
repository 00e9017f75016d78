"""What is worked out once of every picture and its mirror image, kept in float16 beside the decoded ones."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from unnoise.data import Dataset, cache, order
from unnoise.data.split import Chosen
from unnoise.images import to_images
from unnoise.modelfile import write_atomically

BLOCK = 64
"""Pictures worked on side by side."""
SAVED_EVERY = 16
"""Blocks between notes of how far the work came."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Kept:
    """One map of every picture of a data set, and of its mirror image where pictures are mirrored; mapped."""

    values: np.ndarray
    """(N, K, C, h, w) float16; K is 1 or, where pictures are mirrored, 2."""
    dataset: Dataset
    index: np.ndarray | None = None
    """(N,) int64: which of `values` are the data set's; None for all in order."""

    def at(self, places: np.ndarray) -> Tensor:
        """Those at places of the shuffled sequence (see `Dataset.batch`), (B, C, h, w) float32."""
        data = self.dataset
        mirrored = np.zeros(len(places), np.int64)
        if data.flip:
            mirrored = (order.draws(data.seed, "flip", places) & np.uint64(1)).astype(np.int64)
        return self._of(order.pictures(data.seed, len(data), places), mirrored)

    def take(self, chosen: np.ndarray) -> Tensor:
        """Those of pictures by their index in the data set, not mirrored, (B, C, h, w) float32."""
        return self._of(chosen, np.zeros(len(chosen), np.int64))

    def has(self, part: Dataset) -> bool:
        """Whether these pictures are the data set, or a part of it as `hold_out` makes it."""
        store = part.store
        return part is self.dataset or (isinstance(store, Chosen) and store.store is self.dataset.store)

    def part(self, part: Dataset) -> "Kept":
        """Those of a part of the data set."""
        assert self.has(part), "a part of this data set"
        if part is self.dataset:
            return self
        index = cast(Chosen, part.store).index
        return replace(self, dataset=part, index=index if self.index is None else self.index[index])

    def _of(self, chosen: np.ndarray, mirrored: np.ndarray) -> Tensor:
        rows = chosen if self.index is None else self.index[chosen]
        return torch.from_numpy(self.values[rows, mirrored]).float()


def keep(
    dataset: Dataset,
    name: str,
    make: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    folder: str | None,
    on_progress: OnProgress,
) -> Kept:
    """What `make` makes of every picture, from the cache or worked out into it; interrupted work continues.

    make: (B, C, H, W) in [-1, 1] on the CPU -> (B, *shape). name: tells it from all else that might be made.
    The cache knows the data by their hash: what was made of other data is never taken. OSError when the disk
    is full.
    """
    if dataset.crop == "random":
        raise ValueError(
            "data.crop=random shows every picture in many ways, which no cache of latents can hold; use "
            "data.crop=center, or latents.cache=false"
        )
    views = 2 if dataset.flip else 1
    content = f"{dataset.content[:32]}-{dataset.size}x{dataset.channels}-{name}-{views}"
    path = cache.home(folder) / "latents" / f"{content}.npy"
    if not path.exists():
        with cache.building(path):
            if not path.exists():  # another process may have made it meanwhile
                _make(dataset, make, (len(dataset), views, *shape), path, on_progress)
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.shape != (len(dataset), views, *shape):
        raise ValueError(f"{path} holds other latents than its name says; delete it")
    return Kept(values, dataset)


def _make(
    dataset: Dataset,
    make: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    path: Path,
    on_progress: OnProgress,
) -> None:
    """Write what is made of all pictures, block by block, aside; then under its name."""
    aside, noted = path.with_suffix(".part.npy"), path.with_suffix(".json")
    done = _noted(noted) if aside.exists() else 0
    mode = "r+" if done else "w+"
    whole = np.lib.format.open_memmap(aside, mode=mode, dtype=np.float16, shape=shape)
    for number, start in enumerate(range(done, len(dataset), BLOCK)):
        stop = min(start + BLOCK, len(dataset))
        images = to_images(dataset.take(np.arange(start, stop)).pixels)
        for view in range(shape[1]):
            with torch.no_grad():
                made = make(images.flip(3) if view else images)
            whole[start:stop, view] = made.half().cpu().numpy()
        on_progress(stop, len(dataset))
        if number % SAVED_EVERY == SAVED_EVERY - 1:
            whole.flush()
            write_atomically(noted, json.dumps(stop).encode())
    whole.flush()
    del whole
    aside.replace(path)
    noted.unlink(missing_ok=True)


def _noted(path: Path) -> int:
    """How many pictures interrupted work has got through; 0 where that cannot be read."""
    try:
        return int(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return 0

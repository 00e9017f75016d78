"""A data set in two parts, chosen by the seed alone."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from unnoise.data import order
from unnoise.data.crop import Window
from unnoise.data.dataset import Dataset, Store


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some pictures of a store. index: (N,) int64 into it."""

    store: Store
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return self.store.channels

    def center(self, chosen: np.ndarray) -> np.ndarray:
        """As the store's own."""
        return self.store.center(self.index[chosen])

    def drawn(self, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """As the store's own."""
        return self.store.drawn(self.index[chosen], draws)

    def windows(self, chosen: np.ndarray, draws: np.ndarray, sides: np.ndarray) -> list[Window]:
        """As the store's own."""
        return self.store.windows(self.index[chosen], draws, sides)


def hold_out(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """The data set without a share of its pictures, and those: a function of (seed, number of pictures).

    share: in (0, 1). Each part has at least one picture; ValueError when there are not two.
    """
    if len(dataset) < 2:
        raise ValueError(f"{dataset.report.source} has one picture, none can be held out; name more pictures")
    count = min(max(round(share * len(dataset)), 1), len(dataset) - 1)
    shuffled = order.pictures(dataset.seed, len(dataset), np.arange(len(dataset)))
    return part(dataset, np.sort(shuffled[count:])), part(dataset, np.sort(shuffled[:count]))


def part(dataset: Dataset, index: np.ndarray) -> Dataset:
    """The pictures of a data set at `index`, (N,) int64, in that order. Its report still tells of all."""
    digest = hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()[:16]
    return replace(
        dataset,
        store=Chosen(dataset.store, index),
        content=f"{dataset.content}:{digest}",
        name_of=lambda k: dataset.name_of(int(index[k])),
        labels=None if dataset.labels is None else dataset.labels[index],
        captions=None if dataset.captions is None else [dataset.captions[k] for k in index],
    )

"""A data set ready for training and measuring: squares of one size, in memory or mapped from the cache."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unnoise.data import order
from unnoise.data.crop import Window, center_window, cut_pixels, random_window
from unnoise.data.report import DataReport
from unnoise.data.workers import processors

_THREADED = 64
"""Sides from which cutting in several threads repays their coming and going."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures and what is known of them. pixels: uint8 (B, H, W, C); label: (B,) int64; caption: B texts."""

    pixels: Tensor
    label: Tensor | None = None
    caption: list[str] | None = None


@dataclass(frozen=True, eq=False)
class Followed:
    """How the pictures of a batch were cut, for what must be cut alike: boxes (data/layout.py), maps.

    chosen: (B,) indices into the data set; windows: of each; flipped: (B,) bool, mirrored after the cut.
    """

    chosen: np.ndarray
    windows: list[Window]
    flipped: np.ndarray


class Store(Protocol):
    """Where decoded pictures lie."""

    @property
    def channels(self) -> int:
        """Of the pictures it gives."""

    def __len__(self) -> int: ...

    def center(self, chosen: np.ndarray) -> np.ndarray:
        """Pictures cut from the middle. chosen: (K,) indices; returns uint8 (K, H, W, C)."""

    def drawn(self, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Pictures cut as training sees them. draws: (K,) uint64 random bits, one a picture."""

    def windows(self, chosen: np.ndarray, draws: np.ndarray, sides: np.ndarray) -> list[Window]:
        """What `drawn` cuts. sides: (K, 2) widths and heights of the pictures as they are in their files."""


@dataclass(frozen=True, eq=False)
class Squares:
    """Pictures already cut. pixels: (N, H, W, C) uint8, in memory or mapped."""

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return int(self.pixels.shape[3])

    def center(self, chosen: np.ndarray) -> np.ndarray:
        """As stored."""
        return np.asarray(self.pixels[chosen])

    def drawn(self, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """As stored: there is nothing to draw."""
        return self.center(chosen)

    def windows(self, chosen: np.ndarray, draws: np.ndarray, sides: np.ndarray) -> list[Window]:
        """The middle squares, as they were cut before they were stored."""
        return [center_window(int(wide), int(high), self.pixels.shape[1]) for wide, high in sides]


@dataclass(frozen=True, eq=False)
class Whole:
    """Whole pictures after the halvings that all random crops share.

    flat: uint8, all pictures one after the other; table: (N, 3) offset, height, width.
    """

    flat: np.ndarray
    table: np.ndarray
    size: int
    stored_channels: int
    channels: int

    def __len__(self) -> int:
        return len(self.table)

    def center(self, chosen: np.ndarray) -> np.ndarray:
        """ADM's centre crop, exactly as if made from the picture's file."""
        return self._cut(chosen, lambda k, wide, high: center_window(wide, high, self.size))

    def drawn(self, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """ADM's random crop of each picture, drawn from its bits."""
        return self._cut(chosen, lambda k, wide, high: self._window(draws[k], wide, high))

    def windows(self, chosen: np.ndarray, draws: np.ndarray, sides: np.ndarray) -> list[Window]:
        """The random crops, in pictures that have the proportions of their files to a pixel."""
        stored = self.table[chosen]
        return [self._window(bits, int(row[2]), int(row[1])) for bits, row in zip(draws, stored, strict=True)]

    def _window(self, bits: np.uint64, wide: int, high: int) -> Window:
        return random_window(wide, high, self.size, random.Random(int(bits)))

    def _cut(self, chosen: np.ndarray, window: Callable[[int, int, int], Window]) -> np.ndarray:
        def one(k: int) -> np.ndarray:
            offset, high, wide = (int(v) for v in self.table[chosen[k]])
            pixels = self.flat[offset : offset + high * wide * self.stored_channels]
            pixels = np.asarray(pixels).reshape(high, wide, self.stored_channels)[..., : self.channels]
            return cut_pixels(pixels, window(k, wide, high), self.size)

        each = self._threads.map if self.size >= _THREADED else map
        return np.stack(list(each(one, range(len(chosen)))))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(processors(), thread_name_prefix="crop")


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Pictures as squares of one size, with labels and captions, in an order that the seed alone decides."""

    store: Store
    size: int
    """Side, pixels."""
    channels: int
    report: DataReport
    content: str
    """Hash of the pixels as stored."""
    name_of: Callable[[int], str]
    """Picture -> its name for people."""
    labels: np.ndarray | None = None
    """(N,) int64 indices into `classes`."""
    classes: tuple[str, ...] = ()
    captions: list[str] | None = None
    flip: bool = False
    crop: str = "center"
    seed: int = 0

    def __len__(self) -> int:
        return len(self.store)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that training sees but for the seed: pixels, labels, classes, captions, crop, flip."""
        digest = hashlib.sha256(self.content.encode())
        facts: list[Any] = [
            len(self),
            self.size,
            self.channels,
            self.crop,
            self.flip,
            self.classes,
            self.captions,
        ]
        digest.update(json.dumps(facts).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()[:32]

    def batch(self, step: int, positions: np.ndarray | Tensor) -> Batch:
        """The pictures at positions of the endless shuffled sequence (data/order.py), cropped and flipped.

        positions: (B,) integers >= 0; step s of a global batch B is s*B .. s*B + B - 1, of which each rank
        takes a contiguous slice. Each picture, crop and flip depends on (seed, position) alone; `step` is the
        caller's and changes nothing.
        """
        places = np.asarray(positions, np.int64)
        chosen = order.pictures(self.seed, len(self), places)
        pixels = self.store.drawn(chosen, order.draws(self.seed, "crop", places))
        if self.flip:
            mirrored = self._flipped(places)
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        return self._with_facts(pixels, chosen)

    def facts_at(self, positions: np.ndarray | Tensor) -> Batch:
        """What `batch` knows of these places without their pictures, whose pixels are then none."""
        chosen = order.pictures(self.seed, len(self), np.asarray(positions, np.int64))
        return self._with_facts(np.zeros((len(chosen), 0, 0, self.channels), np.uint8), chosen)

    def labels_at(self, positions: np.ndarray | Tensor) -> Tensor | None:
        """The labels of `batch` alone, without reading a picture; None without labels."""
        if self.labels is None:
            return None
        return torch.from_numpy(self.labels[order.pictures(self.seed, len(self), np.asarray(positions))])

    def follow(self, positions: np.ndarray | Tensor, sides: np.ndarray) -> Followed:
        """How `batch` cuts and mirrors the pictures at these positions.

        sides: (N, 2) width and height of every picture as it is in its file, such as a layout's.
        """
        if len(sides) != len(self):
            raise ValueError(
                f"sides of {len(sides):,} pictures were given for {len(self):,}; give one for each"
            )
        places = np.asarray(positions, np.int64)
        chosen = order.pictures(self.seed, len(self), places)
        windows = self.store.windows(chosen, order.draws(self.seed, "crop", places), sides[chosen])
        return Followed(chosen, windows, self._flipped(places))

    def _flipped(self, places: np.ndarray) -> np.ndarray:
        """Which pictures at these positions are mirrored, (B,) bool."""
        return self.flip & (order.draws(self.seed, "flip", places) & np.uint64(1)).astype(bool)

    def take(self, chosen: np.ndarray | Tensor) -> Batch:
        """Pictures by their index in file order, cut from the middle, not flipped. chosen: (K,) in [0, N)."""
        chosen = np.asarray(chosen, np.int64)
        return self._with_facts(self.store.center(chosen), chosen)

    def blocks(self, size: int = 256) -> Iterator[Batch]:
        """Every picture once in file order, as `take` gives them, `size` at a time (the last block fewer)."""
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    def _with_facts(self, pixels: np.ndarray, chosen: np.ndarray) -> Batch:
        label = None if self.labels is None else torch.from_numpy(self.labels[chosen])
        caption = None if self.captions is None else [self.captions[k] for k in chosen]
        return Batch(torch.from_numpy(np.ascontiguousarray(pixels)), label, caption)

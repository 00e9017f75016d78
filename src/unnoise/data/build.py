"""Decodes a data set once, several pictures at a time and in bounded memory, for the cache to store."""

import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unnoise.data import decode
from unnoise.data.crop import center_crop, halve, largest_shorter
from unnoise.data.decode import BrokenPicture, UnreadablePicture
from unnoise.data.shape import Shape
from unnoise.data.source import Read, Source
from unnoise.data.workers import in_order, workers

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""
_IN_FLIGHT = 2**26
"""Pixels decoded at a time by all workers together; a larger picture waits to be alone."""
_CHUNK_BYTES = 2**20
"""Pixels of good pictures that a worker hands over together, about."""
_SIZES_KEPT = 100
_NOTES_KEPT = 5
LONG, TINY = 16, 8
"""Sides differing by this factor, or pictures enlarged by it, are worth a warning."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One picture decoded: its pixels (H, W, C) and sides as stored, or why not."""

    pixels: np.ndarray | None
    sides: tuple[int, int] = (0, 0)
    reason: str = ""
    unreadable: bool = False


@dataclass(eq=False)
class Tally:
    """What was met while decoding, added up."""

    broken: list[tuple[int, str]] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    """Offset, height and width of each picture, when they differ."""
    offset: int = 0
    upscaled: int = 0
    colour: bool = False
    odd: list[str] = field(default_factory=list)
    odd_count: int = 0

    def add(self, index: int, name: str, outcome: Outcome, shape: Shape) -> np.ndarray | None:
        """Counts one picture and returns its pixels if it has any."""
        if outcome.pixels is None:
            self.broken.append((index, outcome.reason))
            if outcome.unreadable:
                self.unreadable.append(index)
            return None
        pixels, (width, height) = outcome.pixels, outcome.sides
        self.sizes[width, height] += 1
        self.upscaled += min(width, height) < shape.size
        if shape.whole:
            self.rows.extend((self.offset, *pixels.shape[:2]))
        self.offset += pixels.size
        if not self.colour and pixels.shape[2] == 3:
            self.colour = bool((pixels != pixels[..., :1]).any())
        if max(width, height) > LONG * min(width, height) or shape.size > TINY * min(width, height):
            self.odd_count += 1
            if len(self.odd) < _NOTES_KEPT:
                self.odd.append(f"{name} is {width}x{height}")
        return pixels

    def facts(self, shape: Shape) -> dict[str, Any]:
        """The tally as fields of `Facts`, but for what writing the pixels adds."""
        most = [(*sides, k) for sides, k in self.sizes.most_common(_SIZES_KEPT)]
        return {
            "size": shape.size,
            "channels": shape.decoding.channels,
            "pictures": sum(self.sizes.values()),
            "broken": self.broken,
            "unreadable": self.unreadable,
            "sizes": most,
            "different_sizes": len(self.sizes),
            "upscaled": self.upscaled,
            "colour": self.colour,
            "odd": self.odd,
            "odd_count": self.odd_count,
        }


def decoded(source: Source, shape: Shape, tally: Tally, on_progress: Progress | None) -> Iterator[np.ndarray]:
    """The pixels of the good pictures in order, (H, W, C) uint8 each; `tally` is filled on the way."""
    budget = Budget(_IN_FLIGHT)

    def work(read: Read) -> Outcome:
        return prepare(read, shape, budget)

    # whole pictures may be long, so only a few of them go together
    chunk = min(_CHUNK_BYTES // (shape.size**2 * shape.decoding.channels) + 1, 4 if shape.whole else 64)
    done = 0
    with decode.quiet(), workers() as pool:
        for outcomes in in_order(pool, work, source.reads(), chunk):
            for outcome in outcomes:
                pixels = tally.add(done, source.name_of(done), outcome, shape)
                done += 1
                if pixels is not None:
                    yield pixels
            if on_progress is not None:
                on_progress(done, source.count)


def prepare(read: Read, shape: Shape, budget: "Budget") -> Outcome:
    """One picture read, decoded and cut to shape."""
    try:
        raw = read()
        if isinstance(raw, np.ndarray):
            bands = decode.from_pixels(raw, shape.decoding)
            return Outcome(_shaped(bands, shape), (raw.shape[1], raw.shape[0]))
        with decode.opened(raw, shape.decoding.max_pixels) as image, budget.taken(image.width * image.height):
            image = decode.upright(image, shape.decoding)
            return Outcome(_shaped([image], shape), image.size)
    except UnreadablePicture as error:
        return Outcome(None, reason=str(error), unreadable=True)
    except BrokenPicture as error:
        return Outcome(None, reason=str(error))


def readable(source: Source, wanted: list[int]) -> bool:
    """Whether any of these pictures, whose bytes could not be had before, can be had now."""
    left = set(wanted)
    for k, read in enumerate(source.reads() if left else ()):
        if k in left:
            left.discard(k)
            try:
                raw = read()
                if isinstance(raw, Path):
                    raw.open("rb").close()
                return True
            except (OSError, UnreadablePicture):
                pass
        if not left:
            break
    return False


@dataclass(eq=False)
class Budget:
    """Bounds the pixels being decoded at once; a picture beyond the bound waits until it is alone."""

    bound: int
    used: int = 0
    change: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Holds `pixels` of the budget."""
        share = min(pixels, self.bound)
        with self.change:
            self.change.wait_for(lambda: self.used + share <= self.bound)
            self.used += share
        try:
            yield
        finally:
            with self.change:
                self.used -= share
                self.change.notify_all()


def _shaped(bands: list[Image.Image], shape: Shape) -> np.ndarray:
    if not shape.whole:
        return np.concatenate([center_crop(band, shape.size) for band in bands], axis=2)
    halved = [np.asarray(halve(band, largest_shorter(shape.size))) for band in bands]
    return np.concatenate([band[..., None] if band.ndim == 2 else band for band in halved], axis=2)

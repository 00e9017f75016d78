"""What every kind of data becomes before it is decoded: a list of pictures to read, with labels and captions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Raw = bytes | Path | np.ndarray
"""An encoded picture (its bytes, or its file), or pixels: uint8 (H, W, C)."""
Read = Callable[[], Raw]
"""Fetches one picture; called in worker threads, so that reading overlaps with decoding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set as found on disk, nothing decoded yet. Labels and captions are one a picture, in the same order."""

    name: str
    """For people: the folder, file or built-in."""
    count: int
    name_of: Callable[[int], str]
    """Picture -> its name for people."""
    reads: Callable[[], Iterator[Read]]
    """Walks through the pictures in order."""
    identity: str
    """Hash that changes whenever the pictures may have changed, had without decoding any."""
    labels: np.ndarray | None = None
    """(count,) int64."""
    classes: tuple[str, ...] = ()
    captions: list[str] | None = None
    shape: tuple[int, int, int] | None = None
    """(H, W, C) of every picture when the file says so."""
    pixels: np.ndarray | None = None
    """(count, H, W, C) uint8 when the whole set is in memory already."""
    ignored: int = 0
    notes: tuple[str, ...] = field(default=())


def class_names(values: set[str]) -> tuple[str, ...]:
    """Classes in order: by number when all are numbers, else by name."""
    if values and all(value.isdecimal() for value in values):
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    return tuple(sorted(values))

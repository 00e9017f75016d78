"""What every kind of data becomes before it is decoded: pictures to read, with labels and captions."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Raw = bytes | Path | np.ndarray
"""An encoded picture (its bytes, or its file), or pixels: uint8 (H, W, C)."""
Read = Callable[[], Raw]
"""Fetches one picture; called in worker threads, so that reading overlaps with decoding."""
IN_MEMORY = 2**26
"""Bytes of pictures up to which an array file is held in memory and needs no cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set as found, nothing decoded yet. Labels and captions are one a picture, in the same order."""

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
    notes: tuple[str, ...] = ()


def given(pixels: np.ndarray) -> np.ndarray:
    """The read of a picture that is at hand."""
    return pixels


def printable(name: str) -> str:
    """A name that can be printed and stored, whatever bytes it is made of."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


def class_names(values: set[str]) -> tuple[str, ...]:
    """Classes in order: by number when all are numbers, else by name."""
    if values and all(value.isascii() and value.isdecimal() for value in values):
        # As int() would order them, which refuses very long ones.
        return tuple(sorted(values, key=lambda v: (len(v.lstrip("0")), v.lstrip("0"), v)))
    return tuple(sorted(values))


def array_classes(values: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and classes of an array of numbers or names, one a picture. ValueError when a number is
    negative.
    """
    if values.dtype.kind == "i" and values.min() < 0:
        missing = int((values < 0).sum())
        text = f"{where}: {missing:,} of {len(values):,} labels are negative, so those pictures have no class"
        raise ValueError(f"{text}; label them, or --set data.labels=none to leave labels out")
    unique, inverse = np.unique(values, return_inverse=True)
    names = [printable(str(value)) for value in unique]
    classes = class_names(set(names))
    place = np.array([classes.index(name) for name in names], np.int64)
    return place[inverse.reshape(-1)], classes


def file_identity(path: Path) -> str:
    """Where a file is, its size and its times. (The last change's time too, because a copy can keep the
    other.)
    """
    facts = path.stat()
    return f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}"

"""idx files, the form of MNIST and its heirs: plain or gzipped, a directory of four or one images file with
its labels.
"""

import gzip
import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from unnoise.data.source import IN_MEMORY, Read, Source, array_classes, file_identity, given

_IMAGES, _LABELS = 0x0803, 0x0801
SPLITS = {"train": "train", "test": "t10k"}


def is_idx(path: Path) -> bool:
    """Whether a file is an idx file of pictures, gzipped or not."""
    try:
        with _open(path) as file:
            return file.read(4) == struct.pack(">I", _IMAGES)
    except (OSError, EOFError, zlib.error):
        return False


def find(folder: Path, split: str) -> Path | None:
    """The images file of a split ("train" or "test") in a folder of MNIST's four files."""
    for mark in ("-", "."):
        for ending in (".gz", ""):
            path = folder / f"{SPLITS[split]}-images{mark}idx3-ubyte{ending}"
            if path.is_file():
                return path
    return None


def open_idx(images: Path, *, name: str = "", classes: tuple[str, ...] | None = None) -> Source:
    """The pictures of an idx file, with the labels of the file beside it that is named alike.

    classes: names of labels 0, 1, ...; None calls them by their numbers. ValueError when a file is not what
    it says.
    """
    with _open(images) as file:
        count, height, width = _header(file, images, _IMAGES, 3)
        if not count or not height or not width:
            raise ValueError(
                f"{images} holds {count} pictures of {width}x{height}; name a file with pictures"
            )
        small = count * height * width <= IN_MEMORY
        pixels = None
        if small:
            pixels = _last(file, count * height * width, images).reshape(count, height, width, 1)
    beside = _labels_beside(images)
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if beside is None:
        notes = (f"no labels file beside {images.name}, so the pictures have no classes",)
    else:
        labels, names = _labels(beside, count, classes)
    return Source(
        name=name or str(images),
        count=count,
        name_of=lambda k: f"{images.name}#{k}",
        reads=partial(_rows, images, pixels),
        identity=hashlib.sha256(f"idx:{file_identity(images)}".encode()).hexdigest(),
        labels=labels,
        classes=names,
        shape=(height, width, 1),
        pixels=pixels,
        notes=notes,
    )


def _open(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")  # type: ignore[return-value]


def _header(file: IO[bytes], path: Path, magic: int, dimensions: int) -> tuple[int, ...]:
    head = _exactly(file, 4 + 4 * dimensions, path)
    found, *sides = struct.unpack(f">{1 + dimensions}I", head)
    if found != magic:
        kind = "pictures" if magic == _IMAGES else "labels"
        raise ValueError(
            f"{path} is not an idx file of {kind} (it starts with {found:#010x}, not {magic:#010x})"
        )
    return tuple(sides)


def _last(file: IO[bytes], size: int, path: Path) -> np.ndarray:
    """The last bytes of a file; reading on to its end makes gzip compare its checksum."""
    data = _exactly(file, size, path)
    if _exactly(file, None, path):
        raise ValueError(f"{path} is longer than its header says; fetch it again")
    return np.frombuffer(data, np.uint8)


def _exactly(file: IO[bytes], size: int | None, path: Path) -> bytes:
    """`size` bytes, or at most one byte for None."""
    try:
        data = file.read(1 if size is None else size)
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from error
    if size is not None and len(data) != size:
        raise ValueError(f"{path} ends after {len(data):,} of {size:,} bytes; fetch it again")
    return data


def _rows(path: Path, pixels: np.ndarray | None) -> Iterator[Read]:
    if pixels is not None:
        for row in pixels:
            yield partial(given, row)
        return
    with _open(path) as file:
        count, height, width = _header(file, path, _IMAGES, 3)
        for _ in range(count):
            data = _exactly(file, height * width, path)
            yield partial(given, np.frombuffer(data, np.uint8).reshape(height, width, 1))


def _labels_beside(images: Path) -> Path | None:
    stem = re.sub(r"images(.)idx3", r"labels\1idx1", images.name)
    if stem == images.name:
        stem = images.name.replace("images", "labels")
    plain = stem.removesuffix(".gz")
    beside = [images.with_name(plain + ending) for ending in (".gz", "")]
    return next((path for path in beside if path.is_file() and path != images), None)


def _labels(path: Path, count: int, classes: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    with _open(path) as file:
        (found,) = _header(file, path, _LABELS, 1)
        if found != count:
            raise ValueError(
                f"{path} has {found:,} labels for {count:,} pictures; they belong to different sets"
            )
        values = _last(file, count, path)
    if classes is not None and values.max() < len(classes):
        return values.astype(np.int64), classes
    return array_classes(values, str(path))

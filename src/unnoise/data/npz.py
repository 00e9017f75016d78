"""ADM's npz files: arr_0 uint8 (N, H, W, C), arr_1 the labels. Read as a stream; nothing in them is ever
unpickled.
"""

import hashlib
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from unnoise.data.archive import DAMAGE, opened_zip
from unnoise.data.source import IN_MEMORY, Read, Source, array_classes, file_identity, given

_PICTURES, _LABELS = "arr_0.npy", "arr_1.npy"
_LABEL_BYTES = 1024
_WANTED = "arr_0 must be uint8 (pictures, height, width, channels), as ADM writes it"


def open_npz(path: Path, *, labelled: bool = True) -> Source:
    """The pictures of an npz file, with its labels if it has any and they are wanted. ValueError when it is
    not of that form.
    """
    try:
        with opened_zip(path) as file:
            count, shape = _pictures_shape(file, path)
            labels, classes = _labels(file, path, count) if labelled else (None, ())
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged ({error}); make it again") from error
    pixels = None
    if count * int(np.prod(shape)) <= IN_MEMORY:
        pixels = np.stack(list(_rows(path, shape)))
    return Source(
        name=str(path),
        count=count,
        name_of=lambda k: f"{path.name}#{k}",
        reads=partial(_reads, path, shape),
        identity=hashlib.sha256(f"npz:{file_identity(path)}".encode()).hexdigest(),
        labels=labels,
        classes=classes,
        shape=shape,
        pixels=pixels,
    )


def _pictures_shape(file: zipfile.ZipFile, path: Path) -> tuple[int, tuple[int, int, int]]:
    if _PICTURES not in file.namelist():
        held = ", ".join(name.removesuffix(".npy") for name in file.namelist()[:8]) or "nothing"
        raise ValueError(f"{path} has no arr_0 (it holds {held}); {_WANTED}")
    with file.open(_PICTURES) as member:
        shape, in_fortran_order, dtype = _header(member, path)
        start = member.tell()
    if dtype != np.uint8:
        raise ValueError(f"{path}: arr_0 is {dtype}; {_WANTED}")
    if in_fortran_order and len(shape) > 1:
        raise ValueError(f"{path}: arr_0 is in Fortran order; save numpy.ascontiguousarray of it")
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(f"{path}: arr_0 has shape {shape}; {_WANTED}")
    count, height, width, channels = (*shape, 1)[:4]
    if channels > 4 and height <= 4:
        raise ValueError(f"{path}: arr_0 has shape {shape}, which looks like channels first; {_WANTED}")
    size = file.getinfo(_PICTURES).file_size
    if size - start != count * height * width * channels:
        raise ValueError(
            f"{path}: arr_0 has {size - start:,} bytes, too few or many for {shape}; make it again"
        )
    return count, (height, width, channels)


def _header(member: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return read(member)
    except DAMAGE:
        raise
    except Exception as error:  # numpy raises whatever Python's parser runs into
        raise ValueError(f"{path}: arr_0 is not a numpy array ({error}); make it again") from error


def _labels(file: zipfile.ZipFile, path: Path, count: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if _LABELS not in file.namelist():
        return None, ()
    if file.getinfo(_LABELS).file_size > _LABEL_BYTES * (count + 1):
        raise ValueError(
            f"{path}: arr_1 is larger than {count:,} labels can be; it must be one label a picture"
        )
    with file.open(_LABELS) as member:
        try:
            values = npy.read_array(member, allow_pickle=False)
            values.tolist()  # which reads the characters of names
        except DAMAGE:
            raise
        except Exception as error:  # as of the header, and of an allocator that a false shape has asked
            raise ValueError(
                f"{path}: arr_1 cannot be read ({error}); save labels as whole numbers"
            ) from error
    if values.shape != (count,) or values.dtype.kind not in "iuU":
        raise ValueError(
            f"{path}: arr_1 is {values.dtype} {values.shape}; it must be {count:,} whole numbers or names"
        )
    return array_classes(values, str(path))


def _rows(path: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """The pictures one after the other, as they lie in the file."""
    size = int(np.prod(shape))
    try:
        with opened_zip(path) as file, file.open(_PICTURES) as member:
            (count, *_), _, _ = _header(member, path)
            for _ in range(count):
                data = member.read(size)
                if len(data) != size:
                    raise EOFError("cut short")
                yield np.frombuffer(data, np.uint8).reshape(shape)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged ({error}); make it again") from error


def _reads(path: Path, shape: tuple[int, int, int]) -> Iterator[Read]:
    for row in _rows(path, shape):
        yield partial(given, row)

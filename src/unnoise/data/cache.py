"""The decoded cache: one file of raw pixels, mapped into memory, written aside and renamed whole.

Layout: a 64-byte head, the pixels, a table (int64; offset, height and width of each picture when they
differ), a footer (JSON), and a tail that gives the three lengths and the hash of table and footer. The pixels
have a CRC a block of 16 MiB: a file cut short or damaged is noticed and made anew.
"""

import errno
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: two builders at once then both build, and the last rename stands
    fcntl = None  # type: ignore[assignment]

VERSION = 1
_HEAD = b"unnoise pixels 1\n".ljust(64, b"\0")
_TAIL = struct.Struct("<QQQ32s16s")
_END = b"unnoise complete"
_BLOCK = 2**24
_CHECKED = 32
"""Blocks whose CRC is compared on opening: all of a small cache, a spread of a large one."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A cache file, opened. pixels: flat uint8, mapped; table: (N, 3) or (0, 3) int64; facts: the footer."""

    pixels: np.ndarray
    table: np.ndarray
    facts: dict[str, Any]


def home(folder: str | None) -> Path:
    """The folder of the caches: the one named, else unnoise/ in the user's cache folder."""
    if folder:
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unnoise"


def read(path: Path) -> Stored | None:
    """The cache at `path`, mapped, or None when there is none, or it is cut short or damaged."""
    try:
        with open(path, "rb") as file:
            return _checked(file, path)
    except (OSError, ValueError, KeyError, struct.error):
        return None


def write(
    path: Path, parts: Iterable[np.ndarray], finish: Callable[[], tuple[np.ndarray, dict[str, Any]]]
) -> None:
    """Writes the pixels of `parts` as they come, then the table and facts of finish().

    OSError when that fails; no half file stays.
    """
    with placing(path) as aside, open(aside, "xb") as file:
        file.write(_HEAD)
        length, blocks, digest = _stream(file, parts)
        table, facts = finish()
        footer = json.dumps(facts | {"crc": blocks, "digest": digest}).encode()
        rows = np.ascontiguousarray(table, "<i8").tobytes()
        check = hashlib.sha256(rows + footer).digest()
        file.write(rows + footer + _TAIL.pack(length, len(rows), len(footer), check, _END))


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what is there in the end is flushed and renamed to `path` at once.

    Whatever goes wrong, nothing half stays. A full disk is an OSError that says the way out.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        text = f"{error.strerror} while writing pictures to {path.parent}"
        text += "; free some, or choose another folder with --set data.cache=FOLDER"
        raise OSError(error.errno, text) from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def building(path: Path) -> Iterator[None]:
    """Holds the right to build `path`: another process that wants it waits, then finds it made.

    The kernel lets go when the holder dies, so what a killed builder left behind is swept here.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(path.name + ".lock"), "wb")
    except OSError as error:
        text = f"{error.strerror}: {path.parent} cannot hold the decoded pictures"
        raise OSError(error.errno, f"{text}; choose another folder with --set data.cache=FOLDER") from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for left in path.parent.glob(f"{path.name}.*.tmp"):
                    left.unlink(missing_ok=True)
            except OSError:  # a file system without locks: building twice is only slower
                pass
        yield


def digest_of(pixels: np.ndarray) -> str:
    """Hash of pixels as `write` takes it."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


def _stream(file: IO[bytes], parts: Iterable[np.ndarray]) -> tuple[int, list[int], str]:
    """Writes the pixels; returns their length, the CRC of each block, and the hash of all."""
    length, crc, blocks, digest = 0, 0, [], hashlib.blake2b(digest_size=16)
    for part in parts:
        data = np.ascontiguousarray(part).reshape(-1).data
        file.write(data)
        digest.update(data)
        while len(data):
            room = _BLOCK - length % _BLOCK
            piece, data = data[:room], data[room:]
            crc = zlib.crc32(piece, crc)
            length += len(piece)
            if length % _BLOCK == 0:
                blocks.append(crc)
                crc = 0
    if length % _BLOCK:
        blocks.append(crc)
    return length, blocks, digest.hexdigest()


def _checked(file: IO[bytes], path: Path) -> Stored | None:
    size = os.fstat(file.fileno()).st_size
    if size < len(_HEAD) + _TAIL.size or file.read(len(_HEAD)) != _HEAD:
        return None
    file.seek(size - _TAIL.size)
    length, rows, footer, check, end = _TAIL.unpack(file.read(_TAIL.size))
    if end != _END or len(_HEAD) + length + rows + footer + _TAIL.size != size or not length:
        return None
    file.seek(len(_HEAD) + length)
    tail = file.read(rows + footer)
    if hashlib.sha256(tail).digest() != check:
        return None
    facts = json.loads(tail[rows:])
    pixels = np.memmap(file, np.uint8, "r", offset=len(_HEAD), shape=(length,))
    blocks = facts["crc"]
    for k in sorted({round(k) for k in np.linspace(0, len(blocks) - 1, min(_CHECKED, len(blocks)))}):
        if zlib.crc32(pixels[k * _BLOCK : (k + 1) * _BLOCK].data) != blocks[k]:
            return None
    return Stored(pixels, np.frombuffer(tail[:rows], "<i8").reshape(-1, 3), facts)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself last through a power cut, where folders can be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)

"""A zip of pictures, read in place: nothing is unpacked to disk, so no member can leave its folder."""

import hashlib
import io
import json
import lzma
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TextIO

from unnoise.data.decode import BrokenPicture, UnreadablePicture
from unnoise.data.source import Read, Source, file_identity, printable
from unnoise.data.tree import Labels, understand

CLASS_ORDER = ".unnoise-classes.json"
"""Member that lists the classes in their order, in zips made from hub data sets."""
_MEMBERS = 10_000_000
_MEMBER_BYTES = 2**29
"""Bytes of one unpacked member that are read at most."""
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, UnicodeDecodeError),
    *(EOFError, OSError, OverflowError, RuntimeError),  # NotImplementedError is one of the last
)
"""What reading a damaged, encrypted or oddly packed zip raises."""


def opened_zip(path: Path) -> zipfile.ZipFile:
    """A zip, its list of members read. ValueError when it has none."""
    try:
        return zipfile.ZipFile(path)
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read as a zip ({error}); make it again") from error


def open_zip(path: Path, labels: Labels = "auto", label_field: str = "") -> Source:
    """The pictures in a zip file, sub-folders and metadata understood as in a folder. ValueError when there
    are none.
    """
    file = opened_zip(path)
    members = {info.filename: info for info in file.infolist() if not info.is_dir()}
    if len(members) > _MEMBERS:
        raise ValueError(f"{path} has {len(members):,} members, over {_MEMBERS:,}; split it")
    inside = {name: info for name, info in members.items() if _stays(name)}
    archive = Archive(file, inside)
    order: tuple[str, ...] = ()
    if CLASS_ORDER in inside:
        order = _order(archive)
    found = understand(inside, str(path), labels, archive.text, order, label_field)
    notes = found.notes
    if len(inside) < len(members):
        notes += (f"zip: {len(members) - len(inside):,} members point outside it and are ignored",)
    return Source(
        name=str(path),
        count=len(found.pictures),
        name_of=lambda k: printable(found.pictures[k]),
        reads=partial(_reads, archive, found.pictures),
        identity=hashlib.sha256(f"zip:{file_identity(path)}".encode()).hexdigest(),
        labels=found.labels,
        classes=found.classes,
        captions=found.captions,
        ignored=found.ignored,
        notes=notes,
    )


def _order(archive: "Archive") -> tuple[str, ...]:
    text = archive.text(CLASS_ORDER)
    try:
        names = json.load(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{archive.file.filename}: {CLASS_ORDER} is no list of names; make the zip again")
    return tuple(names)


def _stays(name: str) -> bool:
    """Whether a member's name is a plain path downwards."""
    return not (name.startswith("/") or "\\" in name or ":" in name[:3] or ".." in PurePosixPath(name).parts)


def _reads(archive: "Archive", pictures: list[str]) -> Iterator[Read]:
    for name in pictures:
        yield partial(archive.picture, name)


class Archive:
    """An open zip that several threads may read; its members' sizes are bounded."""

    def __init__(self, file: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        self.file, self.members, self.lock = file, members, threading.Lock()

    def picture(self, name: str) -> bytes:
        """The encoded picture of a member. Raises BrokenPicture."""
        try:
            return self.bytes_of(name)
        except OSError as error:
            raise UnreadablePicture(error.strerror or str(error)) from error
        except (*DAMAGE, ValueError) as error:
            raise BrokenPicture(f"cannot be unpacked: {error}") from error

    def text(self, name: str) -> TextIO:
        """A text member. ValueError when it cannot be read."""
        try:
            content = self.bytes_of(name)
        except (*DAMAGE, ValueError) as error:
            raise ValueError(
                f"{self.file.filename}: {name} cannot be unpacked ({error}); make it again"
            ) from error
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")

    def bytes_of(self, name: str) -> bytes:
        """A member unpacked into memory. ValueError when it is too large."""
        info = self.members[name]
        if info.file_size > _MEMBER_BYTES:
            raise ValueError(f"{info.file_size:,} bytes when unpacked, over the limit of {_MEMBER_BYTES:,}")
        with self.lock:  # ZipFile counts its open members without one
            return self.file.read(info)

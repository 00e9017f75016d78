"""A folder of pictures, however deep."""

import hashlib
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from unnoise.data.source import Read, Source, printable
from unnoise.data.tree import Labels, understand


def open_folder(folder: Path, labels: Labels = "auto", label_field: str = "") -> Source:
    """The pictures below a folder, sorted by name. ValueError when it cannot be read or holds none."""
    stamps = dict(_walk(folder))
    found = understand(stamps, str(folder), labels, partial(_text, folder), label_field=label_field)
    digest = hashlib.sha256(os.fsencode(folder.resolve()))
    for name in found.pictures:
        digest.update(os.fsencode(f"\n{name}\t{stamps[name]}"))
    return Source(
        name=str(folder),
        count=len(found.pictures),
        name_of=lambda k: printable(found.pictures[k]),
        reads=partial(_reads, folder, found.pictures),
        identity=digest.hexdigest(),
        labels=found.labels,
        classes=found.classes,
        captions=found.captions,
        ignored=found.ignored,
        notes=found.notes,
    )


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Every file below the folder, links followed: its relative name, and size and times as a stamp.

    The time of the last change (ctime) is in the stamp because a copy can keep the other one.
    """
    waiting, seen = [""], set()
    while waiting:
        below = waiting.pop()
        try:
            here = os.stat(folder / below)
            if (here.st_dev, here.st_ino) in seen:  # a link back to a folder above
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(name)
                        continue
                    try:
                        facts = entry.stat()
                    except (
                        OSError
                    ):  # a link to nowhere: named as broken later, should it claim to be a picture
                        yield name, "absent"
                        continue
                    if stat.S_ISREG(facts.st_mode):
                        yield name, f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
        except PermissionError as error:
            raise ValueError(
                f"{folder / below} cannot be read ({error.strerror}); change its permissions or move it away"
            ) from error


def _reads(folder: Path, pictures: list[str]) -> Iterator[Read]:
    for name in pictures:
        yield partial(Path, folder, name)


def _text(folder: Path, name: str) -> TextIO:
    try:
        return open(folder / name, encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{folder / name} cannot be read ({error.strerror}); change its permissions"
        ) from error

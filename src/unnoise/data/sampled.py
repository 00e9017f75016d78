"""A folder that `unnoise sample` or `cascade` wrote: its numbered pictures, with the classes they show."""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unnoise.data.source import Read, Source, class_names
from unnoise.images import read_request

_RECORD = "request.json"


def numbered(folder: Path) -> list[str]:
    """Names of the pictures of such a folder in order, without its sheet; empty for any other folder."""
    if not (folder / _RECORD).is_file():
        return []
    with os.scandir(folder) as entries:
        stems = [name.removesuffix(".png") for name in (e.name for e in entries) if name.endswith(".png")]
    digits = [stem for stem in stems if stem.isascii() and stem.isdecimal()]
    return [f"{stem}.png" for stem in sorted(digits, key=lambda stem: (int(stem), stem))]


def read_record(folder: Path) -> dict[str, Any]:
    """What such a folder says of its request. ValueError when that cannot be read."""
    record = folder / _RECORD
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(
            f"{record} is no record of `unnoise sample`; restore it, or move the pictures out of its folder"
        )
    return values


def open_sampled(folder: Path, names: list[str], *, labelled: bool = True) -> Source:
    """The `numbered` pictures of a folder; their classes are in the requests inside them."""
    digest = hashlib.sha256(os.fsencode(folder.resolve()))
    for name in names:
        facts = os.stat(folder / name)
        digest.update(f"\n{name}\t{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}".encode())
    shown = [_class_in(folder / name) for name in names] if labelled else []
    classes = class_names({value for value in shown if value is not None})
    place = {name: k for k, name in enumerate(classes)}
    if classes and None in shown:
        raise ValueError(
            f"{folder}: some pictures say which class they show, {names[shown.index(None)]} does not; use "
            "pictures of one kind, or --set data.labels=none to leave labels out"
        )
    known = [place[value] for value in shown if value is not None]
    return Source(
        name=str(folder),
        count=len(names),
        name_of=lambda k: names[k],
        reads=partial(_reads, folder, names),
        identity=digest.hexdigest(),
        labels=np.array(known, np.int64) if classes else None,
        classes=classes,
    )


def _class_in(path: Path) -> str | None:
    """The one class that a picture's request names."""
    try:
        labels = read_request(path).get("labels")
    except (OSError, ValueError):  # decoding will name it as broken, if it is
        return None
    return str(labels[0]) if isinstance(labels, list) and len(labels) == 1 else None


def _reads(folder: Path, names: list[str]) -> Iterator[Read]:
    for name in names:
        yield partial(Path, folder, name)

"""Hugging Face data sets, streamed once into a zip in the cache and read from there ever after (extra `hub`).

The pictures are stored as the set holds them (PNG, JPEG, ...), with a metadata.jsonl of labels and captions.
No code of a data set runs, and a row may not point at a file of this machine unless the set itself is a local
folder.
"""

import hashlib
import importlib
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from unnoise.data import cache
from unnoise.data.archive import CLASS_ORDER, open_zip
from unnoise.data.build import Progress
from unnoise.data.source import Source
from unnoise.data.tree import Labels

_PICTURES = ("image", "img", "picture", "jpg", "png", "webp")
_LABELS = ("label", "labels", "class", "fine_label", "category")
_CAPTIONS = ("text", "caption", "captions", "sentence", "prompt", "txt")
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclass(frozen=True, kw_only=True)
class HubRequest:
    """What to take: a data set of the hub (or a local folder in its form), one split, at most `limit`
    pictures.
    """

    name: str
    split: str = "train"
    limit: int
    labels: Labels = "auto"
    classes: tuple[str, ...] = ()
    """Names to use in place of the set's own, when they are as many."""
    cache: str | None = None


@dataclass(frozen=True)
class Columns:
    """Where a row keeps its picture, label and caption, and the names of its labels if they are numbered."""

    picture: str
    label: str | None
    caption: str | None
    names: tuple[str, ...]


def parse(source: str) -> tuple[str, str]:
    """Name and split of "hf:NAME[:split]"."""
    name, _, split = source.removeprefix("hf:").partition(":")
    if not name:
        raise ValueError(
            f"{source!r} names no data set; write hf:NAME or hf:NAME:split, for example hf:ylecun/mnist"
        )
    return name, split or "train"


def open_hub(request: HubRequest, on_progress: Progress | None = None) -> Source:
    """The pictures of a hub data set, from the zip in the cache, made now if it is not there.

    ValueError when `datasets` is missing, or the set or its split cannot be had, or holds no pictures.
    """
    if request.limit < 1:
        raise ValueError(f"data.hub_limit={request.limit} is less than 1")
    key = json.dumps([1, request.name, request.split, request.limit, request.classes])
    path = cache.home(request.cache) / "hub" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.zip"
    if not path.exists():
        with cache.building(path):
            if not path.exists():
                _materialise(request, path, on_progress)
    source = open_zip(path, request.labels)
    note = f"from the copy {path}; delete it to fetch the set anew"
    if source.count == request.limit:
        note += f"; it holds the first {request.limit:,} pictures, more with --set data.hub_limit=N"
    title = f"hf:{request.name}:{request.split}"
    return replace(source, name=title, notes=(*source.notes, note))


def _materialise(request: HubRequest, path: Path, on_progress: Progress | None) -> None:
    """Writes the zip aside and puts it in place when it is whole."""
    stream, columns, total = _stream(request)
    with cache.placing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as file:
        facts = []
        for number, row in enumerate(_rows(stream, request)):
            picture, fact = _row(row, columns, request)
            kind = next((k for start, k in _KINDS.items() if picture.startswith(start)), "png")
            name = f"{number:09d}.{kind}"
            file.writestr(name, picture)
            facts.append(json.dumps({"file_name": name} | fact))
            if on_progress is not None and number % 64 == 0:
                on_progress(number, total)
        if not facts:
            raise ValueError(f"hf:{request.name}:{request.split} is empty; name another split")
        file.writestr("metadata.jsonl", "\n".join(facts))
        if columns.names:
            file.writestr(CLASS_ORDER, json.dumps(columns.names))


def _stream(request: HubRequest) -> tuple[Any, Columns, int]:
    """The rows of the split, pictures left encoded, and how many there will be (the limit if unknown)."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            f"hf:{request.name} needs the package datasets; install it with: pip install 'unnoise[hub]'"
        ) from error
    offline = any(
        os.environ.get(name, "0") not in ("", "0") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )
    try:
        stream = datasets.load_dataset(request.name, split=request.split, streaming=not offline)
        columns = _columns(stream, request)
        stream = stream.cast_column(columns.picture, datasets.Image(decode=False))
    except ValueError as error:
        raise ValueError(f"hf:{request.name}:{request.split} cannot be used: {_line(error)}") from error
    except Exception as error:  # the library raises its own and its transports' kinds
        raise ValueError(
            f"hf:{request.name} cannot be loaded ({_line(error)}); check name and connection, or download "
            "it and name its folder"
        ) from error
    splits = getattr(stream.info, "splits", None) or {}
    known = splits[request.split].num_examples if request.split in splits else None
    return stream, columns, min(known or request.limit, request.limit)


def _columns(stream: Any, request: HubRequest) -> Columns:
    """Finds picture, label and caption among the columns, by their type first, then by their name."""
    features = stream.features
    if features is None:
        features = {name: None for name in next(iter(stream))}
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    pictures = [name for name, kind in kinds.items() if kind == "Image"] or [
        n for n in kinds if n in _PICTURES
    ]
    if not pictures:
        raise ValueError(f"none of its columns holds pictures ({', '.join(kinds)}); name another set")
    picture = next((name for name in _PICTURES if name in pictures), pictures[0])
    labelled = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    label = next((name for name in (*_LABELS, *labelled) if name in (labelled or kinds)), None)
    names = tuple(features[label].names) if label in labelled else ()
    if len(names) == len(request.classes):
        names = request.classes
    caption = next((name for name in _CAPTIONS if name in kinds), None)
    return Columns(picture, label, caption, names)


def _rows(stream: Any, request: HubRequest) -> Iterator[dict[str, Any]]:
    """At most `limit` rows. A connection that breaks on the way is a ValueError with the way out."""
    rows = islice(iter(stream), request.limit)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            text = f"hf:{request.name} broke off while loading ({_line(error)})"
            raise ValueError(f"{text}; run again, or download it and name its folder") from error
        yield row


def _row(row: dict[str, Any], columns: Columns, request: HubRequest) -> tuple[bytes, dict[str, Any]]:
    fact: dict[str, Any] = {}
    label = row.get(columns.label) if columns.label else None
    if isinstance(label, int) and columns.names:
        label = columns.names[label] if 0 <= label < len(columns.names) else None
    if isinstance(label, (int, str)) and not isinstance(label, bool):
        fact["label"] = label
    caption = row.get(columns.caption) if columns.caption else None
    if isinstance(caption, list) and caption:
        caption = caption[0]
    if isinstance(caption, str):
        fact["text"] = caption
    return _encoded(row[columns.picture], request), fact


def _encoded(value: Any, request: HubRequest) -> bytes:
    """The bytes of a picture column; empty for a row without one, which is then named as broken."""
    if not isinstance(value, dict):
        return b""
    if value.get("bytes"):
        return bytes(value["bytes"])
    path = value.get("path")
    if not path:
        return b""
    if "://" in path:
        fsspec = importlib.import_module("fsspec")
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    home = Path(request.name).resolve()
    if not Path(request.name).is_dir() or not Path(path).resolve().is_relative_to(home):
        raise ValueError(
            f"hf:{request.name} points at the file {path} of this machine; it is not to be trusted"
        )
    return Path(path).read_bytes()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

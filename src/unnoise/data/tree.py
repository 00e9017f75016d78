"""What a tree of files means: which are pictures, which classes folders make, which captions lie beside.

Shared by folders and zips. Names are relative, with forward slashes.
"""

import csv
import json
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TextIO

import numpy as np

from unnoise.data.decode import SUFFIXES
from unnoise.data.source import class_names, printable

Labels = Literal["auto", "folder", "metadata", "none"]
OpenText = Callable[[str], AbstractContextManager[TextIO]]
METADATA = ("metadata.jsonl", "metadata.csv")
_LABEL_FIELDS, _CAPTION_FIELDS = ("label", "class"), ("text", "caption")
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_CAPTION_BYTES = 2**16


@dataclass(frozen=True)
class Found:
    """The pictures of a tree, sorted by name, with what is known of each."""

    pictures: list[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    captions: list[str] | None
    ignored: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """What a metadata file says of one picture."""

    label: str | None
    caption: str | None


def understand(
    names: Iterable[str],
    where: str,
    labels: Labels,
    open_text: OpenText,
    order: tuple[str, ...] = (),
    label_field: str = "",
) -> Found:
    """Sorts out a tree of files. where: its name for people; order: known order of the classes.
    label_field: the metadata's field that is the class; "" takes label or class.

    ValueError, with the way out, when there is no picture, or when only some pictures have a class.
    """
    files = sorted(name for name in names if not _hidden(name))
    pictures = [name for name in files if posixpath.splitext(name)[1].lower() in SUFFIXES]
    if not pictures:
        raise ValueError(_nothing(where, files))
    tables = [name for name in files if posixpath.basename(name) in METADATA]
    open_text = partial(_utf8, open_text, where)
    if label_field and labels in ("folder", "none"):
        raise ValueError(
            f"data.label_field={label_field} is of the metadata, but data.labels={labels}; drop one"
        )
    entries, notes = _metadata(tables, set(pictures), where, open_text, label_field)
    beside = _text_files(pictures, files)
    captions = _captions(pictures, entries, beside, open_text)
    if labels == "auto":
        _refuse_splits(pictures, where)
    values = _classes_of(pictures, entries, where, "metadata" if label_field else labels, label_field)
    known = class_names(set(values)) if values else ()
    if order and set(known) <= set(order):
        known = tuple(name for name in order if name in known)
    place = {name: k for k, name in enumerate(known)}
    return Found(
        pictures,
        np.array([place[value] for value in values], np.int64) if values else None,
        tuple(printable(name) for name in known),
        captions,
        len(files) - len(pictures) - len(tables) - len(beside),
        tuple(notes),
    )


@contextmanager
def _utf8(open_text: OpenText, where: str, name: str) -> Iterator[TextIO]:
    """A text file. ValueError when what is read of it is no UTF-8."""
    with open_text(name) as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}/{name} is not UTF-8 text ({error.reason}); save it as UTF-8") from None


def _hidden(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _nothing(where: str, files: list[str]) -> str:
    if not files:
        return (
            f"{where} is empty; put pictures into it (PNG, JPEG, WebP, BMP, TIFF, GIF) or name another source"
        )
    kinds = Counter(posixpath.splitext(name)[1].lower() or "without suffix" for name in files)
    listed = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common(5))
    return f"{where} holds no picture (PNG, JPEG, WebP, BMP, TIFF, GIF), only {listed}; name another source"


def _classes_of(
    pictures: list[str], entries: dict[str, Entry], where: str, labels: Labels, label_field: str
) -> list[str] | None:
    """The class of each picture by the rule that `labels` names, or None when there are none."""
    if labels == "none":
        return None
    given = [entries[name].label if name in entries else None for name in pictures]
    if labels == "metadata" or (labels == "auto" and any(value is not None for value in given)):
        missing = [name for name, value in zip(pictures, given, strict=True) if value is None]
        if missing:
            lacking = f"have no {label_field or 'label'} in its metadata (first: {printable(missing[0])})"
            raise ValueError(
                f"{len(missing):,} of {len(pictures):,} pictures in {where} {lacking}; add them, or --set "
                "data.labels=none to leave labels out"
            )
        return [value for value in given if value is not None]
    return _folder_classes(pictures, where, labels)


def _folder_classes(pictures: list[str], where: str, labels: Labels) -> list[str] | None:
    """The first sub-folder below the folder that all pictures share; several are classes, one is not."""
    common, below = _below(pictures)
    if set(below) == {""}:
        if labels != "folder":
            return None
        if not common:
            raise ValueError(
                f"{where} has no sub-folders to take classes from; make one each, or --set data.labels=none"
            )
        return [common[-1]] * len(pictures)
    top = below.count("")
    if top:
        shared = posixpath.join(where, *common)
        raise ValueError(
            f"{top:,} pictures lie in {shared} itself and {len(below) - top:,} in its sub-folders, so "
            "some have no class; move those into one, or --set data.labels=none to train without classes"
        )
    return below


def _below(pictures: list[str]) -> tuple[list[str], list[str]]:
    """The folders that all pictures share, and the sub-folder of each picture below those ("": in them)."""
    folders = [posixpath.dirname(name).split("/") if "/" in name else [] for name in pictures]
    common = os.path.commonprefix([min(folders), max(folders)])
    return common, [parts[len(common)] if len(parts) > len(common) else "" for parts in folders]


def _refuse_splits(pictures: list[str], where: str) -> None:
    """Refuses a folder whose sub-folders are a training and a test set, whether they hold classes or not."""
    names = set(_below(pictures)[1])
    if names != {""} and {name.lower() for name in names} <= _SPLITS:
        raise ValueError(
            f"the sub-folders of {where} are splits ({', '.join(sorted(names))}), not classes; name one "
            "as the source, or --set data.labels=none to take all, or data.labels=folder if they are classes"
        )


def _text_files(pictures: list[str], files: list[str]) -> dict[str, str]:
    """Picture -> the .txt file beside it. (Two pictures that differ in suffix only share one.)"""
    texts = {posixpath.splitext(name)[0]: name for name in files if name.lower().endswith(".txt")}
    stems = {name: posixpath.splitext(name)[0] for name in pictures}
    return {text: name for name, stem in stems.items() if (text := texts.get(stem)) is not None}


def _captions(
    pictures: list[str], entries: dict[str, Entry], beside: dict[str, str], open_text: OpenText
) -> list[str] | None:
    """A caption for each picture, empty where there is none; None when there is none at all."""
    texts = {}
    for text in beside:
        with open_text(text) as file:
            texts[posixpath.splitext(text)[0]] = file.read(_CAPTION_BYTES).strip()
    captions = []
    for name in pictures:
        entry = entries.get(name)
        said = entry.caption if entry is not None else None
        captions.append(said if said is not None else texts.get(posixpath.splitext(name)[0], ""))
    return captions if any(captions) else None


def _metadata(
    tables: list[str], pictures: set[str], where: str, open_text: OpenText, label_field: str
) -> tuple[dict[str, Entry], list[str]]:
    """What the metadata files say, and a note when they name pictures that are not there."""
    entries: dict[str, Entry] = {}
    absent: list[str] = []
    fields = (label_field,) if label_field else _LABEL_FIELDS
    for table in tables:
        with open_text(table) as file:
            rows = _json_rows if table.endswith(".jsonl") else _csv_rows
            for number, row in rows(file, f"{where}/{table}"):
                at = f"{where}/{table}, line {number}"
                picture = row.get("file_name")
                if not isinstance(picture, str) or not picture:
                    raise ValueError(f"{at}: no file_name; each line must name its picture")
                name = posixpath.normpath(posixpath.join(posixpath.dirname(table), picture))
                if name in pictures:
                    entries[name] = Entry(_label(row, at, fields), _caption(row, at))
                else:
                    absent.append(picture)
    notes = []
    if absent:
        first = printable(absent[0])
        notes.append(f"metadata: {len(absent):,} lines name pictures that are not there (first: {first})")
    return entries, notes


def _json_rows(file: TextIO, at: str) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{at}, line {number}: not JSON ({error}); each line must be one object"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f'{at}, line {number}: not an object; write {{"file_name": ...}} on each line')
        yield number, row


def _csv_rows(file: TextIO, at: str) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        for number, row in enumerate(csv.DictReader(file), 2):
            yield number, {key: value or None for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise ValueError(f"{at}: not CSV ({error})") from error


def _label(row: dict[str, Any], at: str, fields: tuple[str, ...]) -> str | None:
    value = next((row[key] for key in fields if row.get(key) is not None), None)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{at}: label {value!r} is neither a name nor a whole number")
    return printable(str(value))


def _caption(row: dict[str, Any], at: str) -> str | None:
    value = next((row[key] for key in _CAPTION_FIELDS if row.get(key) is not None), None)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{at}: caption {value!r} is not text")
    return printable(value.strip()) if value is not None else None

"""Where drawn pictures land, and how a job knows what it has: a folder of PNGs, or ADM's npz built of shards.

One folder holds pictures of one request, whose identity is in request.json: everything that decides what
picture k looks like and nothing else, so that a job may be stopped, continued, made longer or split anew.
"""

import errno
import functools
import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest
from unnoise.gan_planning import GanPlan
from unnoise.generate import ImageBatch
from unnoise.images import is_whole_png, save_png, written_aside
from unnoise.outputs import check_folder
from unnoise.planning import Plan

RECORD = "request.json"
SHARDS = ".shards"
SHAPES_NOTHING = ("n", "first", "batch_size", "device", "low_res", "text_encoder")
"""Fields of a request that change no picture. (Of `low_res` it is the content that does.)"""
FOLLOWS = ("training_step", "ema_rate")
"""Of a record: what the model file says of itself, for readers; its hash already tells it from others."""


def identity(plan: Plan | GanPlan, weights: str) -> dict[str, Any]:
    """What decides every picture of a plan, as plain data; `weights` is the SHA-256 of the model file."""
    request = {key: value for key, value in to_dict(plan.request).items() if key not in SHAPES_NOTHING}
    request["labels"] = plan.turn
    request["precision"] = plan.precision
    request |= plan.files  # what is in a classifier's file counts, not where it lies
    if plan.request.exact:
        request["device"] = plan.device.type
    request["model_sha256"] = weights
    request |= {"training_step": plan.model.info.step, "ema_rate": plan.model.info.ema_rate}
    return request if plan.low_res is None else plan.low_res.identity(request)


def claim(out: Path, identity: Mapping[str, Any], planned: Iterable[Path]) -> None:
    """Make the folder one of this identity. ValueError when it holds those of another, or foreign files."""
    check_folder(out, "pictures")
    record = out / RECORD
    if record.exists():
        changes = _changes(_read(record), identity)
        if changes:
            raise ValueError(f"{out} holds another request ({'; '.join(changes)}); choose another folder")
        return
    there = functools.cache(_listing)
    for path in planned if there(out) else ():  # not of all that may be wanted, where nothing is there
        if path.name in there(path.parent):
            raise ValueError(f"{path} is there and not from this command; choose another folder")
    text = json.dumps(identity, indent=1, ensure_ascii=False) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with written_aside(record) as aside:  # names that are no UTF-8 get JSON's own escapes
            aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ValueError(f"{out} cannot be written ({error.strerror}); name a folder elsewhere") from None


def refuse_among(out: Path, read: Iterable[Path]) -> None:
    """ValueError where a folder for results lies in one of those that are read."""
    for path in read:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise ValueError(
                f"{out} lies in {path}, where results would be taken for pictures the next time; choose a "
                "folder elsewhere"
            )


def _listing(folder: Path) -> set[str]:
    """Names in a folder, asked for once: a job may be of a million pictures."""
    return {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()


def _read(record: Path) -> dict[str, Any]:
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{record} cannot be read; choose another folder, or delete this one")
    return values


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Entries that differ; one that an older version did not know yet counts as its default."""
    before, after = _leaves(old), _leaves(new)
    defaults = to_dict(GenerateRequest())
    for key in after.keys() - before.keys():
        name = key.rpartition(".")[2]  # an edit's request is within its record, as upsamplers' are
        if name in defaults:
            before[key] = defaults[name]
    return [
        f"{key}: {_short(before.get(key))} there, {_short(after.get(key))} now"
        for key in sorted((before.keys() | after.keys()) - set(FOLLOWS))
        if before.get(key) != after.get(key)
    ]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Entries of mappings inside by dotted names, those of the upsamplers of a cascade by their numbers."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            value = {str(number): each for number, each in enumerate(value, 1)}
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def request_of(plan: Plan | GanPlan, k: int) -> dict[str, Any]:
    """The request that draws picture k and no other, as plain data."""
    labels = [plan.name(k)] if plan.name(k) else []
    request = to_dict(plan.request) | {"n": 1, "first": k, "labels": labels, "precision": plan.precision}
    if plan.telling is not None and plan.telling.prompts:
        request["prompts"] = plan.telling.words([k])
    request = {key: value for key, value in request.items() if key not in ("batch_size", "device")}
    return request if plan.low_res is None else plan.low_res.request(request, k)


class PngFolder:
    """One PNG a picture, 000000.png and so on, each with the request that draws it alone."""

    def __init__(self, out: Path, plan: Plan | GanPlan, about: Mapping[str, str]) -> None:
        self.out, self.plan, self.about = out, plan, about

    def path(self, k: int) -> Path:
        """Where picture k goes."""
        return self.out / f"{k:06d}.png"

    def files(self) -> Iterator[Path]:
        """All that the job will write."""
        return (self.path(k) for k in self.plan.ids)

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that are not there, or not whole."""
        there = _listing(self.out)
        return [k for k in ids if not (self.path(k).name in there and is_whole_png(self.path(k)))]

    def add(self, batch: ImageBatch) -> None:
        """Write the pictures of a batch."""
        for k, pixels in zip(batch.ids, batch.pixels, strict=True):
            save_png(self.path(k), pixels, request_of(self.plan, k), about=self.about)

    def read(self, count: int) -> np.ndarray:
        """The first pictures of the job, uint8 (count, H, W, C)."""
        pictures = []
        for k in self.plan.ids[:count]:
            with Image.open(self.path(k)) as file:
                pictures.append(np.atleast_3d(np.asarray(file)))
        return np.stack(pictures)

    def finish(self) -> Path:
        """Nothing is left to do; returns the folder."""
        return self.out


class NpzFile:
    """ADM's sample file: arr_0 uint8 (N, H, W, C), arr_1 int64 (N,) for class-conditional models.

    Finished batches wait in a folder of shards FIRST+COUNT.raw, the bytes of COUNT pictures from id FIRST on,
    which `finish` streams into the file.
    """

    def __init__(self, out: Path, plan: Plan | GanPlan) -> None:
        self.plan, self.shards = plan, out / SHARDS
        channels, height, width = plan.picture
        self.picture = (height, width, channels)
        self.shape = (plan.request.n, *self.picture)
        start = f"_from{plan.request.first}" if plan.request.first else ""
        self.file = out / f"samples_{'x'.join(map(str, self.shape))}{start}.npz"

    def files(self) -> Iterator[Path]:
        """All that the job will write."""
        return iter((self.file, self.shards))

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that are in no whole shard; none when the file is there."""
        if self.file.exists():
            return []
        there = {k for first, count, _ in self._whole_shards() for k in range(first, first + count)}
        return [k for k in ids if k not in there]

    def add(self, batch: ImageBatch) -> None:
        """Write the pictures of a batch as shards, one for every run of consecutive ids."""
        self.shards.mkdir(exist_ok=True)
        ids, pixels = batch.ids, batch.pixels.numpy()
        starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1] + 1]
        for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            with written_aside(self.shards / f"{ids[begin]}+{end - begin}.raw") as aside:
                aside.write_bytes(pixels[begin:end].tobytes())

    def read(self, count: int) -> np.ndarray:
        """The first pictures of the job, uint8 (count, H, W, C)."""
        if not self.file.exists():
            return np.concatenate(list(self._rows(count)))
        with zipfile.ZipFile(self.file) as archive, archive.open("arr_0.npy") as member:
            np.lib.format.read_magic(member)
            np.lib.format.read_array_header_1_0(member)
            content = member.read(count * math.prod(self.picture))
        return np.frombuffer(content, np.uint8).reshape(count, *self.picture)

    def finish(self) -> Path:
        """Build the file, one shard in memory at a time, and drop the shards; returns the file."""
        if not self.file.exists():
            labels = [self.plan.label(k) for k in self.plan.ids] if self.plan.labels else None
            write_npz(self.file, self.shape, self._rows(self.shape[0]), labels)
        shutil.rmtree(self.shards, ignore_errors=True)
        return self.file

    def _rows(self, count: int) -> Iterator[np.ndarray]:
        """The first pictures of the job in order, piece by piece."""
        at = self.plan.ids.start
        stop = at + count
        for first, length, path in self._whole_shards():
            end = min(first + length, stop)
            if end > at:
                assert first <= at, f"picture {at} is in no shard"
                rows = np.fromfile(path, np.uint8).reshape(length, *self.picture)
                yield rows[at - first : end - first]
                at = end
        assert at == stop, f"picture {at} is in no shard"

    def _whole_shards(self) -> list[tuple[int, int, Path]]:
        """(first id, pictures, path) of every shard, in order."""
        shards = []
        for path in self.shards.glob("*+*.raw"):
            first, _, count = path.stem.partition("+")
            if path.stat().st_size == int(count) * math.prod(self.picture):
                shards.append((int(first), int(count), path))
        return sorted(shards)


def write_npz(
    path: Path,
    shape: tuple[int, ...],
    rows: Iterator[np.ndarray],
    labels: Sequence[int | None] | None,
) -> None:
    """Write arr_0 (uint8, `shape`, given piece by piece) and arr_1 (int64), atomically."""
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for piece in rows:
                member.write(np.ascontiguousarray(piece).tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(labels, np.int64))

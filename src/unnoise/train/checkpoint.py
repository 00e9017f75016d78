"""Checkpoints of a run: folders that are there whole or not at all.

`checkpoints/step-00001000/` holds safetensors files and, written last, `manifest.json` with their sizes and
SHA-256, the step and all plain numbers of the state. It is written under another name, flushed and renamed;
the newest whole one is found by looking, not by trusting a pointer.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1
MANIFEST = "manifest.json"
_PART, _TRASH = ".part-", ".trash-"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a checkpoint holds: named groups of tensors, one file each, and plain numbers."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    """Lower is better; the best checkpoint is kept."""


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write one checkpoint under `folder`, return its path. OSError, leaving nothing behind, if it fails."""
    target = folder / f"step-{snapshot.step:08d}"
    part = folder / f"{_PART}{target.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        files = {f"{name}.safetensors": tensors for name, tensors in snapshot.tensors.items()}
        written = {name: _write_tensors(part / name, tensors) for name, tensors in files.items()}
        _write_manifest(part / MANIFEST, snapshot, written)
        _flush(part)
        if target.exists():  # a damaged one, or it would have been continued from
            _remove(target)
        os.rename(part, target)
        _flush(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            error.errno,
            f"{error.strerror or error} while writing the checkpoint of step {snapshot.step}; earlier "
            "checkpoints are intact: make room and run the same command again",
            str(target),
        ) from error
    return target


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, None when there is none at all; ValueError when all are damaged."""
    damaged = []
    for path in reversed(listed(folder)):
        fault = damage(path)
        if fault is None:
            return path
        damaged.append(f"{path.name} ({fault})")
    if damaged:
        raise ValueError(
            f"{folder}: no checkpoint is whole: {', '.join(damaged)}; restore one from a backup, or "
            "start again with another --out"
        )
    return None


def listed(folder: Path) -> list[Path]:
    """Checkpoint folders by step, whole or not."""
    return sorted(folder.glob("step-*"), key=lambda p: (len(p.name), p.name)) if folder.is_dir() else []


def peek(path: Path) -> Snapshot:
    """The step and the numbers of a whole checkpoint, without its tensors."""
    manifest = _read_manifest(path)
    return Snapshot(manifest["step"], {}, manifest["numbers"], manifest["score"])


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint on the disk, None for a whole one; reads all of it."""
    try:
        files = _read_manifest(path)["files"]
        for name, expected in files.items():
            if (path / name).stat().st_size != expected["bytes"]:
                return f"{name} has {(path / name).stat().st_size} bytes, not {expected['bytes']}"
            if _digest(path / name) != expected["sha256"]:
                return f"{name} has changed"
    except _Damaged as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror}: {Path(error.filename or '').name}"
    return None


def load(path: Path) -> Snapshot:
    """The content of a checkpoint, on the CPU."""
    manifest = _read_manifest(path)
    tensors = {name.removesuffix(".safetensors"): load_file(path / name) for name in manifest["files"]}
    return Snapshot(manifest["step"], tensors, manifest["numbers"], manifest["score"])


def prune(folder: Path, *, keep_last: int, milestones: tuple[int, ...] = (), best: int | None = None) -> None:
    """Remove checkpoints except the last ones, the milestones and the best: that of `best`, or by score."""
    paths = listed(folder)
    manifests = {}
    for path in paths:
        with contextlib.suppress(_Damaged, OSError):
            manifests[path] = _read_manifest(path)
    scored = {path: m["score"] for path, m in manifests.items() if m["score"] is not None}
    kept = set(paths[-keep_last:]) | {p for p, m in manifests.items() if m["step"] in milestones}
    if best is not None:
        kept |= {path for path, m in manifests.items() if m["step"] == best}
    elif scored:
        kept.add(min(scored, key=lambda p: scored[p]))
    for path in paths:
        if path not in kept:
            _remove(path)


def clean(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith((_PART, _TRASH)):
                shutil.rmtree(path, ignore_errors=True)


class _Damaged(Exception):
    pass


def _remove(path: Path) -> None:
    # Renamed first: a folder that is half removed must not be taken for a checkpoint.
    trash = path.with_name(f"{_TRASH}{path.name}")
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        save_file({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, path)
    except SafetensorError as error:  # wraps the operating system's own error, as text
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # some versions leave it private
    digest = _digest(path)
    _flush(path)
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_manifest(path: Path, snapshot: Snapshot, files: dict[str, Any]) -> None:
    body = {
        "format": FORMAT,
        "step": snapshot.step,
        "score": snapshot.score,
        "numbers": dict(snapshot.numbers),
        "files": files,
    }
    with open(path, "w") as file:
        json.dump({**body, "sha256": _seal(body)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        if body.pop("sha256", "") != _seal(body):
            raise _Damaged(f"{MANIFEST} has changed")
    except (ValueError, TypeError, AttributeError):
        raise _Damaged(f"{MANIFEST} cannot be read") from None
    if body["format"] > FORMAT:
        raise ValueError(
            f"{path}: written by a newer unnoise (format {body['format']}; this one reads up to {FORMAT}); "
            "update unnoise to continue this run"
        )
    return body


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)

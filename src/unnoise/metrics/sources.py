"""The two sides of an evaluation, whatever they are stored as: pictures by index, drawn or read when asked
for.
"""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise import examples
from unnoise.config.load import to_dict
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.data import open_data
from unnoise.data.sampled import numbered, read_record
from unnoise.distributed import choose_device
from unnoise.drawing import load
from unnoise.generate import generate
from unnoise.metrics.weights import file_hash
from unnoise.modelfile import find_model
from unnoise.planning import plan
from unnoise.weights import diffusers

MODEL_SAMPLES = 50_000
"""Drawn from a model when nobody says how many: what the field reports FID at."""

MODEL_FILES = (".safetensors", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, eq=False)
class Pictures:
    """`n` pictures of one shape."""

    name: str
    n: int
    shape: tuple[int, int, int]
    """(height, width, channels)."""
    content: str
    """Hash of the pictures or of what they are drawn from and how: equal hashes, equal pictures."""
    take: Callable[[Sequence[int]], Tensor]
    """Indices -> uint8 (K, H, W, C)."""
    classes: dict[str, int] = field(default_factory=dict)
    """Pictures of each class, where known."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For the protocol."""
    is_model: bool = False


def open_pictures(spec: str, request: EvaluateRequest, *, n: int | None = None) -> Pictures:
    """The pictures that `spec` names, the first `n` of them; ValueError when it names none."""
    path = Path(spec)
    if draws(spec):
        return _model_pictures(path, request, n)
    if path.is_dir() and request.size is None and request.channels is None:
        names = numbered(path)
        if names:
            return _sampled_pictures(path, names, n)
    return _data_pictures(spec, request, n)


def draws(spec: str) -> bool:
    """Whether `spec` names a model, which pictures are drawn from."""
    path = Path(spec)
    return path.suffix in MODEL_FILES or _is_model_folder(path) or _ships(path)


def refuse_model(spec: str) -> None:
    """Refuse a model where pictures are wanted: a reference that is drawn would take hours."""
    if draws(spec):
        raise ValueError(
            f"{spec} is a model, and a reference is of pictures; draw some (`unnoise sample`) and name their "
            "folder"
        )


def _sampled_pictures(folder: Path, names: Sequence[str], n: int | None) -> Pictures:
    """The numbered pictures that `unnoise sample` wrote; the sheet and the record beside them are none."""
    files = [folder / name for name in names]
    count = len(files) if n is None else n
    if not 1 <= count <= len(files):
        raise ValueError(f"n={n} does not fit {folder}, which has {len(files)} pictures; use 1..{len(files)}")

    shape: tuple[int, ...] = ()

    def read(index: int) -> np.ndarray:
        try:
            with Image.open(files[index], formats=["PNG"]) as file:
                pixels = np.atleast_3d(np.asarray(file))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{files[index]} is broken ({error}); draw it again") from error
        if pixels.dtype != np.uint8 or pixels.shape != (shape or pixels.shape):
            raise ValueError(
                f"{files[index]} is {pixels.dtype} of shape {pixels.shape}, the first picture of the folder "
                f"{shape}; keep other pictures apart from those that `unnoise sample` wrote"
            )
        return pixels

    shape = read(0).shape
    digest = hashlib.sha256()
    for file in files[:count]:
        facts = file.stat()
        digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    record = read_record(folder)
    return Pictures(
        name=str(folder),
        n=count,
        shape=(shape[0], shape[1], shape[2]),
        content=f"{folder.resolve()}-{digest.hexdigest()}",
        take=lambda indices: torch.from_numpy(np.stack([read(int(i)) for i in indices])),
        facts={"kind": "pictures", "pictures": count, "request": record},
    )


def _data_pictures(spec: str, request: EvaluateRequest, n: int | None) -> Pictures:
    config = replace(
        request.data, source=spec, size=request.size, channels=request.channels, cache=request.cache
    )
    data = open_data(config)
    count = len(data) if n is None else n
    if not 1 <= count <= len(data):
        raise ValueError(f"n={n} does not fit {spec}, which has {len(data)} pictures; use 1..{len(data)}")
    facts: dict[str, Any] = {"kind": "pictures", "pictures": count}
    if data.report.upscaled:
        facts["enlarged"] = data.report.upscaled
    if data.report.broken:
        facts["broken"] = len(data.report.broken)
    if data.report.different_sizes > 1:
        facts["different_sizes"] = data.report.different_sizes
    facts["jpeg"] = _jpeg_share(Path(spec))
    classes: dict[str, int] = {}
    if data.labels is not None and data.classes:
        counts = np.bincount(data.labels[:count], minlength=len(data.classes))
        classes = dict(zip(data.classes, map(int, counts), strict=True))
    return Pictures(
        name=spec,
        n=count,
        shape=(data.size, data.size, data.channels),
        content=f"{data.content}-{data.size}-{data.channels}",
        take=lambda indices: data.take(np.asarray(indices, np.int64)).pixels,
        classes=classes,
        facts=facts,
    )


def _ships(path: Path) -> bool:
    return not path.exists() and examples.find(str(path)) is not None


def _is_model_folder(path: Path) -> bool:
    return path.is_dir() and ((path / "model.safetensors").exists() or diffusers.is_folder(path))


def _jpeg_share(path: Path) -> float:
    """Share of JPEG among the picture files of a folder or zip; 0 where there are none."""
    if path.is_dir():
        names = [f.name for f in path.rglob("*") if f.is_file()]
    elif path.suffix == ".zip" and path.is_file():
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    else:
        return 0.0
    endings = Counter(name.rsplit(".", 1)[-1].lower() for name in names)
    jpeg = endings["jpg"] + endings["jpeg"]
    pictures = jpeg + sum(endings[e] for e in ("png", "webp", "gif", "bmp", "tif", "tiff", "ppm"))
    return jpeg / pictures if pictures else 0.0


def _model_pictures(path: Path, request: EvaluateRequest, n: int | None) -> Pictures:
    file = find_model(path)
    count = MODEL_SAMPLES if n is None else n
    if count < 1:
        raise ValueError(f"n={n} samples cannot be drawn; use 1 or more")
    wanted: GenerateRequest = replace(request.generate, n=count)
    model = load(file, choose_device(request.device), preset=request.preset)
    ready = plan(model, wanted)
    wanted = ready.request
    channels, height, width = ready.picture
    weights = file_hash(file)

    def take(indices: Sequence[int]) -> Tensor:
        ids = [wanted.first + int(i) for i in indices]
        batches = generate(model, replace(wanted, device="auto"), ids=ids)
        return torch.cat([torch.as_tensor(b.pixels).cpu() for b in batches])

    how = {k: v for k, v in to_dict(wanted).items() if k not in ("n", "batch_size", "device")}
    how |= ready.files
    facts = {
        "kind": "model",
        "pictures": count,
        "model_sha256": weights,
        "training_step": model.info.step,
        "ema_rate": model.info.ema_rate,
        "network_precision": ready.precision,
        "steps_taken": ready.steps,
        **how,
    }
    return Pictures(
        name=str(path),
        n=count,
        shape=(height, width, channels),
        content=f"{weights}-{request.preset}-{json.dumps(how, sort_keys=True, default=str)}",
        take=take,
        classes=_counts([ready.name(k) for k in ready.ids[: len(ready.labels)]], count),
        facts=facts,
        is_model=True,
    )


def _counts(turn: Sequence[str], n: int) -> dict[str, int]:
    """How many of n pictures are of each class, where they take these in turn."""
    found: Counter[str] = Counter()
    for k, name in enumerate(turn):
        found[name] += n // len(turn) + (k < n % len(turn))
    return dict(found)

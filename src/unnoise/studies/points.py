"""One point of a study: a model and a request, drawn into a folder and measured, each once however often the
study is run.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unnoise.config.load import to_dict
from unnoise.config.requests import EvaluateRequest
from unnoise.distributed import choose_device
from unnoise.gan_planning import GanPlan
from unnoise.images import to_pil
from unnoise.job import Job, run_job
from unnoise.metrics.evaluate import check_numbers, choose_network, evaluate, open_side
from unnoise.metrics.features import FeatureNetwork
from unnoise.metrics.measures import Side
from unnoise.metrics.result import Evaluation, read_evaluation
from unnoise.metrics.sources import Pictures
from unnoise.planning import Plan
from unnoise.store import identity

SAMPLES, EVALUATION = "samples", "evaluation.json"
KEY = "study"
"""Entry of a stored evaluation's protocol: what it was measured of, and how."""
HOW_ONLY = ("samples", "generate", "data", "cache", "batch_size", "block", "device", "floor")
"""Fields of an EvaluateRequest that change no number of a point, or are kept apart. (`data` changes the
reference's content.)
"""
Stage = Callable[[str, int, int], None]
"""(what, done, total)."""


@dataclass(frozen=True, eq=False)
class Yardstick:
    """A reference that is open and known to fit: what all points of a study are measured against."""

    request: EvaluateRequest
    network: FeatureNetwork
    side: Side
    key: str
    """Equal keys measure alike."""
    warnings: tuple[str, ...]


def open_yardstick(request: EvaluateRequest, shape: tuple[int, int, int], stage: Stage) -> Yardstick:
    """Check a reference against samples of `shape` (C, H, W), and have its features in the cache."""
    if not request.against:
        raise ValueError("--against is missing; name the real pictures or a reference file")
    check_numbers(replace(request, samples="points"))
    warnings: list[str] = []
    channels, height, width = shape
    device = str(choose_device(request.device))
    network = choose_network(request, device, warnings, channels=channels)
    like = Pictures(
        name="the points",
        n=request.n or 2,
        shape=(height, width, channels),
        content="",
        take=lambda indices: torch.empty(0),
        is_model=True,
    )
    side = open_side(request, network, like, on_progress=stage)
    how = {key: value for key, value in to_dict(request).items() if key not in HOW_ONLY}
    key = digest([network.name, network.weights_hash, side.content, side.n, how])
    return Yardstick(request, network, side, key, tuple(warnings))


def digest(facts: Any) -> str:
    """A hash that equal plain data share."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Point:
    """What a point is and where it is kept."""

    plan: Plan | GanPlan
    weights: str
    """Hash of the model."""
    folder: Path

    @property
    def samples(self) -> Path:
        """Its pictures."""
        return self.folder / SAMPLES

    @property
    def evaluation(self) -> Path:
        """What was measured of them."""
        return self.folder / EVALUATION


def point_at(plan: Plan | GanPlan, weights: str, parent: Path) -> Point:
    """The point of a plan under `parent`; equal plans have equal folders, so that another study finds it."""
    return Point(plan, weights, parent / digest(identity(plan, weights))[:12])


def measure_point(point: Point, yardstick: Yardstick, stage: Stage, *, floor: bool) -> Evaluation:
    """Draw what is missing and measure it, or find that it was measured so before.

    floor: measure real against real pictures too, which is the same for all points.
    """
    request = replace(
        yardstick.request,
        samples=str(point.samples),
        n=point.plan.request.n,
        floor=floor and yardstick.request.floor,
    )
    key = digest([identity(point.plan, point.weights), yardstick.key, request.n])
    known = _known(point.evaluation, key, request.floor)
    if known:
        return known
    draw_point(point, stage)
    found = evaluate(request, on_progress=stage)
    found = replace(found, protocol={**found.protocol, KEY: {"key": key, "floor": request.floor}})
    found.save(point.evaluation)
    return found


def _known(path: Path, key: str, floor: bool) -> Evaluation | None:
    if not path.exists():
        return None
    try:
        found = read_evaluation(path)
    except ValueError:  # cut short or of another version: measured again
        return None
    stored = found.protocol.get(KEY, {})
    return found if stored.get("key") == key and stored.get("floor", False) >= floor else None


def draw_point(point: Point, stage: Stage) -> None:
    """Draw the pictures of a point that its folder lacks."""
    done, total = 0, 0

    def begin(missing: int) -> None:
        nonlocal total
        total = missing

    def batch(drawn: Any) -> None:
        nonlocal done
        done += len(drawn)
        stage("drawing", done, total)

    job = Job(out=point.samples, weights=point.weights, grid=False, on_begin=begin, on_batch=batch)
    run_job(point.plan, job)


def strip(folder: Path, count: int) -> bytes:
    """The first pictures of a folder side by side, as PNG: in every point they grew from the same noise."""
    files = sorted(folder.glob("*.png"))[:count]
    row = np.concatenate([np.atleast_3d(np.asarray(Image.open(file))) for file in files], axis=1)
    out = io.BytesIO()
    to_pil(row).save(out, "PNG", optimize=True)
    return out.getvalue()

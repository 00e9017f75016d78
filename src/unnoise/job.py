"""A sampling job: draws what a folder still lacks, alone or beside other processes; grid and animation."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unnoise import distributed
from unnoise.config.load import to_dict
from unnoise.gan_planning import GanPlan
from unnoise.generate import ImageBatch, Progress, draw
from unnoise.images import grid, save_animation, save_png, to_pixels
from unnoise.planning import Plan
from unnoise.store import NpzFile, PngFolder, claim, identity, refuse_among

GRID = "grid.png"
ANIMATION = "denoising.gif"
ROWS = 8
MOST = 10_000_000
"""Pictures of a job."""
FRAMES = 48
FRAME_VALUES = 2**22
"""Grey levels of one frame of an animation, at most: all frames are held in memory until the last step."""


def _ignore(_: Any) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is written besides the pictures, and who is told about it."""

    out: Path
    weights: str
    """SHA-256 of the model file."""
    npz: bool = False
    """One file in ADM's layout instead of PNGs."""
    grid: bool = True
    frames: bool = False
    """An animation of the denoising of the grid's pictures."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Texts for every PNG."""
    on_begin: Callable[[int], None] = _ignore
    """Told how many pictures this process has to draw."""
    on_step: Callable[[Progress], None] = _ignore
    on_batch: Callable[[ImageBatch], None] = _ignore


def run_job(plan: Plan | GanPlan, job: Job) -> Path:
    """Draw and write whatever is missing; returns the folder, or the npz file.

    ValueError when the folder holds something else. Stopped at any moment, it continues when called again.
    Under torchrun every process draws its share of the pictures, the same ones as a single process would.
    """
    if job.frames and isinstance(plan, GanPlan):
        raise ValueError("frames: a GAN draws in one step, there is nothing to show between; leave it out")
    out = job.out
    request = plan.request
    check_count(request.n)
    refuse_among(out, [Path(each) for each in (request.low_res, request.given, request.given_maps) if each])
    store = NpzFile(out, plan) if job.npz else PngFolder(out, plan, job.about)
    distributed.on_main(lambda: claim(out, identity(plan, job.weights), planned(store, out)), plan.device)
    film = Film(plan, job.on_step) if job.frames and not (out / ANIMATION).exists() else None
    missing = _to_draw(plan, store, film)
    distributed.barrier()  # a process must not see another's first pictures as done
    job.on_begin(len(missing))
    filming = film if film and distributed.is_main() else None
    for batch in draw(plan, missing, filming or job.on_step):
        store.add(batch)
        job.on_batch(batch)
    distributed.barrier()
    if not distributed.is_main():
        return out
    if job.grid:
        save_grid(plan, store, out / GRID, job.about)
    if filming:
        save_animation(out / ANIMATION, filming.frames())
    return store.finish()


def check_count(n: int) -> None:
    """ValueError for more pictures than a job can hold lists of."""
    if n > MOST:
        raise ValueError(f"n={n} is more than one command draws; use up to {MOST:,}, then go on with first")


def planned(store: "NpzFile | PngFolder", out: Path) -> Iterator[Path]:
    """All that a job may write, now or when it is continued with other options, but for its record."""
    return itertools.chain((out / GRID, out / ANIMATION), store.files())


def _to_draw(plan: Plan | GanPlan, store: "NpzFile | PngFolder", film: "Film | None") -> list[int]:
    """The pictures that this process draws, in order; the first process draws all of an animation's."""
    mine = [plan.ids[position] for position in distributed.share(plan.request.n)]
    missing = set(store.missing(mine))
    if film:
        missing = missing | set(film.ids) if distributed.is_main() else missing - set(film.ids)
    return sorted(missing)


def columns(plan: Plan | GanPlan) -> int:
    """Columns of the grid: one a class where they fit, else a square of at most ROWS * ROWS."""
    classes = len(plan.turn)
    return classes if 2 <= classes <= 12 else min(ROWS, math.ceil(math.sqrt(plan.request.n)))


def shown(plan: Plan | GanPlan) -> int:
    """Pictures in the grid: the first ones."""
    return min(plan.request.n, columns(plan) * ROWS)


def sheet(plan: Plan | GanPlan, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """The first pictures of a plan as one; uint8 (height, width, 3).

    With their classes or words, and each behind what it was told where that can be seen.
    """
    ids = list(plan.ids[: len(pixels)])
    names = [plan.name(k) for k in ids]
    rows, wide, told = np.asarray(pixels), columns(plan), plan.telling
    if told is not None:
        names = [name or words for name, words in zip(names, told.words(ids), strict=True)]
        shown = told.shown(ids, plan.device)
        if shown is not None:
            rows = np.stack([to_pixels(shown).cpu().numpy(), rows], 1).reshape(-1, *rows.shape[1:])
            names, wide = [text for name in names for text in ("told", name)], 2 * max(1, wide // 2)
    return grid(rows, wide, names if any(names) else None)


def save_grid(
    plan: Plan | GanPlan, store: "NpzFile | PngFolder", path: Path, about: Mapping[str, str]
) -> None:
    """Write the grid of the first pictures with the request that draws them."""
    count = shown(plan)
    request = to_dict(plan.request) | {"n": count, "labels": plan.turn, "precision": plan.precision}
    save_png(path, sheet(plan, store.read(count)), request, about=about)


class Film:
    """Collects the first pictures at evenly chosen steps while they are drawn."""

    def __init__(self, plan: Plan | GanPlan, on_step: Callable[[Progress], None] = _ignore) -> None:
        self.plan, self.on_step = plan, on_step
        count = min(shown(plan), max(1, FRAME_VALUES // math.prod(plan.picture)))
        self.ids = list(plan.ids[:count])
        self.chosen = sorted({round(s) for s in np.linspace(1, plan.steps, min(plan.steps, FRAMES))})
        self.seen: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, progress: Progress) -> None:
        """Keep what a step shows of the pictures on film."""
        if progress.step in self.chosen and progress.ids[0] <= self.ids[-1]:
            pixels = self.plan.to_pixels(progress.x).numpy()
            for k, picture in zip(progress.ids, pixels, strict=True):
                if self.ids[0] <= k <= self.ids[-1]:
                    self.seen[progress.step, k] = picture
        self.on_step(progress)

    def frames(self) -> list[np.ndarray]:
        """One sheet a chosen step."""
        return [sheet(self.plan, [self.seen[step, k] for k in self.ids]) for step in self.chosen]

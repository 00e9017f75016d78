"""The way down: results side by side in batches, each from where it starts, with its own noise."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unnoise.diffusion.constrain import Constraint
from unnoise.diffusion.noise import Noise, RowNoise
from unnoise.diffusion.particles import KnownPart
from unnoise.diffusion.prediction import Denoise
from unnoise.diffusion.schedule import At
from unnoise.edit.canvas import Canvas
from unnoise.edit.plan import Edit
from unnoise.edit.telling import Told, condition
from unnoise.generate import EXACT_BATCH, OnStep, walk, walk_particles
from unnoise.planning import Plan


@dataclass(frozen=True, eq=False)
class Start:
    """One result that is to be drawn."""

    x: Tensor
    """(1, C, H, W) at the noise level that it starts from."""
    noise: Noise
    """Of a batch of one."""
    told: Told
    index: int
    """Its number among the results of its picture."""
    canvas: Canvas | None = None
    """What it is made of; None where it is made of several."""


@dataclass(frozen=True, eq=False)
class Route:
    """How a batch goes from its start to pictures."""

    path: Sequence[At]
    constraint: Constraint | None = None
    denoise: Denoise | None = None
    """Instead of the plan's."""
    particles: KnownPart | None = None
    """What particles are weighed by, where that is how it goes."""


FindRoute = Callable[[Plan, Sequence[Start], Tensor], Route]
"""The route of a batch x (B, C, H, W), on its device, under a plan of its size."""


def descend(
    edit: Edit, starts: Iterable[Start], route_of: FindRoute, on_step: OnStep | None = None
) -> Iterator[tuple[Start, Tensor]]:
    """Every start and what it becomes, (C, H, W), on its way; drawn as it is asked for."""
    factor, request = edit.picture[1] // edit.shape[1], edit.request.generate
    for rows, kept in _batches(starts, request.batch_size, exact=request.exact):
        ready = edit.sized(factor * rows[0].x.shape[2], factor * rows[0].x.shape[3])
        x = torch.cat([start.x for start in rows]).to(ready.device)
        route = route_of(ready, rows, x)
        if len(route.path) < 2:
            yield from ((rows[k], rows[k].x[0]) for k in kept)
            continue
        drawn = _walked(edit, ready, route, rows, x, on_step)
        yield from ((rows[k], drawn[k]) for k in kept)


def _walked(
    edit: Edit, ready: Plan, route: Route, rows: Sequence[Start], x: Tensor, on_step: OnStep | None
) -> Tensor:
    """Where the route leads from x (B, C, H, W)."""
    noise, ids = RowNoise([start.noise for start in rows]), [start.index for start in rows]
    canvases = [start.canvas for start in rows if start.canvas is not None]
    cond = condition(ready, [start.told for start in rows], canvases, noise)
    if route.particles is not None:
        count = edit.request.particles
        return walk_particles(
            ready,
            route.particles,
            route.path,
            count,
            like=x,
            ids=ids,
            cond=cond,
            noise=noise,
            on_step=on_step,
        )
    if route.denoise is not None:
        ready = replace(ready, denoise=route.denoise)
    return walk(
        ready, x, route.path,
        ids=ids, cond=cond, noise=noise, constraint=route.constraint, on_step=on_step,
    )  # fmt: skip


def _batches(starts: Iterable[Start], size: int, *, exact: bool) -> Iterator[tuple[list[Start], list[int]]]:
    """Rows of one size for the network and those of them that count: as many as it takes, or for `exact` a
    batch of fixed size with each result in its fixed place, and copies in the others.
    """
    rows: list[Start] = []
    for start in starts:
        full = rows and (_place(start) <= _place(rows[-1]) if exact else len(rows) == size)
        if full or rows and start.x.shape != rows[0].x.shape:
            yield _in_places(rows) if exact else (rows, list(range(len(rows))))
            rows = []
        rows.append(start)
    if rows:
        yield _in_places(rows) if exact else (rows, list(range(len(rows))))


def _place(start: Start) -> int:
    return start.index % EXACT_BATCH


def _in_places(starts: Sequence[Start]) -> tuple[list[Start], list[int]]:
    rows = [starts[0]] * EXACT_BATCH
    for start in starts:
        rows[_place(start)] = start
    return rows, [_place(start) for start in starts]

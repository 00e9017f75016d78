"""Any number of results of each picture: read into its frame, noised, drawn, and laid over what is known.

How one kind of edit does each of these is a `Way`; what is the same for all is here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unnoise.diffusion.noise import SeededNoise
from unnoise.edit.canvas import Canvas, framed
from unnoise.edit.descent import FindRoute, Start, descend
from unnoise.edit.holes import FindHole, find_holes
from unnoise.edit.pictures import Picture, Readable, Upright, own_name, read_upright
from unnoise.edit.plan import Edit
from unnoise.edit.telling import Told
from unnoise.generate import OnStep
from unnoise.images import ImageBatch


@dataclass(frozen=True)
class Way:
    """How one kind of edit goes."""

    frame: Callable[[Edit, Upright, np.ndarray | None], Canvas]
    """The picture, and its hole, into what is drawn on."""
    begin: Callable[[Edit, Canvas, Tensor], Tensor]
    """x (1, C, H, W) that a result starts from, of unit noise of that shape."""
    route: Callable[[Edit], FindRoute]
    finish: Callable[[Edit, Canvas, Tensor], Tensor]
    """uint8 (H, W, C) of images (1, C, H, W) that were drawn, on the CPU: known parts laid over."""


def in_frame(edit: Edit, picture: Upright, hole: np.ndarray | None) -> Canvas:
    """The picture in its frame, as it is."""
    return framed(picture, hole, edit.frame, edit.request)


@dataclass(frozen=True, eq=False)
class Job:
    """A picture, what is told of it, and which of its results are wanted."""

    canvas: Canvas
    told: Told
    wanted: Iterable[int]


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a picture."""

    canvas: Canvas
    told: Told
    index: int
    pixels: Tensor
    """uint8 (H, W, C)."""


def redrawn(edit: Edit, way: Way, jobs: Iterable[Job], on_step: OnStep | None = None) -> Iterator[Result]:
    """All that the jobs want, in order."""

    def starts() -> Iterator[Start]:
        for job in jobs:
            height, width = job.canvas.known.shape[:2]
            like = torch.empty(1, *edit.sized(height, width).shape)
            for k in job.wanted:
                noise = SeededNoise(edit.request.generate.seed, [k], edit.ready.purpose)
                x = way.begin(edit, job.canvas, noise(like, step=-1, draw=0))
                yield Start(x, noise, job.told, k, job.canvas)

    for start, x in descend(edit, starts(), way.route(edit), on_step):
        canvas = start.canvas
        assert canvas is not None
        pixels = canvas.window.cut(way.finish(edit, canvas, edit.images(x[None])))
        yield Result(canvas, start.told, start.index, pixels)


def read_canvas(
    edit: Edit, way: Way, source: Readable | Picture, find_hole: FindHole, name: str = ""
) -> Canvas:
    """A picture ready to be drawn on. ValueError names it and what is wrong with it."""
    picture = read_upright(source, edit.picture[0], edit.request, name)
    canvas = way.frame(edit, picture, find_hole(picture))
    _check_told(edit, picture, canvas)
    return canvas


def _check_told(edit: Edit, picture: Upright, canvas: Canvas) -> None:
    """Refuse a result of another size than that which boxes and maps are of."""
    telling, side, window = edit.ready.telling, edit.picture[1], canvas.window
    if telling is None or telling.given is None or (window.height, window.width) == (side, side):
        return
    raise ValueError(
        f"{picture.called}: its result is {window.width}x{window.height}, and boxes and maps tell this model "
        f"of {side}x{side}; make the result that large"
    )


def results_of(
    edit: Edit,
    way: Way,
    pictures: Iterable[Readable | Picture],
    masks: Sequence[Readable] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """The results of one picture after the other, a batch each; refuses at once, draws as it is iterated."""
    sources = list(pictures)
    holes = find_holes(edit.request, _by_place(masks, len(sources)))
    canvases = [
        read_canvas(edit, way, source, holes, _place(k) if masks is not None else "")
        for k, source in enumerate(sources)
    ]
    ids = edit.ready.ids
    told = edit.told([own_name(source) for source in sources])
    jobs = [Job(canvas, each, ids) for canvas, each in zip(canvases, told, strict=True)]
    return _grouped(edit, redrawn(edit, way, jobs, on_step), ids)


def _by_place(masks: Sequence[Readable] | None, count: int) -> Mapping[str, Readable] | None:
    if masks is None:
        return None
    if len(masks) not in (1, count):
        raise ValueError(
            f"{len(masks)} masks for {count} {'picture' if count == 1 else 'pictures'}; give one for all of "
            "them, or one each"
        )
    return {_place(k): masks[k % len(masks)] for k in range(count)}


def _place(k: int) -> str:
    return f"picture {k}"


def _grouped(edit: Edit, drawn: Iterator[Result], ids: range) -> Iterator[ImageBatch]:
    rows: list[Tensor] = []
    for result in drawn:
        rows.append(result.pixels)
        if len(rows) == len(ids):
            yield edit.batch(rows, [result.told.label] * len(ids), ids)
            rows = []

"""Pictures of brush strokes made real: noised as far as `strength` says, drawn from there, and again.

Meng et al. 2022 (SDEdit), arXiv:2108.01073, algorithms 1 and 2: with a hole, all around it is held.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.diffusion.constrain import HoldKnown
from unnoise.edit.canvas import Canvas
from unnoise.edit.descent import FindRoute, Route, Start
from unnoise.edit.hold import latent_mask
from unnoise.edit.inpaint import laid_over
from unnoise.edit.pictures import Picture, Readable
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.redraw import Way, in_frame, results_of
from unnoise.edit.vary import noised
from unnoise.generate import OnStep
from unnoise.images import ImageBatch, to_pixels
from unnoise.model import Model
from unnoise.planning import Plan


def stroke(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    masks: Sequence[Readable] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """What painted pictures may be pictures of, a batch of results each; outside the hole, where there is
    one, they stay byte for byte.

    masks: as of `inpaint`. Refuses at once, draws as it is iterated.
    """
    return results_of(plan_edit(model, request), STROKE, pictures, masks, on_step)


def _route(edit: Edit) -> FindRoute:
    """Down from where the strength leads, `repeats` times: a path that goes up again noises anew there."""
    repeats = edit.request.repeats or 1

    def route(ready: Plan, rows: Sequence[Start], x: Tensor) -> Route:
        path = ready.schedule.path(x, start=edit.top)
        path = path * repeats if len(path) > 1 else path
        canvases = [start.canvas for start in rows if start.canvas is not None]
        if canvases[0].hole is None:  # as of all: the request names holes or does not
            return Route(path)
        images = torch.cat([canvas.images for canvas in canvases]).to(x.device)
        known = ready.model.encode(images)  # with the strokes in the hole, which are what counts there
        return Route(path, HoldKnown(known, latent_mask(_mask(canvases).to(x), known)))

    return route


def _mask(canvases: Sequence[Canvas]) -> Tensor:
    """(B, 1, H, W): 1 where pixels are to stay."""
    return torch.cat([1 - canvas.unknown for canvas in canvases])


def _finish(edit: Edit, canvas: Canvas, images: Tensor) -> Tensor:
    if edit.top < 0:
        return canvas.known
    return to_pixels(images)[0] if canvas.hole is None else laid_over(edit, canvas, images)


STROKE = Way(in_frame, noised, _route, _finish)

"""A part of a picture drawn anew, and margins drawn around it.

With a model that was trained to fill holes (Rombach et al. 2022, arXiv:2112.10752) by telling it the hole;
with any other by the methods of `hold`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.edit.canvas import Canvas, Margins, extended, feathered
from unnoise.edit.descent import FindRoute, Route, Start
from unnoise.edit.hold import holding_around_holes, holding_latents, route_holding
from unnoise.edit.pictures import Picture, Readable, Upright
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.redraw import Way, in_frame, results_of
from unnoise.generate import OnStep
from unnoise.images import ImageBatch, to_images, to_pixels
from unnoise.model import Model
from unnoise.planning import Plan

AT_ONCE = 2**22
"""Pixels, at most, that the network runs over as a whole around a picture; more need squares."""


def inpaint(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    masks: Sequence[Readable] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """Pictures with their holes drawn, a batch of results each; all else comes back byte for byte.

    masks: one for all pictures or one each, white or True in the hole, where the request names none. Result k
    starts from the noise of picture k of the same seed. Refuses at once, draws as it is iterated.
    """
    return results_of(plan_edit(model, request), INPAINT, pictures, masks, on_step)


def outpaint(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """Pictures with what may be around them, a batch of results each; they themselves stay byte for byte."""
    return results_of(plan_edit(model, request), OUTPAINT, pictures, None, on_step)


def _with_margins(edit: Edit, picture: Upright, hole: np.ndarray | None) -> Canvas:
    request = edit.request
    margins = Margins(request.left, request.right, request.top, request.bottom)
    width, height = picture.image.size
    width, height = width + margins.left + margins.right, height + margins.top + margins.bottom
    if width * height > request.max_pixels:
        raise ValueError(
            f"{picture.called}: with its margins it has {width}x{height} pixels, more than "
            f"max_pixels={request.max_pixels:,}; add less, or allow more"
        )
    if width * height > AT_ONCE and request.fit != "tile" and request.generate.patch is None:
        raise ValueError(
            f"{picture.called}: with its margins it has {width}x{height} pixels, more than the {AT_ONCE:,} "
            "that are drawn as a whole; use fit=tile or a patch to draw in overlapping squares, or add less"
        )
    return extended(picture, hole, edit.frame, margins)


def from_noise(edit: Edit, canvas: Canvas, eps: Tensor) -> Tensor:
    """Where a plain sample begins."""
    return eps


def _route(edit: Edit) -> FindRoute:
    def route(ready: Plan, rows: Sequence[Start], x: Tensor) -> Route:
        canvases = [start.canvas for start in rows if start.canvas is not None]
        pixels = holding_around_holes(ready, canvases)
        return route_holding(edit, ready, x, pixels, holding_latents(ready, pixels))

    return route


def laid_over(edit: Edit, canvas: Canvas, images: Tensor) -> Tensor:
    """What was drawn, in the hole of the picture alone; with a feather passing into it around."""
    drawn, known = to_pixels(images)[0], canvas.known
    assert canvas.hole is not None
    if not edit.request.feather:
        return torch.where(canvas.hole[..., None], drawn, known)
    weight = feathered(canvas.unknown, edit.request.feather)
    mixed = to_pixels(weight * images + (1 - weight) * to_images(known[None]), rule="edm")[0]
    weights = weight[0, 0, ..., None]
    return torch.where(weights == 0, known, torch.where(weights == 1, drawn, mixed))


INPAINT = Way(in_frame, from_noise, _route, laid_over)
OUTPAINT = Way(_with_margins, from_noise, _route, laid_over)

"""Colours for grey pictures: the mean over the channels is held while all else is drawn.

Song et al. 2021, arXiv:2011.13456, section I.3: grey is one axis of an orthonormal basis of the channels.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.data.degrade import grey
from unnoise.diffusion.constrain import hold_grey
from unnoise.edit.canvas import Canvas, framed
from unnoise.edit.checks import method_of
from unnoise.edit.descent import FindRoute, Route, Start
from unnoise.edit.hold import route_holding
from unnoise.edit.inpaint import from_noise
from unnoise.edit.pictures import Picture, Readable, Upright
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.redraw import Way, results_of
from unnoise.edit.rounding import levels_with_mean
from unnoise.generate import OnStep
from unnoise.images import ImageBatch, to_pixels
from unnoise.model import Model
from unnoise.planning import Plan


def colorize(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """Grey pictures in colours, a batch of results each; the mean over the channels is that of the picture,
    to the byte, and of a picture in colour that alone is kept.

    A model that was trained to be told grey pictures keeps the luma instead, within rounding. Refuses at
    once, draws as it is iterated.
    """
    return results_of(plan_edit(model, request), COLORIZE, pictures, None, on_step)


def _frame(edit: Edit, picture: Upright, hole: np.ndarray | None) -> Canvas:
    """The picture without its colours: each channel has the mean of all, rounded."""
    whole = framed(picture, hole, edit.frame, edit.request)
    means = whole.known.double().mean(-1, keepdim=True).round().to(torch.uint8)
    without = means.expand_as(whole.known).contiguous()
    return Canvas(whole.name, whole.window.cut(without), without, whole.window)


def _route(edit: Edit) -> FindRoute:
    def route(ready: Plan, rows: Sequence[Start], x: Tensor) -> Route:
        images = torch.cat([start.canvas.images for start in rows if start.canvas is not None])
        pixels = hold_grey(images.to(x))
        held = pixels if ready.model.first_stage is None else None
        return route_holding(edit, ready, x, pixels, held)

    return route


def _finish(edit: Edit, canvas: Canvas, images: Tensor) -> Tensor:
    """The colours that were drawn, with the grey that was given."""
    if method_of(edit.ready.model, edit.request) == "told":
        return to_pixels(images + (grey(canvas.images) - grey(images)), rule="edm")[0]
    levels = (images[0].permute(1, 2, 0).double() + 1) * 127.5
    return levels_with_mean(levels, canvas.known[..., 0])


COLORIZE = Way(_frame, from_noise, _route, _finish)

"""Variations: a picture is noised as far as `strength` says, and drawn from there again.

Meng et al. 2022 (SDEdit), arXiv:2108.01073, section 3, on whole pictures.
"""

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.diffusion.schedule import add_noise
from unnoise.edit.canvas import Canvas
from unnoise.edit.descent import FindRoute, Route, Start
from unnoise.edit.pictures import Picture, Readable
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.redraw import Way, in_frame, results_of
from unnoise.generate import OnStep
from unnoise.images import ImageBatch, to_pixels
from unnoise.model import Model
from unnoise.planning import Plan


def vary(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """The variants of one picture after the other; refuses at once, draws as it is iterated.

    Variant k meets the noise of picture k of the same seed: at strength 1 it is that picture.
    """
    return results_of(plan_edit(model, request), VARY, pictures, None, on_step)


def noised(edit: Edit, canvas: Canvas, eps: Tensor) -> Tensor:
    """x where the strength leads: the picture with eps; at strength 1 eps alone, as a plain sample begins."""
    if edit.request.strength == 1:
        return eps
    x0 = edit.walked(canvas.images)
    return x0 if edit.top < 0 else add_noise(x0, eps, edit.ready.schedule.at(edit.top, eps))


def _route(edit: Edit) -> FindRoute:
    def route(ready: Plan, rows: Sequence[Start], x: Tensor) -> Route:
        return Route(ready.schedule.path(x, start=edit.top))

    return route


def _finish(edit: Edit, canvas: Canvas, images: Tensor) -> Tensor:
    return canvas.known if edit.top < 0 else to_pixels(images)[0]


VARY = Way(in_frame, noised, _route, _finish)

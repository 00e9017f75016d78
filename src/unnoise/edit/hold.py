"""How what is known of pictures is kept while the rest is drawn: the methods, for a batch of canvases."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.diffusion.constrain import Constraint, HoldKnown, resampling_path
from unnoise.edit.canvas import Canvas, filled
from unnoise.edit.checks import method_of
from unnoise.edit.plan import Edit, Route
from unnoise.planning import Plan

REPEATS = 10
"""Of repaint, where the request says nothing."""


def held_around_holes(ready: Plan, canvases: Sequence[Canvas]) -> HoldKnown:
    """All but the holes of canvases. A latent position is known where no pixel of it is in the hole.

    What is in the holes does not count: it is filled from around them before it is encoded.
    """
    images = torch.cat([canvas.images for canvas in canvases]).to(ready.device)
    unknown = torch.cat([canvas.unknown for canvas in canvases]).to(ready.device)
    known = ready.model.encode(filled(images, unknown))
    return HoldKnown(known, latent_mask(canvases, known))


def latent_mask(canvases: Sequence[Canvas], like: Tensor) -> Tensor:
    """(B, 1, H, W) of the size of x: 1 where it is known, which is where no pixel of it is in the hole.

    Without a hole there nothing is.
    """
    sides = canvases[0].known.shape[:2]
    holes = [torch.ones(1, 1, *sides) if canvas.hole is None else canvas.unknown for canvas in canvases]
    return 1 - F.max_pool2d(torch.cat(holes).to(like), sides[0] // like.shape[2])


def route_holding(edit: Edit, ready: Plan, x: Tensor, held: Constraint) -> Route:
    """All the way from noise, with what is known kept as the request's method does."""
    method, request = method_of(ready.model, edit.request), edit.request
    if method == "told":
        return Route(ready.schedule.path(x))
    if method == "replace":
        return Route(ready.schedule.path(x), held)
    repeats = REPEATS if request.repeats is None else request.repeats
    return Route(resampling_path(ready.schedule, x, jump=request.jump, repeats=repeats), held)

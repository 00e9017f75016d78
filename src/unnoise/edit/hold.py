"""How what is known of pictures is kept while the rest is drawn: the methods, for a batch of canvases.

On latents what is known of pixels is seldom a part of x: it is asked of the decoded prediction instead, and
only the methods that pull a prediction can do with that.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unnoise.diffusion.constrain import Hold, HoldKnown, resampling_path
from unnoise.diffusion.prediction import Denoise
from unnoise.diffusion.reconstruction import Measured, dps, pigdm
from unnoise.edit.canvas import Canvas, filled
from unnoise.edit.checks import method_of
from unnoise.edit.descent import Route
from unnoise.edit.palette import Palette
from unnoise.edit.plan import Edit
from unnoise.planning import Plan

REPEATS = 10
"""Of repaint, where the request says nothing."""
PULLS = {"dps": 2.0, "pigdm": 1.0}
"""Strengths, where the request says nothing."""


def holding_around_holes(ready: Plan, canvases: Sequence[Canvas]) -> HoldKnown:
    """The pixels of canvases that are in no hole."""
    images = torch.cat([canvas.images for canvas in canvases]).to(ready.device)
    unknown = torch.cat([canvas.unknown for canvas in canvases]).to(ready.device)
    return HoldKnown(filled(images, unknown), 1 - unknown)


def holding_latents(ready: Plan, pixels: HoldKnown) -> HoldKnown:
    """The same of what is walked. A latent position is known where no pixel of it is in a hole.

    What is in the holes does not count: they were filled from around them before this encodes them.
    """
    if ready.model.first_stage is None:
        return pixels
    known = ready.model.encode(pixels.known)
    return HoldKnown(known, latent_mask(pixels.mask, known))


def latent_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask (B, 1, H, W) of known pixels -> (B, 1, h, w): 1 where all of a position's are known."""
    return 1 - F.max_pool2d(1 - mask, mask.shape[2] // like.shape[2])


def route_holding(
    edit: Edit, ready: Plan, x: Tensor, pixels: Hold | HoldKnown, held: Hold | HoldKnown | None
) -> Route:
    """All the way from noise, with what is known kept as the request's method does.

    pixels: what is known of pictures; held: of what is walked, None where that is no part of it.
    """
    request, schedule = edit.request, ready.schedule
    method, path = method_of(ready.model, request), schedule.path(x)
    if method in ("dps", "pigdm"):
        return Route(path, denoise=_pulled(edit, ready, method, pixels, held))
    denoise = None if edit.palette is None else _towards(edit.palette, edit, ready)
    if method == "told":
        return Route(path, denoise=denoise)
    assert held is not None, "checked with the request"
    if method == "particles":
        return Route(path, particles=held)
    if method == "repaint":
        repeats = REPEATS if request.repeats is None else request.repeats
        path = resampling_path(schedule, x, jump=request.jump, repeats=repeats)
    return Route(path, held, denoise)


def _pulled(
    edit: Edit, ready: Plan, method: str, pixels: Hold | HoldKnown, held: Hold | HoldKnown | None
) -> Denoise:
    """The denoiser with its prediction pulled towards what is known, and towards a palette."""
    request = edit.request
    pull = PULLS[method] if request.pull is None else request.pull
    if method == "pigdm":
        assert held is not None, "checked with the request"
        return ready.clip(pigdm(ready.guided, held, scale=pull))
    seen, palette = _seen(ready), edit.palette

    def missing(x0: Tensor) -> Tensor:
        images = seen(x0)
        off = pixels.missing(images).flatten(1)
        if palette is None:
            return off
        return torch.cat([off, request.palette_pull * palette.missing(images)], 1)

    return ready.clip(dps(ready.guided, Measured(missing), scale=pull))


def _towards(palette: Palette, edit: Edit, ready: Plan) -> Denoise:
    """The denoiser with its prediction pulled towards a palette alone."""
    seen = _seen(ready)
    colours = Measured(lambda x0: palette.missing(seen(x0)))
    return ready.clip(dps(ready.guided, colours, scale=edit.request.palette_pull))


def _seen(ready: Plan) -> Callable[[Tensor], Tensor]:
    """Images of predictions, with a gradient."""
    stage = ready.model.first_stage
    return (lambda x0: x0) if stage is None else stage.decode_through

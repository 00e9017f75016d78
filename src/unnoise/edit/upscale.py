"""Small pictures made large: the mean of every block is held while its detail is drawn.

Choi et al. 2021 (ILVR), arXiv:2108.02938, with box filters; a model that was trained to enlarge (Saharia et
al. 2021, arXiv:2104.07636) is told the small picture instead.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.diffusion.constrain import hold_low_frequencies
from unnoise.edit.canvas import Canvas, Frame, Window, framed
from unnoise.edit.checks import factor_of, method_of
from unnoise.edit.descent import FindRoute, Route, Start
from unnoise.edit.hold import route_holding
from unnoise.edit.inpaint import from_noise
from unnoise.edit.pictures import Picture, Readable, Upright
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.redraw import Way, results_of
from unnoise.edit.rounding import levels_with_mean
from unnoise.generate import OnStep
from unnoise.images import ImageBatch, to_pixels
from unnoise.metrics.reconstruction import downsampled_psnr
from unnoise.model import Model
from unnoise.planning import Plan


def upscale(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """Pictures `factor` times larger, a batch of results each; shrunk again by means of blocks they are the
    picture: to the byte of a model of pixels that was not trained to be told it, nearly of others.

    model: any, or an upsampler, which is told the picture and knows its factor. Refuses at once, draws as it
    is iterated.
    """
    return results_of(plan_edit(model, request), UPSCALE, pictures, None, on_step)


def consistency(*, small: Tensor, large: Tensor) -> float:
    """PSNR in dB of an enlarged picture, uint8 (k h, k w, C), shrunk by means of blocks against the small one
    (h, w, C); infinite where they are the same.
    """
    return downsampled_psnr(low=small[None], fake=large[None]).item()


def _frame(edit: Edit, picture: Upright, hole: np.ndarray | None) -> Canvas:
    """The small picture in its frame, every pixel of it a block of the large one."""
    factor, frame = factor_of(edit.ready.model, edit.request), edit.frame
    _check_sides(picture, factor, frame.side, edit.request)
    step = frame.step // math.gcd(frame.step, factor)
    fits = frame.side % factor == 0
    side = frame.side // factor if fits else math.ceil(frame.side / (factor * step)) * step
    small = framed(picture, hole, Frame(side, step), edit.request)
    known = small.known.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    window = Window(0, 0, factor * small.window.height, factor * small.window.width)
    return Canvas(small.name, small.before, known, window, small=small.known)


def _check_sides(picture: Upright, factor: int, side: int, request: EditRequest) -> None:
    """Refuse a picture that is too small or too large to become `side` pixels, unless it may be fitted."""
    width, height = picture.image.size
    if request.fit == "refuse" and (width, height) != (side // factor, side // factor):
        raise ValueError(
            "{0}: it is {1}, and the model makes {2}x{2} of {3}x{3}, {4} times larger; choose fit crop "
            "(resize, cut the middle), pad (repeat its edges) or, without an upsampler, tile (keep its "
            "size)".format(picture.called, picture.sides, side, side // factor, factor)
        )
    if request.fit == "tile" and width * height * factor**2 > request.max_pixels:
        raise ValueError(
            f"{picture.called}: {factor} times larger it has {factor * width}x{factor * height} pixels, more "
            f"than max_pixels={request.max_pixels:,}; use a smaller factor, or allow more"
        )


def _route(edit: Edit) -> FindRoute:
    factor = factor_of(edit.ready.model, edit.request)

    def route(ready: Plan, rows: Sequence[Start], x: Tensor) -> Route:
        images = torch.cat([start.canvas.images for start in rows if start.canvas is not None])
        pixels = hold_low_frequencies(images.to(x), factor)
        held = pixels if ready.model.first_stage is None else None
        return route_holding(edit, ready, x, pixels, held)

    return route


def _finish(edit: Edit, canvas: Canvas, images: Tensor) -> Tensor:
    """What was drawn; the mean of every block is the small picture's pixel, where that was held in pixels."""
    model = edit.ready.model
    if method_of(model, edit.request) == "told" or model.first_stage is not None:
        return to_pixels(images)[0]
    assert canvas.small is not None
    factor, (channels, height, width) = factor_of(edit.ready.model, edit.request), images.shape[1:]
    levels = (images[0].double() + 1) * 127.5
    blocks = levels.reshape(channels, height // factor, factor, width // factor, factor).transpose(2, 3)
    rounded = levels_with_mean(blocks.flatten(3), canvas.small.permute(2, 0, 1))
    whole = rounded.reshape(*blocks.shape).transpose(2, 3).reshape(channels, height, width)
    return whole.permute(1, 2, 0).contiguous()


UPSCALE = Way(_frame, from_noise, _route, _finish)

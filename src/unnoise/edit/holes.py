"""Where in a picture something is drawn anew: a mask's white, what is not opaque, a rectangle, brush strokes.

A hole is (H, W) bool in the picture's own pixels, True where it is drawn.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.data.crop import center_crop
from unnoise.edit.pictures import Readable, Upright, find_pictures, padded, read_upright

FindHole = Callable[[Upright], np.ndarray | None]
"""The hole of a picture, None where none is asked for. ValueError where it does not fit the picture."""
ALPHA = "alpha"
_WHITE = 128
"""Grey level from which a mask is white."""
_FARTHEST = 1e6
"""Pixels; beyond it numbers are no part of a stroke."""


def find_holes(request: EditRequest, masks: Mapping[str, Readable] | None = None) -> FindHole:
    """How the holes of pictures are found. ValueError for several ways at once, or for files that say none.

    masks: by the names of the pictures, instead of what the request says.
    """
    ways = [
        f"{name}={getattr(request, name)}" for name in ("mask", "box", "strokes") if getattr(request, name)
    ]
    ways += ["masks given"] if masks is not None else []
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)}: a hole is named in one way; leave the others out")
    if not ways and request.kind == "inpaint":
        raise ValueError("inpaint draws in a hole, and none is named; name one with mask, box or strokes")
    if masks is not None:
        return lambda picture: _of_named(picture, masks, "the masks given", request)
    if request.box is not None:
        box = request.box
        return lambda picture: _of_box(picture, box)
    if request.strokes:
        drawn = read_strokes(Path(request.strokes))
        return lambda picture: _of_strokes(picture, drawn)
    if request.mask == ALPHA:
        return _of_alpha
    if not request.mask:
        return lambda picture: None
    path = Path(request.mask)
    if not path.exists():
        raise ValueError(f"mask={request.mask} does not exist; name a picture, a folder of them, or alpha")
    if path.is_dir():
        named = find_pictures([path])
        return lambda picture: _of_named(picture, named, str(path), request)
    return lambda picture: _of_mask(picture, path, request)


def _of_named(
    picture: Upright, masks: Mapping[str, Readable], where: str, request: EditRequest
) -> np.ndarray:
    if picture.name not in masks:
        raise ValueError(f"{picture.called}: {where} has no mask called {picture.name}; add it")
    return _of_mask(picture, masks[picture.name], request)


def _of_mask(picture: Upright, source: Readable, request: EditRequest) -> np.ndarray:
    white = _black_and_white(source, request)
    height, width = white.shape
    if (width, height) != picture.image.size:
        raise ValueError(
            f"{picture.called}: its mask is {width}x{height} and it is {picture.sides}; give one of its size"
        )
    return white


def _black_and_white(source: Readable, request: EditRequest) -> np.ndarray:
    """(H, W) bool, True where a mask is white; what is transparent in it is black."""
    if isinstance(source, np.ndarray | Tensor) and np.asarray(source).dtype == bool:
        source = np.asarray(source).astype(np.uint8) * 255
    plain = EditRequest(grey=True, background="#000000", max_pixels=request.max_pixels)
    return np.asarray(read_upright(source, 1, plain, "the mask").image) >= _WHITE


def _of_alpha(picture: Upright) -> np.ndarray:
    if picture.clear is None:
        raise ValueError(f"{picture.called}: it is opaque all over, so alpha marks no hole; use mask, or box")
    return picture.clear


def _of_box(picture: Upright, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, width, height = box
    wide, high = picture.image.size
    if min(width, height) < 1 or min(left, top) < 0 or left + width > wide or top + height > high:
        raise ValueError(
            f"{picture.called}: box {left},{top},{width},{height} (left, top, width, height) is not inside "
            f"its {picture.sides}; use one that is"
        )
    hole = np.zeros((high, wide), bool)
    hole[top : top + height, left : left + width] = True
    return hole


@dataclass(frozen=True)
class Stroke:
    """A line through points, with round ends."""

    points: tuple[tuple[float, float], ...]
    width: float


def read_strokes(path: Path) -> list[Stroke]:
    """The strokes of a json file. ValueError says what it should hold."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"strokes={path}: a device or a pipe; name a json file of strokes")
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(listed, list):
            raise TypeError("strokes are a list")
        strokes = [_stroke(each) for each in listed]
    except OSError as error:
        raise ValueError(f"strokes={path}: {error.strerror}; name a json file of strokes") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(
            f'{path} holds no strokes; write [{{"width": 6, "points": [[3, 4], [20, 9]]}}, ...], in pixels'
        ) from None
    for stroke in strokes:
        _check(path, stroke)
    return strokes


def _stroke(values: Mapping[str, Any]) -> Stroke:
    width, points = float(values["width"]), tuple((float(x), float(y)) for x, y in values["points"])
    return Stroke(points, width)


def _check(path: Path, stroke: Stroke) -> None:
    width, points = stroke.width, stroke.points
    if not points or not width > 0:
        raise ValueError(
            f"{path}: a stroke has width {width:g} and {len(points)} points; use a width above 0 and a point "
            "or more"
        )
    if not all(abs(value) < _FARTHEST for value in (width, *itertools.chain.from_iterable(points))):
        raise ValueError(
            f"{path}: a stroke goes beyond {_FARTHEST:g} pixels; use numbers of pixels of the picture"
        )


def _of_strokes(picture: Upright, strokes: list[Stroke]) -> np.ndarray:
    """Every pixel whose middle, which has whole coordinates, is under a brush."""
    width, height = picture.image.size
    hole = np.zeros((height, width), bool)
    for stroke in strokes:
        reach = max(stroke.width / 2, 0.5)
        for start, end in zip(stroke.points, stroke.points[1:] or stroke.points, strict=False):
            rows = _around(start[1], end[1], reach, height)
            columns = _around(start[0], end[0], reach, width)
            y, x = np.mgrid[rows, columns]
            hole[rows, columns] |= _distance(x, y, start, end) <= reach
    return hole


def _around(start: float, end: float, reach: float, side: int) -> slice:
    """Of a coordinate below `side`, all that may be so near to the line."""
    first = min(side, max(0, math.floor(min(start, end) - reach)))
    return slice(first, max(first, min(side, math.ceil(max(start, end) + reach) + 1)))


def _distance(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    """Of places from the line between two points."""
    (from_x, from_y), (to_x, to_y) = start, end
    along_x, along_y = to_x - from_x, to_y - from_y
    length = along_x**2 + along_y**2
    share = ((x - from_x) * along_x + (y - from_y) * along_y) / (length or 1)
    share = np.clip(share, 0, 1)
    return np.asarray(np.hypot(x - from_x - share * along_x, y - from_y - share * along_y))


def check_hole(picture: Upright, hole: np.ndarray) -> None:
    """Refuse a hole that is none of its picture, or all of it."""
    if not hole.any():
        raise ValueError(
            f"{picture.called}: its mask has no hole; make white what is to be drawn, and the rest black"
        )
    if hole.all():
        raise ValueError(
            f"{picture.called}: its mask leaves nothing of it; leave some, or draw with `unnoise sample`"
        )


def fitted_hole(hole: np.ndarray, size: int, fit: str) -> np.ndarray:
    """The hole cropped or padded as `pictures.fitted` does its picture: whatever it touches belongs to it."""
    if hole.shape == (size, size):
        return hole
    image = Image.fromarray(hole.astype(np.uint8) * 255)
    levels = center_crop(image, size) if fit == "crop" else padded(image, size)
    return np.asarray(levels[..., 0] > 0)

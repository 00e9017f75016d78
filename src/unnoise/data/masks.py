"""Holes to be filled in: boxes, halves, strokes and wide masks, each a function of (seed, place).

Wide masks are boxes and chains of thick strokes, as in Suvorov et al. 2021, "Resolution-robust Large Mask
Inpainting with Fourier Convolutions" (arXiv 2109.07161), section 2.3.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from unnoise.data import order

_TRIES = 1000


@dataclass(frozen=True)
class Frame:
    """A picture's sides, and the least and largest share of it that a hole takes."""

    height: int
    width: int
    least: float
    most: float

    def share(self, hole: np.ndarray) -> float:
        """Share of the picture that a hole takes."""
        return float(hole.mean())


def draw_masks(
    kind: str,
    height: int,
    width: int,
    *,
    seed: int,
    places: np.ndarray,
    least: float = 0.1,
    most: float = 0.6,
) -> Tensor:
    """A mask for each place, (B, 1, height, width) bool, True in the hole.

    kind: a name of MASKS or "mixed", which draws one for each place. The hole takes a share of `least` to
    `most` of the picture. ValueError for bounds that the kind cannot meet.
    """
    if kind != "mixed" and kind not in MASKS:
        raise ValueError(f"mask={kind!r} is unknown; use {', '.join(MASKS)} or mixed")
    if not 0 < least <= most < 1:
        raise ValueError(
            f"a hole of {least:g} to {most:g} of the picture; use bounds with 0 < least <= most < 1"
        )
    if kind == "half" and not least <= 0.5 <= most:
        raise ValueError(
            f"half of a picture is not {least:g} to {most:g} of it; widen the bounds, or use box"
        )
    frame = Frame(height, width, least, most)
    kinds = [name for name in MASKS if name != "half" or least <= 0.5 <= most]
    drawn = []
    for bits in order.draws(seed, f"mask {kind}", places):
        rng = random.Random(int(bits))
        draw = MASKS[rng.choice(kinds) if kind == "mixed" else kind]
        drawn.append(draw(frame, rng))
    return torch.from_numpy(np.stack(drawn))[:, None]


def check_mask(mask: Tensor) -> None:
    """Refuses masks (B, 1, H, W) of which one has no hole, or is nothing but hole."""
    share = mask.float().flatten(1).mean(1)
    for k, value in enumerate(share.tolist()):
        if value == 0:
            raise ValueError(f"mask {k} has no hole; mark what is to be filled in")
        if value == 1:
            raise ValueError(f"mask {k} leaves nothing of its picture; leave some, or draw without a picture")


def masked(images: Tensor, mask: Tensor, value: float = 0.0) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1] with this value in the hole: 0 is grey."""
    return images.masked_fill(mask, value)


def _box(frame: Frame, rng: random.Random) -> np.ndarray:
    """One rectangle, up to three times as long as it is wide, of a share that is drawn first."""
    for _ in range(_TRIES):
        area = rng.uniform(frame.least, frame.most) * frame.height * frame.width
        aspect = 3 ** rng.uniform(-1, 1)
        high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < high <= frame.height and 0 < wide <= frame.width):
            continue
        hole = np.zeros((frame.height, frame.width), bool)
        top, left = rng.randrange(frame.height - high + 1), rng.randrange(frame.width - wide + 1)
        hole[top : top + high, left : left + wide] = True
        if frame.least <= frame.share(hole) <= frame.most:
            return hole
    raise _impossible(frame)


def _half(frame: Frame, rng: random.Random) -> np.ndarray:
    """The left, right, upper or lower half."""
    hole = np.zeros((frame.height, frame.width), bool)
    if rng.random() < 0.5:
        hole[:, : frame.width // 2] = True
        return hole if rng.random() < 0.5 else ~hole
    hole[: frame.height // 2] = True
    return hole if rng.random() < 0.5 else ~hole


def _strokes(frame: Frame, rng: random.Random) -> np.ndarray:
    """Chains of thin strokes, as drawn by a hand."""
    return _chains(frame, rng, thin=0.02, thick=0.08)


def _wide(frame: Frame, rng: random.Random) -> np.ndarray:
    """Thick chains or a rectangle, each half of the time."""
    return _box(frame, rng) if rng.random() < 0.5 else _chains(frame, rng, thin=0.1, thick=0.25)


def _chains(frame: Frame, rng: random.Random, *, thin: float, thick: float) -> np.ndarray:
    """Strokes joined at their ends until the drawn share is reached; one that would go beyond is left out.

    thin, thick: of the shorter side.
    """
    wanted = rng.uniform(frame.least, frame.most)
    side = min(frame.height, frame.width)
    image = Image.new("1", (frame.width, frame.height))
    hole = np.asarray(image)
    x, y, angle = rng.uniform(0, frame.width), rng.uniform(0, frame.height), rng.uniform(0, 2 * math.pi)
    for _ in range(_TRIES):
        if rng.random() < 0.1:
            x, y = rng.uniform(0, frame.width), rng.uniform(0, frame.height)
        angle += rng.uniform(-1.2, 1.2)
        reach, across = rng.uniform(0.1, 0.4) * side, max(1, round(rng.uniform(thin, thick) * side))
        to_x = min(max(x + reach * math.cos(angle), 0), frame.width - 1)
        to_y = min(max(y + reach * math.sin(angle), 0), frame.height - 1)
        longer = image.copy()
        pen = ImageDraw.Draw(longer)
        pen.line((x, y, to_x, to_y), fill=1, width=across)
        for at_x, at_y in ((x, y), (to_x, to_y)):
            r = across / 2
            pen.ellipse((at_x - r, at_y - r, at_x + r, at_y + r), fill=1)
        drawn = np.asarray(longer)
        if frame.share(drawn) > frame.most:
            continue
        image, hole, x, y = longer, drawn, to_x, to_y
        if frame.share(hole) >= wanted:
            return hole
    if frame.share(hole) >= frame.least:
        return hole
    raise _impossible(frame)


def _impossible(frame: Frame) -> ValueError:
    return ValueError(
        f"no hole of {frame.least:g} to {frame.most:g} of {frame.width}x{frame.height} was found; "
        "widen the bounds"
    )


MASKS: dict[str, Callable[[Frame, random.Random], np.ndarray]] = {
    "box": _box,
    "half": _half,
    "strokes": _strokes,
    "wide": _wide,
}
"""Name -> what draws a hole, (H, W) bool."""

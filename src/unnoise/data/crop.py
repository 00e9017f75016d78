"""Pictures to squares as ADM does: BOX halvings, one BICUBIC resize, an integer crop (Dhariwal & Nichol 2021,
released code).

A picture is halved with a BOX filter while its shorter side is at least twice the wanted one, resized by
BICUBIC so that the shorter side is exactly that, and a square is cut out of the middle (centre crop) or
anywhere (random crop, where the wanted side is drawn first). The halvings of a smaller target begin with
those of a larger one, which is why a picture stored after the halvings of the largest target (`halve`) still
gives every random crop to the bit.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

_WHOLE = 2**24
"""Pixels of a resized picture above which only the wanted window of it is computed (extreme panoramas)."""


@dataclass(frozen=True)
class Window:
    """A square of a resized picture: that picture's shorter side, and the square's corner, in pixels."""

    shorter: int
    left: int
    top: int


def resized_sides(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Sides after the halvings and the BICUBIC resize that make the shorter one `shorter`."""
    width, height = halved_sides(width, height, shorter)
    factor = shorter / min(width, height)
    return round(width * factor), round(height * factor)


def halved_sides(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Sides after halving while the shorter one is at least 2 * shorter."""
    while min(width, height) >= 2 * shorter:
        width, height = width // 2, height // 2
    return width, height


def center_window(width: int, height: int, size: int) -> Window:
    """The middle square of a width x height picture resized so that its shorter side is `size`."""
    wide, high = resized_sides(width, height, size)
    return Window(size, (wide - size) // 2, (high - size) // 2)


def largest_shorter(size: int, least: float = 0.8) -> int:
    """The largest shorter side that a random crop of `size` draws: the square is then `least` of it."""
    return math.ceil(size / least)


def random_window(
    width: int, height: int, size: int, rng: random.Random, *, least: float = 0.8, most: float = 1.0
) -> Window:
    """A square of `least` to `most` of the shorter side, anywhere. Draws the scale, then top, then left."""
    shorter = rng.randrange(math.ceil(size / most), largest_shorter(size, least) + 1)
    wide, high = resized_sides(width, height, shorter)
    top = rng.randrange(high - size + 1)
    return Window(shorter, rng.randrange(wide - size + 1), top)


def halve(image: Image.Image, shorter: int) -> Image.Image:
    """The picture after its BOX halvings towards a shorter side of `shorter`."""
    while min(image.size) >= 2 * shorter:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image


def cut(image: Image.Image, window: Window, size: int) -> np.ndarray:
    """The window of the picture. Returns uint8 (size, size, C); needs no more memory than the picture."""
    wide, high = resized_sides(*image.size, window.shorter)
    image = halve(image, window.shorter)
    if wide * high <= _WHOLE:
        resized = np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC))
        square = resized[window.top : window.top + size, window.left : window.left + size]
    else:
        across, down = image.width / wide, image.height / high
        box = (
            window.left * across,
            window.top * down,
            min(image.width, (window.left + size) * across),
            min(image.height, (window.top + size) * down),
        )
        square = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return square[..., None] if square.ndim == 2 else square


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """ADM's default: resize and cut the middle square. Returns uint8 (size, size, C)."""
    return cut(image, center_window(*image.size, size), size)


def random_crop(
    image: Image.Image, size: int, rng: random.Random, *, least: float = 0.8, most: float = 1.0
) -> np.ndarray:
    """ADM's random crop: `least` to `most` of the shorter side, resized. Returns uint8 (size, size, C)."""
    return cut(image, random_window(*image.size, size, rng, least=least, most=most), size)


def to_bands(pixels: np.ndarray) -> list[Image.Image]:
    """Pixels (H, W, C) as Pillow pictures: one for 1 to 4 channels, else one a channel."""
    channels = pixels.shape[2]
    if channels == 1:
        return [Image.fromarray(pixels[..., 0])]
    if channels in (2, 3, 4):
        return [Image.fromarray(np.ascontiguousarray(pixels))]
    return [Image.fromarray(np.ascontiguousarray(pixels[..., k])) for k in range(channels)]


def cut_pixels(pixels: np.ndarray, window: Window, size: int) -> np.ndarray:
    """`cut` for pixels (H, W, C) of any channel count."""
    return np.concatenate([cut(band, window, size) for band in to_bands(pixels)], axis=2)

"""Pictures to edit: found, decoded, made the size and channels of the model, or refused by name."""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.data.crop import center_crop, to_bands
from unnoise.data.decode import BrokenPicture, Decoding, in_srgb, opened, quiet, upright
from unnoise.data.folder import open_folder
from unnoise.images import to_images

Readable = str | Path | bytes | Image.Image | np.ndarray | Tensor
"""A picture: a file or its bytes, Pillow's, or uint8 (H, W) or (H, W, C)."""

UNTILED = ("invert", "interpolate")
"""Kinds of edit that walk all pictures at the model's size."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the model sees it."""

    name: str
    """What its results are called: where it lies in its folder, without the ending."""
    pixels: Tensor
    """uint8 (H, W, C)."""

    @property
    def images(self) -> Tensor:
        """(1, C, H, W) in [-1, 1]."""
        return to_images(self.pixels[None])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its sides and pixels."""
        content = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        content.update(self.pixels.numpy().tobytes())
        return content.hexdigest()


def find_pictures(paths: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of pictures, and of the pictures in folders, in order. ValueError for a path that is not
    there.

    Names that differ only in their endings keep them.
    """
    found: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            source = open_folder(path, "none")
            found += [(source.name_of(k), Path(str(read()))) for k, read in enumerate(source.reads())]
        elif path.exists():
            found.append((path.name, path))
        else:
            raise ValueError(f"{path} does not exist; name a picture or a folder of pictures")
    count = Counter(posixpath.splitext(name)[0] for name, _ in found)
    named: dict[str, Path] = {}
    for name, path in found:
        stem = posixpath.splitext(name)[0]
        key = stem if count[stem] == 1 else name
        if key in named and named[key].samefile(path):
            raise ValueError(f"{path} is named twice; name it once")
        if key in named:
            raise ValueError(
                f"{named[key]} and {path} have the same name, and so would their results; rename one of them"
            )
        named[key] = path
    return named


@dataclass(frozen=True, eq=False)
class Upright:
    """A picture in its own size, as people see it, in the channels of the model."""

    name: str
    called: str
    """What people call it: its file."""
    image: Image.Image
    clear: np.ndarray | None
    """(H, W) bool: where it is not opaque; None for a picture without transparency."""

    @property
    def sides(self) -> str:
        """Such as 640x480."""
        return "{}x{}".format(*self.image.size)


def read_picture(
    source: Readable | Picture, shape: tuple[int, int, int], request: EditRequest, name: str = ""
) -> Picture:
    """A picture made (C, H, W) `shape` as the request says. ValueError names it and what is wrong with it."""
    if isinstance(source, Picture):
        return source
    assert request.fit != "tile", "checked with the request"
    upright_one = read_upright(source, shape[0], request, name)
    try:
        pixels = fitted(upright_one.image, shape[1], request)
    except BrokenPicture as error:
        raise ValueError(f"{upright_one.called}: {error}") from None
    return Picture(upright_one.name, torch.from_numpy(np.array(pixels)))


def read_upright(source: Readable | Picture, channels: int, request: EditRequest, name: str = "") -> Upright:
    """A picture turned as its EXIF says, its colours in sRGB. ValueError names it and what is wrong with it.

    A model of grey pictures refuses colours, unless they are not wanted (`request.grey`).
    """
    if isinstance(source, Picture):
        name = name or source.name
        source = source.pixels
    if channels > 4:
        raise ValueError(f"no file holds pictures of {channels} channels, such as this model's; use 1 to 4")
    decoding = Decoding(channels, colour(request.background), request.max_pixels)
    called = str(source) if isinstance(source, str | Path) else name or "the picture"
    try:
        with quiet(), _opened(source, request.max_pixels) as opened_one:
            image = in_srgb(opened_one)
            kept = upright(image, decoding)
            whole = upright(image, replace(decoding, channels=4))
    except BrokenPicture as error:
        way_out = "" if ";" in str(error) else "; mend it, or leave it out"
        raise ValueError(f"{called}: {error}{way_out}") from None
    if channels < 3 and not request.grey and _has_colour(whole):
        raise ValueError(
            f"{called}: it has colour and the model draws in grey; option grey takes it without its colours"
        )
    clear = np.asarray(whole)[..., 3] < 255
    return Upright(name or own_name(source), called, kept, clear if clear.any() else None)


def own_name(source: Readable | Picture) -> str:
    """What a picture is called where nothing else says it: as its file without the ending."""
    if isinstance(source, Picture):
        return source.name
    return Path(source).stem if isinstance(source, str | Path) else "picture"


def colour(text: str) -> tuple[int, int, int]:
    """Levels of a colour as people write it. ValueError for what is none."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise ValueError(
            f"background={text!r} is not a colour; write #rrggbb or a name such as white"
        ) from None
    return red, green, blue


@contextmanager
def _opened(source: Readable, max_pixels: int) -> Iterator[Image.Image]:
    """Whatever holds a picture, for Pillow."""
    if isinstance(source, str | Path | bytes):
        with opened(source if isinstance(source, bytes) else Path(source), max_pixels) as image:
            yield image
    elif isinstance(source, Image.Image):
        yield source
    else:
        levels = np.asarray(source)
        if levels.dtype != np.uint8 or levels.ndim not in (2, 3) or levels.ndim == 3 and levels.shape[2] > 4:
            raise BrokenPicture(
                f"{levels.dtype} {levels.shape} is no picture; give uint8 (height, width, 1 to 4 channels)"
            )
        yield to_bands(levels if levels.ndim == 3 else levels[..., None])[0]


def _has_colour(image: Image.Image) -> bool:
    """Whether a picture of mode RGBA has a visible pixel that is not grey."""
    levels = np.asarray(image)
    seen = levels[levels[..., 3] > 0]
    return bool((seen[:, :1] != seen[:, 1:3]).any())


def fitted(image: Image.Image, size: int, request: EditRequest) -> np.ndarray:
    """The picture as a square of `size`, uint8 (size, size, C); never squeezed: both sides shrink alike.

    BrokenPicture where it is no such square and fit is refuse.
    """
    if image.size == (size, size):
        return as_levels(image)
    if request.fit == "refuse":
        width, height = image.size
        ways = ["crop (resize, cut the middle)", "pad (repeat its edges)"]
        if request.kind not in UNTILED:
            ways.append("tile (keep its size)")
        raise BrokenPicture(
            f"it is {width}x{height} and the model draws {size}x{size}; choose fit {', '.join(ways[:-1])} or "
            f"{ways[-1]}"
        )
    return center_crop(image, size) if request.fit == "crop" else padded(image, size)


def as_levels(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, C) of a picture."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def padded(image: Image.Image, size: int) -> np.ndarray:
    """The whole picture in the middle, its edges repeated; shrunk if it is larger, as `center_crop` does."""
    while max(image.size) >= 2 * size:
        image = image.resize([max(1, side // 2) for side in image.size], Image.Resampling.BOX)
    if max(image.size) > size:
        factor = size / max(image.size)
        sides = [max(1, round(side * factor)) for side in image.size]
        image = image.resize(sides, Image.Resampling.BICUBIC)
    pixels = as_levels(image)
    across, down = size - image.width, size - image.height
    around = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    return np.pad(pixels, around, mode="edge")

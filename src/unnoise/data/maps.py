"""Semantic maps: PNGs whose levels are classes, one a picture, cut as the picture is and never blended."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.data.crop import Window, resized_sides
from unnoise.data.decode import BrokenPicture, levels_of, opened


def find_maps(folder: Path, names: Sequence[str]) -> list[Path]:
    """The map of each picture: FOLDER/the same name with .png. ValueError when some are missing."""
    paths = [folder / PurePosixPath(name).with_suffix(".png") for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing):,} of {len(paths):,} pictures have no map (first: {missing[0]}); put a PNG "
            "of the picture's name there"
        )
    return paths


def read_map(path: Path, sides: tuple[int, int], *, classes: int, max_pixels: int) -> np.ndarray:
    """A map as (H, W) uint8 classes. sides: width and height of its picture.

    ValueError for a map of another size, of colours instead of levels, or with a class beyond `classes`.
    """
    try:
        with opened(path, max_pixels) as image:
            if image.mode not in ("L", "P", "1"):
                raise ValueError(f"{path} has colours or over 8 bits ({image.mode}); write levels")
            if image.size != sides:
                raise ValueError(
                    f"{path} is {image.width}x{image.height}, its picture {sides[0]}x{sides[1]}; make them "
                    "alike"
                )
            levels = levels_of(image)
    except BrokenPicture as error:
        raise ValueError(f"{path} cannot be read as a map ({error})") from error
    if levels.max() >= classes:
        raise ValueError(
            f"{path} has class {levels.max()}, but there are {classes}: 0..{classes - 1}; say more"
        )
    return levels


def cut_map(levels: np.ndarray, window: Window, size: int) -> np.ndarray:
    """What a map has in the square that was cut from its picture (data/crop.py): (size, size), by nearest."""
    high, wide = levels.shape
    across, down = resized_sides(wide, high, window.shorter)
    rows = ((window.top + np.arange(size) + 0.5) * high / down).astype(np.int64).clip(0, high - 1)
    columns = ((window.left + np.arange(size) + 0.5) * wide / across).astype(np.int64).clip(0, wide - 1)
    return levels[rows[:, None], columns[None, :]]


def one_hot(levels: Tensor, classes: int) -> Tensor:
    """(B, H, W) classes -> (B, classes, H, W) float32, what a rescaler of maps reads."""
    return F.one_hot(levels.to(torch.int64), classes).permute(0, 3, 1, 2).to(torch.float32)

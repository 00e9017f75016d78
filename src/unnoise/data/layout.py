"""Boxes with classes: read from COCO's json, moved as their picture is cut and mirrored, as tokens."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.data.crop import Window, resized_sides

_BYTES = 2**30
_SIDE = 2**31
_SLACK = 1.0
"""Pixels by which a box may stick out of its picture, for annotations that were rounded; it is cut."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The boxes of pictures, in their order.

    boxes: a picture each, (K, 4) float64 left, top, right, bottom in [0, 1] of its sides; kinds: (K,) int64
    indices into `classes`; sides: (N, 2) width and height as the file says, pixels.
    """

    classes: tuple[str, ...]
    boxes: list[np.ndarray]
    kinds: list[np.ndarray]
    sides: np.ndarray


def read_layout(path: Path, names: Sequence[str]) -> Layout:
    """The boxes that a json in COCO's form gives to the pictures of these names. (N names)

    ValueError, naming the file and the box, for a box outside its picture or of no class, and for a picture
    that the file does not know.
    """
    table = _object(path)
    kinds = _by_id(table, "categories", path)
    pictures = _by_id(table, "images", path)
    order = sorted(kinds)
    place = {key: k for k, key in enumerate(order)}
    found: dict[Any, list[tuple[int, list[float]]]] = {}
    for number, box in enumerate(_rows(table, "annotations", path)):
        at = f"{path}: box {box.get('id', number)}"
        if not _among(place, box.get("category_id")):
            raise ValueError(
                f"{at} has the class {box.get('category_id')!r}, which is none of its categories"
            )
        if not _among(pictures, box.get("image_id")):
            raise ValueError(f"{at} is in picture {box.get('image_id')!r}, which the file does not list")
        corners = _corners(box.get("bbox"), pictures[box["image_id"]], at)
        found.setdefault(box["image_id"], []).append((place[box["category_id"]], corners))
    ids: dict[str, int] = {}
    for key, picture in pictures.items():
        name = str(picture.get("file_name"))
        if name in ids:
            raise ValueError(
                f"{path}: picture {name} is listed twice, as {ids[name]} and {key}; list it once"
            )
        ids[name] = key
    missing = [name for name in names if name not in ids]
    if missing:
        raise ValueError(
            f"{len(missing):,} of {len(names):,} pictures are not in {path} (first: {missing[0]}); list them "
            "under images, with boxes or none"
        )
    rows = [found.get(ids[name], []) for name in names]
    return Layout(
        tuple(str(kinds[key].get("name", key)) for key in order),
        [np.array([corners for _, corners in row], np.float64).reshape(-1, 4) for row in rows],
        [np.array([kind for kind, _ in row], np.int64) for row in rows],
        np.array([[pictures[ids[name]][side] for side in ("width", "height")] for name in names], np.int64),
    )


def through(
    boxes: np.ndarray, sides: tuple[int, int], window: Window, size: int, *, least: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as they are in a square that was cut from a picture (data/crop.py), and which of them are left.

    boxes: (K, 4) in [0, 1] of the picture; returns (L, 4) in [0, 1] of the square, cut at its edges, and
    their indices (L,). A box of which less than `least` of its area is in the square is gone.
    """
    across, down = resized_sides(*sides, window.shorter)
    corner = np.array([window.left, window.top] * 2)
    moved = (boxes * np.array([across, down] * 2) - corner) / size
    inside = moved.clip(0, 1)
    area, seen = _area(moved), _area(inside)
    kept = np.flatnonzero((seen > 0) & (seen >= least * area))
    return inside[kept], kept


def mirrored(boxes: np.ndarray) -> np.ndarray:
    """Boxes of a picture that is mirrored from left to right."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


@dataclass(frozen=True)
class LayoutTokens:
    """Boxes as tokens for a transformer: class, then the places of two corners on a grid, three a box.

    Token 0 fills; then the classes; then the grid x grid places, row by row. Boxes are in order of area, the
    largest first, so that one that does not fit is a small one.
    """

    classes: int
    grid: int = 32
    most: int = 30
    """Boxes at most."""

    def __len__(self) -> int:
        return 1 + self.classes + self.grid**2

    @property
    def length(self) -> int:
        """Tokens of a picture."""
        return 3 * self.most

    def encode(self, boxes: Sequence[np.ndarray], kinds: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """(B, length) int64 and the mask (B, length) bool, True where a token counts."""
        tokens = torch.zeros(len(boxes), self.length, dtype=torch.int64)
        for row, corners, kind in zip(tokens, boxes, kinds, strict=True):
            chosen = np.argsort(-_area(corners), kind="stable")[: self.most]
            cells = (corners[chosen] * self.grid).astype(np.int64).clip(0, self.grid - 1)
            places = 1 + self.classes + cells[:, 1::2] * self.grid + cells[:, 0::2]
            three = np.concatenate([1 + kind[chosen][:, None], places], axis=1)
            row[: three.size] = torch.from_numpy(three.reshape(-1))
        return tokens, tokens != 0


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _corners(box: Any, picture: dict[str, Any], at: str) -> list[float]:
    """[left, top, width, height] in pixels -> corners in [0, 1]."""
    numbers = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and -math.inf < v < math.inf for v in box)
    )
    if not numbers or box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"{at} is {box!r}; write [left, top, width, height] with sides above 0")
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    width, height = picture["width"], picture["height"]
    if min(left, top) < -_SLACK or right > width + _SLACK or bottom > height + _SLACK:
        raise ValueError(
            f"{at} is {box}, outside its picture {picture.get('file_name')} of {width}x{height}; mend it or "
            "remove it"
        )
    return [max(left, 0) / width, max(top, 0) / height, min(right / width, 1), min(bottom / height, 1)]


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _BYTES:
            raise ValueError(f"{path} has over {_BYTES:,} bytes; split it")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); name another file") from error
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as COCO's json ({error}); name another file") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not an object with images, categories and annotations")
    return value


def _rows(table: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    rows = table.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} has no list of {name}; it is not in COCO's form")
    return rows


def _by_id(table: dict[str, Any], name: str, path: Path) -> dict[Any, dict[str, Any]]:
    rows: dict[Any, dict[str, Any]] = {}
    for row in _rows(table, name, path):
        if not isinstance(row.get("id"), int):
            raise ValueError(f"{path}: one of its {name} has the id {row.get('id')!r}; use whole numbers")
        if name == "images" and not all(
            isinstance(row.get(s), int) and 0 < row[s] < _SIDE for s in ("width", "height")
        ):
            raise ValueError(f"{path}: picture {row.get('file_name')} has no width and height")
        if row["id"] in rows:
            raise ValueError(f"{path}: two of its {name} have the id {row['id']}; use each once")
        rows[row["id"]] = row
    return rows


def _among(rows: Mapping[int, Any], key: Any) -> bool:
    """Whether a key, of whatever type, is one of these rows."""
    return isinstance(key, (int, float)) and key in rows

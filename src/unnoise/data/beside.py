"""What lies beside the pictures of a data set and is cut and mirrored with them: boxes, semantic maps."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.config.schema import DataConfig
from unnoise.data.crop import Window, center_window
from unnoise.data.dataset import Dataset
from unnoise.data.decode import opened
from unnoise.data.finding import folder_of
from unnoise.data.layout import Layout, mirrored, read_layout, through
from unnoise.data.maps import cut_map, find_maps, read_map


@dataclass(frozen=True, eq=False)
class Aside:
    """Of the pictures of a batch."""

    boxes: list[np.ndarray] = field(default_factory=list)
    """A picture each, (K, 4) left, top, right, bottom in [0, 1] of its square; none without a layout."""
    kinds: list[np.ndarray] = field(default_factory=list)
    """Their classes, (K,) int64."""
    levels: Tensor | None = None
    """(B, size, size) uint8, the class of every pixel; None without maps."""


@dataclass(frozen=True, eq=False)
class Beside:
    """Boxes and maps of a data set's pictures."""

    dataset: Dataset
    config: DataConfig
    layout: Layout | None
    maps: list[Path]
    sides: np.ndarray
    """(N, 2) width and height of the pictures as they are in their files."""

    @property
    def box_classes(self) -> tuple[str, ...]:
        """Names of the classes of boxes."""
        return () if self.layout is None else tuple(self.layout.classes)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the boxes and maps."""
        digest = hashlib.sha256(
            Path(self.config.boxes).expanduser().read_bytes() if self.config.boxes else b""
        )
        for path in self.maps:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def at(self, places: np.ndarray) -> Aside:
        """As `Dataset.batch` cuts and mirrors at these places of the sequence."""
        how = self.dataset.follow(places, self.sides)
        return self._cut(how.chosen, how.windows, how.flipped)

    def of(self, chosen: np.ndarray) -> Aside:
        """As `Dataset.take` cuts the pictures of these indices."""
        windows = [center_window(int(w), int(h), self.dataset.size) for w, h in self.sides[chosen]]
        return self._cut(chosen, windows, np.zeros(len(chosen), bool))

    def _cut(self, chosen: np.ndarray, windows: Sequence[Window], flipped: np.ndarray) -> Aside:
        boxes, kinds, levels = [], [], []
        for k, window, flip in zip(chosen.tolist(), windows, flipped.tolist(), strict=True):
            wide, high = (int(side) for side in self.sides[k])
            if self.layout is not None:
                corners, left = through(self.layout.boxes[k], (wide, high), window, self.dataset.size)
                boxes.append(mirrored(corners) if flip else corners)
                kinds.append(self.layout.kinds[k][left])
            if self.maps:
                classes, most = self.config.map_classes, self.config.max_pixels
                assert classes is not None, "open_beside has seen to it"
                cut = cut_map(
                    read_map(self.maps[k], (wide, high), classes=classes, max_pixels=most),
                    window, self.dataset.size,
                )  # fmt: skip
                levels.append(cut[:, ::-1].copy() if flip else cut)
        return Aside(boxes, kinds, torch.from_numpy(np.stack(levels)) if levels else None)


def open_beside(dataset: Dataset, config: DataConfig) -> Beside | None:
    """The boxes and maps that the settings name; None for none. ValueError for those that do not fit."""
    if not config.boxes and not config.maps:
        return None
    names = [dataset.name_of(k) for k in range(len(dataset))]
    layout = read_layout(Path(config.boxes).expanduser(), names) if config.boxes else None
    maps: list[Path] = []
    if config.maps:
        if not config.map_classes:
            raise ValueError("data.maps is set; say how many classes they have with data.map_classes")
        maps = find_maps(Path(config.maps).expanduser(), names)
    return Beside(dataset, config, layout, maps, _sides(dataset, config, layout, names))


def _sides(dataset: Dataset, config: DataConfig, layout: Layout | None, names: Sequence[str]) -> np.ndarray:
    if layout is not None and not config.maps:
        return np.asarray(layout.sides)
    folder = folder_of(config.source)
    if folder is None:
        raise ValueError(f"data.maps needs a folder of pictures, and {config.source} is none; unpack it")
    sides = []
    for name in names:
        with opened(folder / name, config.max_pixels) as image:
            sides.append(image.size)
    return np.array(sides, np.int64)

"""Edits of files into a folder: results with their requests inside, a sheet of before and after.

A folder holds results of one request on one model, so that the same command continues there. What is there of
a picture counts as long as the picture is the same, which its results say.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from unnoise.config.load import to_dict
from unnoise.edit.pictures import Picture, read_picture
from unnoise.edit.plan import Edit
from unnoise.edit.telling import Told
from unnoise.generate import Progress
from unnoise.images import Pixels, grid, is_whole_png, save_png
from unnoise.store import SHAPES_NOTHING, claim, refuse_among

SHEET = "sheet.png"
ROWS, COLUMNS = 8, 8
"""Pictures on the sheet, and results of each, at most."""
_SOURCE = "source-sha256"


Read = TypeVar("Read")


class Source(Protocol):
    """What a result is made of."""

    @property
    def name(self) -> str:
        """What its results are called."""
        ...

    @property
    def digest(self) -> str:
        """Hash of all that is seen of it."""
        ...


def _ignore(_: Any) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where an edit's results go, and who is told what."""

    out: Path
    edit: Edit
    weights: str
    """SHA-256 of the model file."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Texts for every PNG."""
    on_begin: Callable[[int], None] = _ignore
    """Told how many results there may be."""
    on_step: Callable[[Progress], None] = _ignore
    on_result: Callable[[int], None] = _ignore
    """Told how many results were written."""
    on_broken: Callable[[str], None] = _ignore
    """Told of a picture that cannot be used, and why."""

    def claim(self, paths: Sequence[Path], planned: Iterable[Path], **extra: Any) -> None:
        """Make the folder this request's. ValueError when it is another's, among the pictures of `paths`, or
        holds `planned` files that are not from here or among what is read.
        """
        refuse_among(self.out, paths)
        request = self.edit.request
        aside = request.mask, request.strokes, request.palette, request.generate.given_boxes
        planned = self._apart(
            [*paths, *(Path(each) for each in aside if each)], itertools.chain((self.out / SHEET,), planned)
        )
        identity = self.request() | {"model_sha256": self.weights, **extra}
        for name in SHAPES_NOTHING:
            identity["generate"].pop(name, None)
        claim(self.out, identity | self.edit.files, planned)

    def _apart(self, read: Sequence[Path], planned: Iterable[Path]) -> Iterable[Path]:
        """All that is planned. ValueError for what is read too, even where it is from here."""
        out = self.out.resolve()
        places = {path.parent.resolve() / path.name for path in read} | {path.resolve() for path in read}
        inside = {place for place in places if place.is_relative_to(out)}
        if not inside:
            return planned
        planned = list(planned)
        for path in planned:
            if out / path.relative_to(self.out) in inside:
                raise ValueError(f"{path} is both read and written; choose another folder for the results")
        return planned

    def request(self) -> dict[str, Any]:
        """The request that makes all results, as plain data."""
        values = to_dict(self.edit.request)
        values["generate"]["precision"] = self.edit.ready.precision
        for name in ("batch_size", "device"):
            del values["generate"][name]
        return values

    def request_of(self, index: int, told: Told) -> dict[str, Any]:
        """The request that makes result `index` of a picture of which this is told, and no other."""
        values, name = self.request(), self.edit.name(told.label)
        prompts = [told.words] if self.edit.request.generate.prompts else []
        values["generate"] |= {"n": 1, "first": index, "labels": [name] if name else [], "prompts": prompts}
        return values

    def write(
        self,
        path: Path,
        pixels: Pixels,
        request: Mapping[str, Any],
        sources: Sequence[Source] = (),
        **about: str,
    ) -> None:
        """Write a result with the request that makes it and what it was made of, and texts besides."""
        path.parent.mkdir(parents=True, exist_ok=True)
        of = {"source": ", ".join(p.name for p in sources), _SOURCE: _digest(sources)} if sources else {}
        save_png(path, pixels, request, about={**self.about, **of, **about})

    def has(self, path: Path, sources: Sequence[Source]) -> bool:
        """Whether a result is there, whole, and made of these pictures."""
        if not (path.exists() and is_whole_png(path)):
            return False
        with Image.open(path, formats=["PNG"]) as file:
            return bool(getattr(file, "text", {}).get(_SOURCE) == _digest(sources))

    def usable(
        self, named: Mapping[str, Path], told: Sequence[Told], read: Callable[[Path, str], Read]
    ) -> Iterator[tuple[Read, Told]]:
        """The pictures that can be used, with what is told of them, read as they are asked for but for the
        first.

        ValueError when there is none.
        """
        problems: list[str] = []

        def each() -> Iterator[tuple[Read, Told]]:
            for (name, path), its in zip(named.items(), told, strict=True):
                try:
                    picture = read(path, name)
                except ValueError as error:
                    problems.append(str(error))
                    if len(named) > 1:
                        self.on_broken(str(error))
                    continue
                yield picture, its

        rest = each()
        first = next(rest, None)
        if first is None and problems:
            raise ValueError(problems[0] if len(named) == 1 else f"none of {len(named)} pictures can be used")
        return itertools.chain([] if first is None else [first], rest)

    def pictures(self, named: Mapping[str, Path], told: Sequence[Told]) -> Iterator[tuple[Picture, Told]]:
        """As `usable`, of pictures made the model's size."""
        edit = self.edit
        return self.usable(
            named, told, lambda path, name: read_picture(path, edit.picture, edit.request, name)
        )

    def save_sheet(self, rows: Sequence[Sequence[Pixels]], heads: Sequence[str]) -> None:
        """Write the sheet: a row a picture, with a head above each column."""
        if not rows:
            return
        cells = _same_size([np.asarray(cell) for row in rows for cell in row])
        labels = list(heads) * len(rows)
        sheet = grid(cells, len(heads), labels)
        self.write(self.out / SHEET, sheet, self.request())


def _same_size(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (h, w, C) in the middle of white ones of the size of the largest."""
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    sheet = np.full((len(cells), height, width, cells[0].shape[2]), 255, np.uint8)
    for place, cell in zip(sheet, cells, strict=True):
        top, left = (height - cell.shape[0]) // 2, (width - cell.shape[1]) // 2
        place[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def _digest(sources: Sequence[Source]) -> str:
    return " ".join(picture.digest for picture in sources)


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """A result that was written, uint8 (H, W, channels)."""
    with Image.open(path) as file:
        pixels = np.asarray(file)
    if pixels.ndim == 3:
        return pixels
    return np.stack(np.split(pixels, channels, axis=1), -1)  # two channels are written side by side

"""The edits that `unnoise edit` offers, from files to a folder of results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from unnoise.edit.canvas import Canvas
from unnoise.edit.folder import COLUMNS, ROWS, Folder, read_pixels
from unnoise.edit.holes import find_holes
from unnoise.edit.interpolate import between, check_ends
from unnoise.edit.invert import (
    Code,
    Inversion,
    RoundTrip,
    check_code,
    drawn,
    inversions,
    load_code,
    save_code,
)
from unnoise.edit.pictures import Picture, find_pictures, read_picture
from unnoise.edit.plan import Edit
from unnoise.edit.redraw import Job, read_canvas, redrawn
from unnoise.edit.telling import Told
from unnoise.edit.upscale import consistency
from unnoise.edit.ways import WAYS
from unnoise.images import Pixels, grid, save_animation, to_pixels

STRIP, ANIMATION = "strip.png", "animation.gif"
CODE = ".safetensors"


def redraw_files(folder: Folder, paths: Sequence[Path]) -> dict[str, float]:
    """NAME-000.png and so on for every picture; those that are there stay.

    Returns the consistency of enlarged pictures, in dB, by the names of the results; nothing for other kinds.
    """
    edit, named = folder.edit, find_pictures(paths)
    way, ids = WAYS[edit.request.kind], edit.ready.ids
    find_hole = find_holes(edit.request)
    usable = folder.usable(
        named, edit.told(list(named)), lambda path, name: read_canvas(edit, way, path, find_hole, name)
    )
    folder.claim(paths, (_result(folder, name, k) for name in named for k in ids))
    folder.on_begin(len(named) * edit.request.generate.n)
    seen: list[Canvas] = []
    kept: dict[str, float] = {}

    def missing(canvas: Canvas) -> Iterator[int]:
        for k in ids:
            if folder.has(_result(folder, canvas.name, k), [canvas]):
                _note(kept, canvas, k, _read(folder, _result(folder, canvas.name, k)))
            else:
                yield k

    def jobs() -> Iterator[Job]:
        for canvas, told in usable:
            if len(seen) < ROWS:
                seen.append(canvas)
            yield Job(canvas, told, missing(canvas))

    for result in redrawn(edit, way, jobs(), folder.on_step):
        path = _result(folder, result.canvas.name, result.index)
        request = folder.request_of(result.index, result.told)
        decibels = _note(kept, result.canvas, result.index, result.pixels)
        about = {} if decibels is None else {"consistency": f"{decibels:.2f} dB"}
        folder.write(path, result.pixels, request, [result.canvas], **about)
        folder.on_result(1)
    _save_results(folder, seen, ids[:COLUMNS])
    return kept


def _note(kept: dict[str, float], canvas: Canvas, index: int, pixels: Pixels) -> float | None:
    """The consistency of an enlarged picture, noted by its name; None for another."""
    if canvas.small is None:
        return None
    decibels = consistency(small=canvas.before, large=torch.as_tensor(pixels))
    kept[f"{canvas.name}-{index:03d}"] = decibels
    return decibels


def _save_results(folder: Folder, seen: Sequence[Canvas], shown: Sequence[int]) -> None:
    """The sheet: a picture, its hole where there is one, and its first results."""
    with_holes = any(canvas.hole is not None for canvas in seen)
    rows: list[list[Pixels]] = []
    for canvas in seen:
        results: list[Pixels] = [_read(folder, _result(folder, canvas.name, k)) for k in shown]
        hole = [canvas.seen if canvas.seen_hole is None else canvas.seen_hole] if with_holes else []
        rows.append([canvas.seen, *hole, *results])
    folder.save_sheet(rows, ["before", *(["hole"] if with_holes else []), *map(str, shown)])


def _result(folder: Folder, name: str, k: int) -> Path:
    return folder.out / f"{name}-{k:03d}.png"


def _read(folder: Folder, path: Path) -> np.ndarray:
    return read_pixels(path, folder.edit.picture[0])


def invert_files(folder: Folder, paths: Sequence[Path]) -> dict[str, RoundTrip]:
    """NAME.safetensors with the noise of every picture and NAME-back.png drawn from it; what is there stays.

    Files of noise among the paths are drawn, to NAME-drawn.png. Returns the pictures' round trips.
    """
    edit, named = folder.edit, find_pictures(paths)
    edit.refuse_noise("from there no picture comes back")
    told = dict(zip(named, edit.told(list(named)), strict=True))
    pictures = {name: path for name, path in named.items() if path.suffix != CODE}
    codes = _load_codes(folder, {name: path for name, path in named.items() if path.suffix == CODE})
    usable = folder.pictures(pictures, [told[name] for name in pictures])
    outputs = [file(folder, name) for name in pictures for file in (_back, _code)]
    outputs += [_drawn(folder, name) for name in codes]
    folder.claim(paths, outputs)
    folder.on_begin(len(named))
    trips: dict[str, RoundTrip] = {}
    rows: dict[str, list[Pixels]] = {}
    shown = list(pictures)[:ROWS]

    def note(done: Inversion) -> None:
        name = done.picture.name
        trips[name] = done.trip
        if name in shown:
            rows[name] = [done.picture.pixels, _seen(folder.edit, done.code), done.back]

    def missing() -> Iterator[tuple[Picture, Told]]:
        for picture, its in usable:
            path = _back(folder, picture.name)
            if folder.has(path, [picture]) and _code(folder, picture.name).exists():
                code = load_code(_code(folder, picture.name))
                note(Inversion(picture, code, torch.from_numpy(_read(folder, path).copy())))
            else:
                yield picture, its

    for result in inversions(edit, missing(), folder.on_step):
        name = result.picture.name
        save_code(_code(folder, name), result.code, dict(folder.about))
        folder.write(_back(folder, name), result.back, folder.request_of(0, told[name]), [result.picture])
        note(result)
        folder.on_result(1)
    _draw_codes(folder, codes, told)
    in_order = [name for name in pictures if name in trips]
    folder.save_sheet([rows[name] for name in in_order if name in rows], ["before", "noise", "back"])
    return {name: trips[name] for name in in_order}


def _load_codes(folder: Folder, files: Mapping[str, Path]) -> dict[str, Code]:
    """The files of noise that can be used. ValueError when there are some and none can."""
    codes: dict[str, Code] = {}
    for name, path in files.items():
        try:
            code = load_code(path)
            check_code(folder.edit, code)
        except ValueError as error:
            if len(files) == 1:
                raise
            folder.on_broken(str(error))
        else:
            codes[name] = code
    if files and not codes:
        raise ValueError(f"none of {len(files)} noise files can be used")
    return codes


def _draw_codes(folder: Folder, codes: Mapping[str, Code], told: Mapping[str, Told]) -> None:
    rows = [(code, told[name]) for name, code in codes.items()]
    results = (pixels for batch in drawn(folder.edit, rows, folder.on_step) for pixels in batch.pixels)
    for name, pixels in zip(codes, results, strict=True):
        folder.write(_drawn(folder, name), pixels, folder.request_of(0, told[name]), noise=codes[name].digest)
        folder.on_result(1)


def _back(folder: Folder, name: str) -> Path:
    return folder.out / f"{name}-back.png"


def _drawn(folder: Folder, name: str) -> Path:
    return folder.out / f"{name}-drawn.png"


def _code(folder: Folder, name: str) -> Path:
    return folder.out / f"{name}{CODE}"


def _seen(edit: Edit, code: Code) -> np.ndarray:
    """Noise as a picture, three standard deviations from black to white; of latents as many
    channels as can be shown.
    """
    channels, _, wide = edit.picture
    visible = code.x_T[: channels if len(code.x_T) >= channels else 1]
    shown = to_pixels(visible[None] / 3)[0]
    factor = wide // shown.shape[1]
    return shown.expand(-1, -1, channels).repeat_interleave(factor, 0).repeat_interleave(factor, 1).numpy()


def interpolate_files(folder: Folder, paths: Sequence[Path], *, animation: bool = False) -> int:
    """strip.png, 000.png and so on, and animation.gif if wanted; returns the number of pictures.

    Every end is needed: ValueError for one that cannot be used.
    """
    edit, named = folder.edit, find_pictures(paths)
    ends = [
        load_code(path) if path.suffix == CODE else read_picture(path, edit.picture, edit.request, name)
        for name, path in named.items()
    ]
    check_ends(edit, ends)
    pictures = [end for end in ends if isinstance(end, Picture)]
    frames = edit.request.frames
    ways = len(ends) + len(edit.request.seeds) - 1
    count = ways * (frames - 1) + 1
    files = [folder.out / f"{k:03d}.png" for k in range(count)]
    extra = [folder.out / name for name in (STRIP, ANIMATION)]
    folder.claim(paths, [*files, *extra], ends=[end.digest for end in ends])
    folder.on_begin(count)
    batch = between(edit, ends, folder.on_step)
    for k, (path, pixels) in enumerate(zip(files, batch.pixels, strict=True)):
        label = {"label": batch.names[k]} if batch.names else {}
        folder.write(path, pixels, folder.request(), pictures, frame=str(k), **label)
    folder.on_result(count)
    cells = [batch.pixels[way * (frames - 1) + k] for way in range(ways) for k in range(frames)]
    folder.write(folder.out / STRIP, grid(torch.stack(cells), frames), folder.request(), pictures)
    if pictures:
        _save_ends(folder, ends, batch.pixels[:: frames - 1])
    if animation:
        save_animation(folder.out / ANIMATION, [grid(pixels[None]) for pixels in batch.pixels])
    return count


def _save_ends(folder: Folder, ends: Sequence[Picture | Code], drawn: torch.Tensor) -> None:
    """The sheet: every picture that was an end, beside what was drawn there."""
    both = [(end.pixels, drawn[k]) for k, end in enumerate(ends) if isinstance(end, Picture)]
    folder.save_sheet(both[:ROWS], ["before", "drawn"])

"""From a DataConfig to a Dataset: find the source, decide size and channels, decode once, report what was found."""

import difflib
import hashlib
import json
import os
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from unnoise.config.schema import DataConfig
from unnoise.data import cache, idx
from unnoise.data.build import LONG, Progress, Shape, Tally, decoded, readable, survey
from unnoise.data.builtin import BUILTINS
from unnoise.data.dataset import Dataset, Squares, Whole
from unnoise.data.decode import PILLOW_LIMIT, Decoding
from unnoise.data.folder import open_folder
from unnoise.data.report import DataReport, named
from unnoise.data.source import Source


def open_data(config: DataConfig, *, seed: int = 0, on_progress: Progress | None = None) -> Dataset:
    """Opens a data set: decoded on the first call, from the cache after that.

    seed: of the order, the crops and the flips. ValueError, in one line with the way out, for data that cannot be
    used; OSError when the cache cannot be written.
    """
    background = _check(config)
    source = find_source(config)
    pixels = _in_memory(source, config)
    if pixels is not None:
        return _dataset_of(pixels, source, config, seed)
    stored = _cached(source, config, background, on_progress)
    return _dataset(stored, source, config, seed)


def find_source(config: DataConfig) -> Source:
    """The source that `config.source` names, nothing decoded. ValueError when there is no such thing."""
    if not config.source:
        raise ValueError(
            f"no data named; name a folder, .zip, .npz, idx file, hf:NAME, or one of {_builtins()}"
        )
    name, _, split = config.source.partition(":")
    if name in BUILTINS and not os.path.exists(config.source):
        source = BUILTINS[name](split or "train")
        return _unlabelled(source) if config.labels == "none" else _only_own(source, config)
    path = Path(config.source).expanduser()
    split = "train"
    if not path.exists() and path.name.endswith((":train", ":test")):
        stem, _, split = str(path).rpartition(":")
        path = Path(stem)
    try:
        found = path.exists()
    except OSError as error:
        raise ValueError(f"{path} cannot be reached ({error.strerror})") from error
    if not found:
        raise ValueError(_unknown(config.source))
    if path.is_dir():
        images = idx.find(path, split)
        if images is None:
            return open_folder(path, config.labels)
        path = images
    if not path.is_file():
        raise ValueError(f"{path} is not a file or folder; name a folder, .zip, .npz or idx file")
    if idx.is_idx(path):
        source = idx.open_idx(path)
        return _unlabelled(source) if config.labels == "none" else _only_own(source, config)
    raise ValueError(
        f"{path} is not a zip, npz or idx file; name the folder of the pictures, or one of {_builtins()}"
    )


def _check(config: DataConfig) -> tuple[int, int, int]:
    """Refuses settings that no data could satisfy; returns the background as (R, G, B)."""
    if not 0 < config.max_pixels <= PILLOW_LIMIT:
        raise ValueError(
            f"data.max_pixels={config.max_pixels} is outside 1..{PILLOW_LIMIT} (Pillow's own limit)"
        )
    if config.size is not None and not 0 < config.size**2 <= config.max_pixels:
        most = int(config.max_pixels**0.5)
        raise ValueError(
            f"data.size={config.size} is outside 1..{most} (data.max_pixels={config.max_pixels})"
        )
    if config.channels is not None and config.channels < 1:
        raise ValueError(f"data.channels={config.channels} is less than 1; use 1 for grey, 3 for RGB")
    try:
        red, green, blue = ImageColor.getrgb(config.background)[:3]
    except ValueError as error:
        text = f"data.background={config.background!r} is not a colour; write #rrggbb or a name such as white"
        raise ValueError(text) from error
    return red, green, blue


def _builtins() -> str:
    return ", ".join(sorted(BUILTINS))


def _unknown(source: str) -> str:
    near = difflib.get_close_matches(source.partition(":")[0], list(BUILTINS), n=1, cutoff=0.5)
    if "/" in source or os.sep in source or not near:
        return (
            f"{source} does not exist; name a folder, .zip, .npz, idx file, hf:NAME, or one of {_builtins()}"
        )
    return (
        f"{source} is neither a file nor a built-in; did you mean {near[0]}? The built-ins are {_builtins()}"
    )


def _unlabelled(source: Source) -> Source:
    return replace(source, labels=None, classes=())


def _only_own(source: Source, config: DataConfig) -> Source:
    """Refuses `labels` settings that only a folder can meet."""
    if config.labels in ("folder", "metadata"):
        text = (
            f"data.labels={config.labels} needs a folder or zip of pictures; {source.name} has its own labels"
        )
        raise ValueError(f"{text}, so use auto or none")
    return source


def _in_memory(source: Source, config: DataConfig) -> np.ndarray | None:
    """The pixels when they are in memory already and need nothing done to them."""
    if source.pixels is None or source.shape is None or config.crop != "center":
        return None
    height, width, channels = source.shape
    if height != width or config.size not in (None, height) or config.channels not in (None, channels):
        return None
    colour = channels != 3 or config.channels == 3 or _coloured(source.pixels)
    return source.pixels if colour else source.pixels[..., :1]


def _coloured(pixels: np.ndarray) -> bool:
    return any((part != part[..., :1]).any() for part in np.array_split(pixels, max(1, len(pixels) // 4096)))


def _dataset_of(pixels: np.ndarray, source: Source, config: DataConfig, seed: int) -> Dataset:
    count, size, _, channels = pixels.shape
    facts = {
        "size": size,
        "pictures": count,
        "broken": [],
        "sizes": [[size, size, count]],
        "different_sizes": 1,
        "upscaled": 0,
        "odd": [],
        "odd_count": 0,
        "digest": hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest(),
    }
    return _assemble(Squares(pixels), channels, facts, source, config, seed, ())


def _cached(
    source: Source, config: DataConfig, background: tuple[int, int, int], on_progress: Progress | None
) -> cache.Stored:
    """The decoded pictures from the cache, made now if need be."""
    settings = [cache.VERSION, config.size, config.channels, config.crop, background, config.max_pixels]
    key = hashlib.sha256(json.dumps([settings, source.identity]).encode()).hexdigest()[:32]
    path = cache.home(config.cache) / f"{key}.pixels"
    stored = _usable(path, source)
    if stored is not None:
        return stored
    with cache.building(path):
        stored = _usable(path, source)  # another process may have made it meanwhile
        if stored is not None:
            return stored
        shape = _decide(source, config, background)
        tally = Tally()

        def finish() -> tuple[np.ndarray, dict[str, Any]]:
            if not tally.sizes:
                raise ValueError(_all_broken(source, tally))
            table = np.array(tally.rows, np.int64).reshape(-1, 3)
            return table, tally.facts(shape)

        cache.write(path, decoded(source, shape, tally, on_progress), finish)
    stored = cache.read(path)
    if stored is None:
        raise OSError(
            f"{path} was written but cannot be read back; check the disk, or --set data.cache=FOLDER"
        )
    return stored


def _usable(path: Path, source: Source) -> cache.Stored | None:
    stored = cache.read(path)
    if stored is not None and readable(source, stored.facts["unreadable"]):
        return None
    return stored


def _decide(source: Source, config: DataConfig, background: tuple[int, int, int]) -> Shape:
    """Size and channels: from the options, else from the pictures' headers."""
    size, channels = config.size, config.channels
    decoding = Decoding(channels or 3, background, config.max_pixels)
    if size is None or channels is None:
        sizes, grey = survey(source, decoding, sides=size is None)
        if size is None:
            size = _own_size(source, sizes)
        if channels is None:
            own = source.shape[2] if source.shape is not None else 3
            channels = 1 if grey and sizes else own
    if source.shape is not None:
        own = source.shape[2]
        if channels != own and (channels > 4 or own > 4):
            raise ValueError(
                f"data.channels={channels}, but {source.name} has {own} channels; leave the option out"
            )
    elif channels > 4:
        raise ValueError(
            f"data.channels={channels}, but pictures have 1 (grey), 3 (RGB), or 2 or 4 with transparency"
        )
    return Shape(size, config.crop == "random", replace(decoding, channels=channels))


def _own_size(source: Source, sizes: Counter[tuple[int, int]]) -> int:
    """The side that all pictures share. ValueError naming the sizes when they share none."""
    if not sizes:
        return 1  # nothing readable: the build will name every picture and refuse
    if len(sizes) == 1:
        ((width, height),) = sizes
        if width == height:
            return width
    sides = sorted(min(s) for s in sizes.elements())
    advice = 2 ** max(0, min(8, sides[len(sides) // 2].bit_length() - 1))
    listed = ", ".join(f"{w}x{h} ({k:,})" for (w, h), k in sizes.most_common(5))
    more = f" and {len(sizes) - 5:,} more sizes" if len(sizes) > 5 else ""
    problem = "differ in size" if len(sizes) > 1 else "are not square"
    raise ValueError(
        f"the pictures of {source.name} {problem}: {listed}{more}; choose a side, for example --set data.size={advice}"
    )


def _all_broken(source: Source, tally: Tally) -> str:
    broken = tuple((source.name_of(k), reason) for k, reason in tally.broken)
    return f"every picture of {source.name} is broken, {named(broken)}; name another source"


def _dataset(stored: cache.Stored, source: Source, config: DataConfig, seed: int) -> Dataset:
    facts = stored.facts
    held, size = facts["channels"], facts["size"]
    grey = held == 3 and config.channels is None and not facts["colour"]
    channels = 1 if grey else held
    if config.crop == "random":
        return _assemble(
            Whole(stored.pixels, stored.table, size, held, channels), channels, facts, source, config, seed
        )
    pixels = stored.pixels.reshape(-1, size, size, held)[..., :channels]
    return _assemble(Squares(pixels), channels, facts, source, config, seed)


def _assemble(
    store: Squares | Whole,
    channels: int,
    facts: dict[str, Any],
    source: Source,
    config: DataConfig,
    seed: int,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set with labels and captions of the pictures that could be read, and the report of all of it."""
    broken = tuple((source.name_of(k), reason) for k, reason in facts["broken"])
    if broken and config.strict:
        raise ValueError(
            f"broken pictures in {source.name}, {named(broken)}; repair them or leave out --strict"
        )
    kept = np.ones(source.count, bool)
    kept[[k for k, _ in facts["broken"]]] = False
    index = np.flatnonzero(kept)
    assert len(index) == facts["pictures"] == len(store)
    labels, classes, lost = _relabelled(source, index)
    notes = (*source.notes, *notes)
    if lost:
        notes += (f"classes left out because all their pictures are broken: {', '.join(lost)}",)
    if facts["odd_count"]:
        seen = "; ".join(facts["odd"])
        more = f"; and {facts['odd_count'] - len(facts['odd']):,} more" * (
            facts["odd_count"] > len(facts["odd"])
        )
        notes += (f"warning: sides over {LONG}:1, or enlarged over 8 times: {seen}{more}",)
    captions = None if source.captions is None else [source.captions[k] for k in index]
    counts = np.bincount(labels, minlength=len(classes)) if labels is not None else np.zeros(0, int)
    report = DataReport(
        source=source.name,
        pictures=len(store),
        size=facts["size"],
        channels=channels,
        classes={name: int(k) for name, k in zip(classes, counts, strict=True)},
        captions=sum(bool(text) for text in captions or ()),
        sizes={(w, h): k for w, h, k in facts["sizes"]},
        different_sizes=facts["different_sizes"],
        upscaled=facts["upscaled"],
        broken=broken,
        ignored=source.ignored,
        notes=notes,
    )
    return Dataset(
        store=store,
        size=facts["size"],
        channels=channels,
        report=report,
        content=facts["digest"],
        name_of=lambda k: source.name_of(int(index[k])),
        labels=labels,
        classes=classes,
        captions=captions,
        flip=config.flip,
        crop=config.crop,
        seed=seed,
    )


def _relabelled(
    source: Source, index: np.ndarray
) -> tuple[np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """Labels of the pictures in use, the classes that still have one, and those that lost theirs all."""
    if source.labels is None:
        return None, (), ()
    before = np.bincount(source.labels, minlength=len(source.classes))
    labels = source.labels[index]
    counts = np.bincount(labels, minlength=len(source.classes))
    gone = (counts == 0) & (before > 0)
    place = np.cumsum(~gone) - 1
    classes = tuple(name for name, out in zip(source.classes, gone, strict=True) if not out)
    return place[labels], classes, tuple(name for name, out in zip(source.classes, gone, strict=True) if out)


__all__ = ["find_source", "open_data", "zipfile"]

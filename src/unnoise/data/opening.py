"""From a DataConfig to a Dataset: from memory or the cache when the pictures are there, else decoded now."""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import ImageColor

from unnoise.config.schema import DataConfig
from unnoise.data import cache
from unnoise.data.assemble import assemble
from unnoise.data.build import Progress, Tally, decoded, readable
from unnoise.data.dataset import Dataset, Squares, Whole
from unnoise.data.decode import PILLOW_LIMIT
from unnoise.data.facts import Facts
from unnoise.data.finding import find_source
from unnoise.data.report import named
from unnoise.data.shape import Shape, decide
from unnoise.data.source import Source

Colour = tuple[int, int, int]


def open_data(config: DataConfig, *, seed: int = 0, on_progress: Progress | None = None) -> Dataset:
    """Opens a data set: decoded on the first call, from the cache after that.

    seed: of the order, the crops and the flips; on_progress(done, total) while pictures are fetched or
    decoded. ValueError, one line with the way out, for data that cannot be used; OSError when the cache
    cannot be written.
    """
    background = _check(config)
    source = find_source(config, on_progress)
    if source.shape is not None and source.shape[0] * source.shape[1] > config.max_pixels:
        height, width, _ = source.shape
        text = f"the pictures of {source.name} are {width}x{height}, over {config.max_pixels:,} pixels"
        raise ValueError(f"{text}; --set data.max_pixels=N raises it, up to {PILLOW_LIMIT}")
    pixels = _ready(source, config)
    if pixels is not None:
        return assemble(Squares(pixels), _facts_of(pixels), source, config, seed)
    stored, facts = _cached(source, config, background, on_progress)
    grey = facts.channels == 3 and config.channels is None and not facts.colour
    channels = 1 if grey else facts.channels
    if config.crop == "random":
        whole = Whole(stored.pixels, stored.table, facts.size, facts.channels, channels)
        return assemble(whole, facts, source, config, seed)
    squares = stored.pixels.reshape(facts.pictures, facts.size, facts.size, facts.channels)
    return assemble(Squares(squares[..., :channels]), facts, source, config, seed)


def _check(config: DataConfig) -> Colour:
    """Refuses settings that no data could satisfy; returns the background as (R, G, B)."""
    limit = config.max_pixels
    if not 0 < limit <= PILLOW_LIMIT:
        raise ValueError(
            f"data.max_pixels={limit} is outside 1..{PILLOW_LIMIT}, Pillow's own limit; leave it out"
        )
    if config.size is not None and (config.size < 1 or config.size**2 > limit):
        most = int(limit**0.5)
        raise ValueError(f"data.size={config.size} is outside 1..{most} (data.max_pixels={limit})")
    if config.channels is not None and config.channels < 1:
        raise ValueError(f"data.channels={config.channels} is less than 1; use 1 for grey, 3 for RGB")
    try:
        red, green, blue = ImageColor.getrgb(config.background)[:3]
    except ValueError as error:
        text = f"data.background={config.background!r} is not a colour; write #rrggbb or a name such as white"
        raise ValueError(text) from error
    return red, green, blue


def _ready(source: Source, config: DataConfig) -> np.ndarray | None:
    """The pixels, when they are in memory already and need nothing done to them."""
    if source.pixels is None or source.shape is None or config.crop != "center":
        return None
    height, width, channels = source.shape
    if height != width or config.size not in (None, height) or config.channels not in (None, channels):
        return None
    grey = channels == 3 and config.channels is None and not _coloured(source.pixels)
    return source.pixels[..., :1] if grey else source.pixels


def _coloured(pixels: np.ndarray) -> bool:
    parts = np.array_split(pixels, len(pixels) // 4096 + 1)
    return any(bool((part != part[..., :1]).any()) for part in parts)


def _facts_of(pixels: np.ndarray) -> Facts:
    """The facts of squares that are at hand."""
    count, size, _, channels = pixels.shape
    return Facts(
        size=size,
        channels=channels,
        pictures=count,
        digest=cache.digest_of(pixels),
        broken=[],
        unreadable=[],
        sizes=[(size, size, count)],
        different_sizes=1,
        upscaled=0,
        colour=channels == 3,
        odd=[],
        odd_count=0,
        crc=[],
    )


def _cached(
    source: Source, config: DataConfig, background: Colour, on_progress: Progress | None
) -> tuple[cache.Stored, Facts]:
    """The decoded pictures from the cache, made now if need be."""
    settings = [cache.VERSION, config.size, config.channels, config.crop, background, config.max_pixels]
    key = hashlib.sha256(json.dumps([settings, source.identity]).encode()).hexdigest()[:32]
    path = cache.home(config.cache) / f"{key}.pixels"
    found = _usable(path, source)
    if found is not None:
        return found
    with cache.building(path):
        found = _usable(path, source)  # another process may have made it meanwhile
        if found is not None:
            return found
        _build(path, source, decide(source, config, background), on_progress)
    stored = cache.read(path)
    if stored is None:
        raise OSError(
            f"{path} was written but cannot be read back; check the disk, or --set data.cache=FOLDER"
        )
    return stored, Facts(**stored.facts)


def _usable(path: Path, source: Source) -> tuple[cache.Stored, Facts] | None:
    stored = cache.read(path)
    if stored is None:
        return None
    facts = Facts(**stored.facts)
    return None if readable(source, facts.unreadable) else (stored, facts)


def _build(path: Path, source: Source, shape: Shape, on_progress: Progress | None) -> None:
    tally = Tally()

    def finish() -> tuple[np.ndarray, dict[str, object]]:
        if not tally.sizes:
            broken = tuple((source.name_of(k), reason) for k, reason in tally.broken)
            raise ValueError(
                f"every picture of {source.name} is broken, {named(broken)}; name another source"
            )
        return np.array(tally.rows, np.int64).reshape(-1, 3), tally.facts(shape)

    cache.write(path, decoded(source, shape, tally, on_progress), finish)

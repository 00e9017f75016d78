"""What size and how many channels a data set gets: from the options, else from what its pictures agree on."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from unnoise.config.schema import DataConfig
from unnoise.data import decode
from unnoise.data.decode import BrokenPicture, Decoding, Header
from unnoise.data.source import Read, Source
from unnoise.data.workers import in_order, workers

_CHUNK = 64
_ADVISED = 256
"""The largest side that the error about sizes proposes."""


@dataclass(frozen=True)
class Shape:
    """What pictures become: squares of `size`, or for random crops (`whole`) all that those may need."""

    size: int
    whole: bool
    decoding: Decoding


def decide(source: Source, config: DataConfig, background: tuple[int, int, int]) -> Shape:
    """Size and channels of the data set. ValueError when its sizes differ and none was chosen."""
    size, channels = config.size, config.channels
    decoding = Decoding(channels or 3, background, config.max_pixels)
    if size is None or channels is None:
        sizes, grey = survey(source, decoding, sides=size is None)
        if size is None:
            size = common_side(source.name, sizes)
        if channels is None:
            held = source.shape[2] if source.shape is not None else 3
            channels = 1 if grey else held
    own = source.shape[2] if source.shape is not None else None
    if own is None and channels > 4:
        raise ValueError(
            f"data.channels={channels}: pictures have 1 (grey), 3 (RGB), or with transparency 2 or 4"
        )
    if own is not None and channels != own and max(channels, own) > 4:
        raise ValueError(f"data.channels={channels}, but {source.name} has {own}; leave the option out")
    return Shape(size, config.crop == "random", replace(decoding, channels=channels))


def survey(source: Source, decoding: Decoding, *, sides: bool) -> tuple[Counter[tuple[int, int]], bool]:
    """Sizes (width, height) of the pictures, and whether all are certainly grey, from their headers alone.

    Without `sides` it stops at the first picture that may hold colour. Broken pictures are passed over.
    """
    if source.shape is not None:
        height, width, channels = source.shape
        return Counter({(width, height): source.count}), channels == 1

    def look(read: Read) -> Header | None:
        try:
            raw = read()
            assert not isinstance(raw, np.ndarray), "sources of pixels know their shape"
            return decode.header(raw, decoding)
        except BrokenPicture:
            return None

    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    with decode.quiet(), workers() as pool:
        for headers in in_order(pool, look, source.reads(), _CHUNK):
            for header in headers:
                if header is not None:
                    sizes[header.width, header.height] += 1
                    grey = grey and header.grey
            if not sides and not grey:
                break
    return sizes, grey and bool(sizes)


def common_side(name: str, sizes: Counter[tuple[int, int]]) -> int:
    """The side of squares that are all alike. ValueError naming the sizes when they are not."""
    if not sizes:
        return 1  # nothing can be read: decoding will name every picture and refuse
    if len(sizes) == 1:
        ((width, height),) = sizes
        if width == height:
            return width
    sides = sorted(min(each) for each in sizes.elements())
    advice = min(_ADVISED, 2 ** (sides[len(sides) // 2].bit_length() - 1))
    listed = ", ".join(f"{width}x{height} ({count:,})" for (width, height), count in sizes.most_common(5))
    more = f" and {len(sizes) - 5:,} more" if len(sizes) > 5 else ""
    problem = "differ in size" if len(sizes) > 1 else "are not square"
    raise ValueError(
        f"the pictures of {name} {problem}: {listed}{more}; choose a side, such as --set data.size={advice}"
    )

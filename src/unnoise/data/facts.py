"""What decoding a data set found out about it: kept with the pixels in the cache, and told in the report."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Counts and lists over a data set as decoded. All of it is plain JSON."""

    size: int
    channels: int
    """As stored."""
    pictures: int
    """Good ones."""
    digest: str
    """Hash of the pixels."""
    broken: list[tuple[int, str]]
    """(picture, reason) of those left out."""
    unreadable: list[int]
    """The broken ones whose bytes could not be had: they are tried again when the data set is opened next."""
    sizes: list[tuple[int, int, int]]
    """(width, height, pictures), the most frequent first, not all of them."""
    different_sizes: int
    upscaled: int
    colour: bool
    """Whether the channels of some RGB picture differ."""
    odd: list[str]
    """The first pictures that are very long or very small, with their sides."""
    odd_count: int
    crc: list[int]
    """Of each block of the cache file."""

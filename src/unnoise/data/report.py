"""What was found in a data set, for people and for the run's records."""

from collections.abc import Iterator
from dataclasses import dataclass, field

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found: counts are of pictures that can be used, unless said otherwise."""

    source: str
    pictures: int
    size: int
    """Side of the squares, pixels."""
    channels: int
    classes: dict[str, int] = field(default_factory=dict)
    """Pictures of each class; empty when unlabelled."""
    captions: int = 0
    """Pictures with a caption that is not empty."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sides as stored, such as "640x480" (width first) -> pictures; the most frequent first, at most 100."""
    different_sizes: int = 1
    upscaled: int = 0
    """Pictures whose shorter side is less than `size`: enlarged, so blurred."""
    broken: tuple[tuple[str, str], ...] = ()
    """(name, reason) of every picture that could not be read and is left out."""
    ignored: int = 0
    """Files that are not pictures."""
    notes: tuple[str, ...] = ()
    """Warnings, one line each."""

    def lines(self) -> Iterator[str]:
        """The report for people, a line a subject."""
        kind = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels}-channel")
        yield f"{self.pictures:,} pictures, {self.size}x{self.size} {kind}, from {self.source}"
        yield f"classes: {len(self.classes):,}: {_counted(self.classes)}" if self.classes else "classes: none"
        if self.captions:
            without = self.pictures - self.captions
            yield f"captions: {self.captions:,}" + (f"; {without:,} pictures have none" if without else "")
        if list(self.sizes) != [f"{self.size}x{self.size}"]:
            most = ", ".join(f"{sides} ({count:,})" for sides, count in list(self.sizes.items())[:_SHOWN])
            more = f" and {self.different_sizes - _SHOWN:,} more" if self.different_sizes > _SHOWN else ""
            yield f"sizes as stored: {most}{more}"
        if self.upscaled:
            yield f"enlarged: {self.upscaled:,} pictures, smaller than {self.size} pixels and so blurred"
        if self.broken:
            yield f"broken, left out: {named(self.broken)}"
        if self.ignored:
            yield f"ignored: {self.ignored:,} files that are not pictures"
        yield from self.notes


def _counted(classes: dict[str, int]) -> str:
    counts = set(classes.values())
    shown = list(classes.items())[:20]
    more = f", and {len(classes) - 20} more" if len(classes) > 20 else ""
    if len(counts) == 1:
        return ", ".join(name for name, _ in shown) + f"{more} ({counts.pop():,} each)"
    return ", ".join(f"{name} ({k:,})" for name, k in shown) + more


def named(broken: tuple[tuple[str, str], ...]) -> str:
    """The first broken pictures with their reasons, and how many there are."""
    text = "; ".join(f"{name} ({reason})" for name, reason in broken[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN:,} more" if len(broken) > _SHOWN else ""
    return f"{len(broken):,}: {text}{more}"

"""Pixels, labels and captions put together as a Dataset, with the report of what was found and left out."""

import numpy as np

from unnoise.config.schema import DataConfig
from unnoise.data.build import LONG, TINY
from unnoise.data.dataset import Dataset, Store
from unnoise.data.facts import Facts
from unnoise.data.report import DataReport, named
from unnoise.data.source import Source


def assemble(store: Store, facts: Facts, source: Source, config: DataConfig, seed: int) -> Dataset:
    """The data set of the pictures that could be read. ValueError under `strict` when one could not."""
    broken = tuple((source.name_of(k), reason) for k, reason in facts.broken)
    if broken and config.strict:
        raise ValueError(
            f"broken pictures in {source.name}, {named(broken)}; repair them, or allow them: no --strict"
        )
    index = np.delete(np.arange(source.count), [k for k, _ in facts.broken])
    assert len(index) == facts.pictures == len(store), "the cache belongs to other pictures"
    labels, classes, lost = _relabelled(source, index)
    captions = None if source.captions is None else [source.captions[k] for k in index]
    counts = np.zeros(0, int) if labels is None else np.bincount(labels, minlength=len(classes))
    report = DataReport(
        source=source.name,
        pictures=len(store),
        size=facts.size,
        channels=store.channels,
        classes={name: int(count) for name, count in zip(classes, counts, strict=True)},
        captions=sum(bool(text) for text in captions or ()),
        sizes={f"{width}x{height}": count for width, height, count in facts.sizes},
        different_sizes=facts.different_sizes,
        upscaled=facts.upscaled,
        broken=broken,
        ignored=source.ignored,
        notes=(*source.notes, *_lost(lost), *_odd(facts)),
    )
    return Dataset(
        store=store,
        size=facts.size,
        channels=store.channels,
        report=report,
        content=facts.digest,
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
    """Labels of the pictures in use, the classes that still have one, and those that lost all of theirs."""
    if source.labels is None:
        return None, (), ()
    labels = source.labels[index]
    before = np.bincount(source.labels, minlength=len(source.classes))
    gone = (np.bincount(labels, minlength=len(source.classes)) == 0) & (before > 0)
    place = np.cumsum(~gone) - 1
    kept = tuple(name for name, out in zip(source.classes, gone, strict=True) if not out)
    lost = tuple(name for name, out in zip(source.classes, gone, strict=True) if out)
    return place[labels], kept, lost


def _lost(classes: tuple[str, ...]) -> tuple[str, ...]:
    if not classes:
        return ()
    return (f"warning: classes left out because all their pictures are broken: {', '.join(classes)}",)


def _odd(facts: Facts) -> tuple[str, ...]:
    if not facts.odd_count:
        return ()
    unnamed = facts.odd_count - len(facts.odd)
    more = f"; and {unnamed:,} more" if unnamed else ""
    listed = "; ".join(facts.odd) + more
    return (
        f"warning: over {LONG}:1, or to be enlarged over {TINY} times, so little is to be seen: {listed}",
    )

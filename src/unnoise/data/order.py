"""Which picture comes when: a pure function of the seed, so that a run resumes or splits over ranks at any
position.

Positions p = 0, 1, 2, ... run through epoch 0's permutation, then epoch 1's, and so on: position p holds
entry p % n of the permutation of epoch p // n. Every draw is a hash of (seed, purpose, place) by SplitMix64
(Steele, Lea & Flood 2014) rather than a library's generator, so that neither numpy's nor torch's next version
can change an order.
"""

import functools
import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SMALL = 1024
"""Data sets below this many pictures are permuted for many epochs at a time."""


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 whose outputs look independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def draws(seed: int, purpose: str, places: np.ndarray) -> np.ndarray:
    """64 random bits for each place: a function of (seed, purpose, place). places: (K,); returns uint64."""
    key = int.from_bytes(hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest(), "little")
    return _mix(_mix(np.asarray(places).astype(np.uint64) * _GOLDEN + np.uint64(key)))


def uniforms(seed: int, purpose: str, places: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1) for each place: a function of (seed, purpose, place). Returns (K, count) float64."""
    keys = draws(seed, purpose, places)[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return np.asarray((_mix(keys) >> np.uint64(11)) * 2.0**-53)


def normals(seed: int, purpose: str, places: np.ndarray, count: int) -> np.ndarray:
    """Standard normal numbers for each place, by Box and Muller. Returns (K, count) float64."""
    half = (count + 1) // 2
    drawn = uniforms(seed, purpose, places, 2 * half)
    radius, angle = np.sqrt(-2 * np.log1p(-drawn[:, :half])), 2 * np.pi * drawn[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def indices(seed: int, n: int, start: int, count: int) -> np.ndarray:
    """Pictures at positions start .. start + count - 1 of the sequence. Returns (count,) int64 in [0, n).

    Step s of a global batch B is start = s * B; a rank takes its contiguous slice of those positions.
    """
    return pictures(seed, n, np.arange(start, start + count))


def pictures(seed: int, n: int, positions: np.ndarray) -> np.ndarray:
    """Pictures at the given positions of the sequence. positions: (K,) >= 0; returns (K,) int64 in [0, n)."""
    assert n > 0, "an empty data set has no order"
    epochs, entries = np.divmod(np.asarray(positions, np.int64), n)
    chosen = np.empty(epochs.shape, np.int64)
    if n < _SMALL:
        wanted, which = np.unique(epochs, return_inverse=True)
        together = _SMALL * _SMALL // n
        for first in range(0, len(wanted), together):
            rows = (which >= first) & (which < first + together)
            table = _permutations(seed, n, wanted[first : first + together])
            chosen[rows] = table[which[rows] - first, entries[rows]]
        return chosen
    for epoch in np.unique(epochs):
        rows = epochs == epoch
        chosen[rows] = _permutation(seed, n, int(epoch))[entries[rows]]
    return chosen


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, n: int, epoch: int) -> np.ndarray:
    """One epoch's permutation, kept because the next batch will ask for it again."""
    return np.asarray(_permutations(seed, n, np.array([epoch]))[0])


def _permutations(seed: int, n: int, epochs: np.ndarray) -> np.ndarray:
    """The pictures 0 .. n-1 sorted by their hashes in each epoch. epochs: (E,); returns (E, n) int64."""
    keys = draws(seed, "order", epochs)[:, None] + np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN
    return np.asarray(np.argsort(_mix(keys), axis=1, kind="stable"))

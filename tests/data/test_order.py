"""The order is a pure function of the seed: exact at any position, whatever the batch and the ranks."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.data.order import draws, indices, pictures


@given(st.integers(0, 2**40), st.integers(1, 60), st.integers(0, 5))
@settings(deadline=None)
def test_every_epoch_is_a_permutation(seed: int, n: int, epoch: int) -> None:
    assert sorted(indices(seed, n, epoch * n, n)) == list(range(n))


@given(st.integers(0, 99), st.integers(1, 50), st.integers(0, 500), st.integers(0, 300), st.integers(0, 200))
@settings(deadline=None)
def test_any_stretch_is_the_same_sequence(seed: int, n: int, start: int, count: int, cut: int) -> None:
    whole = indices(seed, n, 0, start + count)
    assert (indices(seed, n, start, count) == whole[start:]).all()
    cut = min(cut, count)  # as two ranks, or as a run stopped and resumed
    parts = np.concatenate([indices(seed, n, start, cut), indices(seed, n, start + cut, count - cut)])
    assert (parts == whole[start:]).all()
    backwards = np.arange(start + count)[::-1]
    assert (pictures(seed, n, backwards) == whole[::-1]).all()


@pytest.mark.parametrize("n", [1023, 1024, 1025, 60000])
def test_large_sets_cross_epochs(n: int) -> None:
    """Positions on both sides of the size at which epochs are permuted one at a time."""
    stretch = indices(3, n, 2 * n - 5, 10)
    assert (stretch[:5] == indices(3, n, n, n)[-5:]).all()
    assert (stretch[5:] == indices(3, n, 2 * n, n)[:5]).all()
    assert (np.sort(indices(3, n, n, n)) == np.arange(n)).all()


def test_one_picture_fills_any_batch() -> None:
    assert (indices(0, 1, 7, 100) == 0).all()


def test_epochs_and_seeds_differ() -> None:
    first, second = indices(0, 1000, 0, 1000), indices(0, 1000, 1000, 1000)
    other = indices(1, 1000, 0, 1000)
    for a, b in ((first, second), (first, other), (first, np.arange(1000))):
        assert (a == b).sum() < 10  # about 1 of two random permutations agrees


def test_each_picture_is_equally_likely_at_each_place() -> None:
    """Chi-square over 5 x 5 places of 20,000 epochs; 16 degrees of freedom, p = 1e-6 at 57."""
    table = indices(0, 5, 0, 100_000).reshape(-1, 5)
    counts = np.stack([np.bincount(table[:, k], minlength=5) for k in range(5)])
    assert ((counts - 4000) ** 2 / 4000).sum() < 57


def test_draws_are_fair_and_apart() -> None:
    flips = draws(0, "flip", np.arange(40_000)) & np.uint64(1)
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / 200  # five standard errors
    assert (draws(0, "flip", np.arange(9)) != draws(0, "crop", np.arange(9))).all()
    assert (draws(0, "flip", np.array([5, 3])) == draws(0, "flip", np.arange(9))[[5, 3]]).all()


def _mixed(x: int) -> int:
    """SplitMix64's finaliser on plain integers (Steele, Lea & Flood 2014, figure 16, variant 13)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_the_order_is_the_one_described() -> None:
    """A run must meet the same pictures with the next version and numpy, so the rule is spelt out here."""
    golden, n, seed = 0x9E3779B97F4A7C15, 10, 7
    key = int.from_bytes(hashlib.blake2b(b"order:7", digest_size=8).digest(), "little")
    expected = []
    for epoch in range(3):
        base = _mixed(_mixed((epoch * golden + key) % 2**64))
        expected += sorted(range(n), key=lambda k, base=base: _mixed((base + (k + 1) * golden) % 2**64))
    assert indices(seed, n, 0, 3 * n).tolist() == expected

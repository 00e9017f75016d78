"""Randomness as a function of (seed, purpose, indices)."""

import math

import pytest
import torch

from unnoise.diffusion.noise import RecordedNoise, SeededNoise, seeded_generator, unit_normal

LIKE = torch.zeros(4, 3, 8, 8)


def test_a_picture_gets_its_numbers_in_any_batch() -> None:
    together = SeededNoise(1, (3, 9, 5, 2))(LIKE, step=7, draw=0)
    for row, image in enumerate((3, 9, 5, 2)):
        assert torch.equal(SeededNoise(1, (image,))(LIKE[:1], step=7, draw=0)[0], together[row])
        assert torch.equal(SeededNoise(1, (0, image))(LIKE[:2], step=7, draw=0)[1], together[row])


def test_every_index_changes_the_numbers() -> None:
    base = {"seed": 0, "image": 0, "step": 0, "draw": 0}
    rows = [base] + [base | {key: other} for key in base for other in (1, -1, 2**32, 2**40)]
    drawn = [
        SeededNoise(row["seed"], (row["image"],))(LIKE[:1], step=row["step"], draw=row["draw"])
        for row in rows
    ]
    for k, one in enumerate(drawn):
        for other in drawn[:k]:
            # Independent: the correlation of 192 pairs is within five standard errors.
            assert abs((one * other).mean()) < 5 / math.sqrt(one.numel())


def test_purposes_and_index_splits_do_not_collide() -> None:
    keys = [("a", 1, 23), ("a", 12, 3), ("a", 123), ("b", 1, 23), ("a, 1", 23), ("a", 1, 2, 3)]
    drawn = {tuple(unit_normal(0, *key, shape=(4,)).tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = SeededNoise(0, range(4))(LIKE, step=0, draw=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(SeededNoise(0, range(4))(LIKE, step=0, draw=0), first)


def test_numbers_are_standard_normal_and_uniform() -> None:
    z = unit_normal(0, "moments", shape=(200_000,)).double()
    assert abs(z.mean()) < 5 / math.sqrt(len(z))
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / len(z))
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / len(z))
    u = torch.rand(200_000, generator=seeded_generator(0, "moments")).double()
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * len(u))


def test_first_numbers_of_many_generators_are_independent() -> None:
    """Across generators, not within one: that is what a picture's noise over steps is made of."""
    z = torch.stack([unit_normal(0, "many", k, shape=(16,)) for k in range(4000)]).double()
    assert z.mean(0).abs().max() < 5 / math.sqrt(len(z))
    assert (z.var(0) - 1).abs().max() < 5 * math.sqrt(2 / len(z))
    assert abs((z[1:, 0] * z[:-1, 0]).mean()) < 5 / math.sqrt(len(z))


def test_seeds_are_not_cut_to_32_bits() -> None:
    """Two generators whose torch seeds agree in the bits that torch keeps still differ."""
    generator = seeded_generator(0, "wide")
    short = torch.Generator().manual_seed(generator.initial_seed())
    assert not torch.equal(torch.rand(8, generator=generator), torch.rand(8, generator=short))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_follows_and_numbers_stay(dtype: torch.dtype) -> None:
    drawn = SeededNoise(0, range(4))(LIKE.to(dtype), step=0, draw=0)
    assert drawn.dtype == dtype
    assert torch.equal(drawn, SeededNoise(0, range(4))(LIKE, step=0, draw=0).to(dtype))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="3 image ids for 4 pictures"):
        SeededNoise(0, range(3))(LIKE, step=0, draw=0)
    with pytest.raises(ValueError, match="step 1, draw 0"):
        RecordedNoise({(0, 0): LIKE})(LIKE, step=1, draw=0)

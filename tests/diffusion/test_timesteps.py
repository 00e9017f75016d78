"""Entries to train on: weights keep the loss unbiased, the loss-aware sampler finds the costly ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.diffusion.timesteps import TIMESTEPS, LossSecondMoment, Uniform, draw


def warmed(steps: int, losses: torch.Tensor, **options) -> LossSecondMoment:
    sampler = LossSecondMoment(steps, **options)
    for _ in range(sampler.history):
        sampler.update(torch.arange(steps), losses)
    return sampler


@given(st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_weighted_loss_is_unbiased(steps: int, seed: int) -> None:
    """sum of p weight loss = mean loss, over an even grid of u."""
    losses = torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    for sampler in (Uniform(steps), warmed(steps, losses, history=3, uniform_prob=0.05)):
        p = sampler.probabilities()
        assert p.dtype == torch.float64 and p.sum().item() == pytest.approx(1)
        u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
        i, weight = sampler.sample(u)
        assert i.dtype == torch.int64 and weight.dtype == torch.float32
        assert (losses[i] * weight).mean().item() == pytest.approx(losses.mean().item(), rel=0.01)
        counts = torch.bincount(i, minlength=steps) / len(u)
        torch.testing.assert_close(counts.double(), p, rtol=0, atol=1e-4)


def test_costly_entries_are_drawn_more() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    sampler = warmed(4, losses, uniform_prob=0.0)
    torch.testing.assert_close(sampler.probabilities(), losses.double() / 10)


def test_uniform_until_every_entry_is_known_then_the_last_losses_count() -> None:
    sampler = LossSecondMoment(3, history=2, uniform_prob=0.0)
    flat = torch.full((3,), 1 / 3, dtype=torch.float64)
    sampler.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1.0, 1, 2, 2, 3]))
    assert torch.equal(sampler.probabilities(), flat)
    sampler.update(torch.tensor([2]), torch.tensor([3.0]))
    torch.testing.assert_close(sampler.probabilities(), torch.tensor([1, 2, 3]).double() / 6)
    sampler.update(torch.tensor([0, 0]), torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(sampler.probabilities(), torch.tensor([3, 2, 3]).double() / 8)
    sampler.update(
        torch.tensor([1]), torch.tensor([14**0.5])
    )  # sqrt((4 + 14) / 2) = 3, where the mean is 2.9
    torch.testing.assert_close(sampler.probabilities(), flat)


def test_state_goes_on() -> None:
    g = torch.Generator().manual_seed(0)
    one = LossSecondMoment(5, history=3)
    for _ in range(20):
        one.update(torch.randint(0, 5, (4,), generator=g), torch.rand(4, generator=g))
    other = LossSecondMoment(5, history=3)
    other.load_state_dict(one.state_dict())
    for sampler in (one, other):
        sampler.update(torch.tensor([1, 2]), torch.tensor([9.0, 0.5]))
    assert torch.equal(one.probabilities(), other.probabilities())
    assert (one.probabilities() != 0.2).any()
    with pytest.raises(ValueError, match="use its settings"):
        LossSecondMoment(5, history=4).load_state_dict(one.state_dict())


def test_entries_without_probability_are_never_drawn() -> None:
    """u in [edge, next edge) is an entry, so that one of width 0 has no u."""
    nothing_first = torch.tensor([0.0, 0.5, 0.0, 0.5], dtype=torch.float64)
    assert draw(nothing_first, torch.tensor([0.0, 0.25, 0.5, 0.75]))[0].tolist() == [1, 1, 3, 3]


def test_edges() -> None:
    for name, cls in TIMESTEPS.items():
        sampler = cls(7)
        i, _ = sampler.sample(torch.tensor([0.0, 1 - 2**-24]))
        assert i.tolist() == [0, 6], name
        sampler.load_state_dict(sampler.state_dict())
    with pytest.raises(ValueError, match="history=0"):
        LossSecondMoment(5, history=0)
    zero = warmed(3, torch.zeros(3))
    assert zero.probabilities().tolist() == pytest.approx([1 / 3] * 3)

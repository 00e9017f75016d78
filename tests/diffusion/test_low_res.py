"""The small picture of an upsampler: how it is made, and made noisy."""

import pytest
import torch

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.low_res import noised, shrink, with_low_res


def test_shrinking_takes_means_of_squares() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4)
    assert shrink(images, 2)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert torch.equal(shrink(images, 1), images.mean((2, 3), keepdim=True))


def test_sides_that_do_not_divide() -> None:
    """3 -> 2: each new pixel is the mean of the two old ones that it touches."""
    row = torch.tensor([0.0, 3.0, 9.0]).expand(1, 1, 3, 3)
    assert shrink(row, 2)[0, 0, 0].tolist() == [1.5, 6.0]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_noise_keeps_the_size_of_unit_pictures(level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    low, z = (torch.randn(2, 3, 200, 200, generator=generator) for _ in range(2))
    seen = noised(low, torch.tensor([level, 0.0]), z)
    count = low[0].numel()
    assert abs(seen[0].var().item() - 1) < 5 * (2 / count) ** 0.5
    correlation = (seen[0] * low[0]).mean().item()
    assert abs(correlation - (1 - level**2) ** 0.5) < 5 * (2 / count) ** 0.5
    assert torch.equal(seen[1], low[1])


def test_the_condition() -> None:
    told = Condition(label=torch.tensor([3]))
    low, z, level = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([0.6])
    plain = with_low_res(told, low)
    assert plain.concat is low and plain.level is None and plain.label is told.label
    noisy = with_low_res(told, low, level=level, z=z)
    torch.testing.assert_close(noisy.concat, torch.full((1, 1, 2, 2), 0.8 + 0.6))
    assert noisy.level is level

"""Between two pictures: ends, angles, distribution, and the walk through DDIM inversion."""

import math

import pytest
import torch
from torch import Tensor

from tests.analytic import Gaussian, grid
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.interpolation import SlerpNoise, mix_noised, slerp
from unnoise.diffusion.noise import RecordedNoise, RowNoise, SeededNoise
from unnoise.diffusion.samplers import Ddim, DdimInversion
from unnoise.diffusion.schedule import add_noise
from unnoise.diffusion.walk import run


def normal(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_slerp_ends_and_speed(dtype: torch.dtype) -> None:
    a, b = normal(3, 2, 4, 4, dtype=dtype), normal(3, 2, 4, 4, seed=1, dtype=dtype)
    a, b = (x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for x in (a, b))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    way = [slerp(a, b, k / 8).flatten(1).double() for k in range(9)]
    whole = (way[0] * way[8]).sum(1).arccos()
    for x, y in zip(way, way[1:], strict=False):
        torch.testing.assert_close(x.norm(dim=1), torch.ones(3).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close((x * y).sum(1).arccos(), whole / 8, rtol=1e-4, atol=1e-5)


def test_slerp_of_each_picture_is_its_own() -> None:
    a, b, share = normal(3, 1, 4, 4), normal(3, 1, 4, 4, seed=1), torch.tensor([0.2, 0.5, 1.0]).double()
    together = slerp(a, b, share)
    for k in range(3):
        alone = slerp(a[k : k + 1], b[k : k + 1], share[k].item())
        torch.testing.assert_close(together[k : k + 1], alone)


def test_slerp_of_noise_is_noise() -> None:
    """A straight line would shrink it to a variance of one half."""
    a, b = normal(400, 1, 16, 16), normal(400, 1, 16, 16, seed=1)
    count = a.numel()
    for share in (0.25, 0.5):
        x = slerp(a, b, share)
        assert abs(x.mean()) < 5 / math.sqrt(count)
        assert abs(x.var() - 1) < 5 * math.sqrt(2 / count) + 1 / 256


def test_slerp_of_one_line() -> None:
    a = normal(2, 1, 4, 4)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    torch.testing.assert_close(slerp(a, -a, 0.25), 0.5 * a)
    assert torch.equal(slerp(torch.zeros_like(a), a, 0.5), 0.5 * a)


def test_noise_between_two_runs() -> None:
    """Unit noise at every step, that of the runs at the ends, and each row's own."""
    a, b, like = SeededNoise(1, [0]), SeededNoise(2, [5]), torch.empty(1, 1, 64, 64)
    for step, draw in ((-1, 0), (3, 0), (3, 1)):
        ends = a(like, step=step, draw=draw), b(like, step=step, draw=draw)
        for share, end in ((0.0, ends[0]), (1.0, ends[1])):
            assert torch.equal(SlerpNoise(a, b, share)(like, step=step, draw=draw), end)
        middle = SlerpNoise(a, b, 0.5)(like, step=step, draw=draw)
        assert abs(middle.var() - 1) < 0.1
        rows = RowNoise([a, SlerpNoise(a, b, 0.5), b])(like.expand(3, -1, -1, -1), step=step, draw=draw)
        assert torch.equal(rows, torch.cat([ends[0], middle, ends[1]]))


def test_real_pictures_by_inversion() -> None:
    """Two pictures are inverted, their noise joined and drawn again: the ends come back."""
    data = Gaussian(torch.tensor(0.3).double(), torch.tensor(0.25).double())
    pictures, schedule = 0.3 + 0.5 * normal(2, 1, 4, 4), grid("uniform", 256)
    up = schedule.ascent(pictures)
    *_, noisy = run(DdimInversion(), data, pictures, up, cond=Condition(), noise=RecordedNoise({}))

    def drawn(share: float) -> Tensor:
        x = slerp(noisy.x[:1], noisy.x[1:], share)
        path = schedule.path(x)[:-1]
        *_, end = run(Ddim(), data, x, path, cond=Condition(), noise=RecordedNoise({}))
        return end.x

    assert (drawn(0.0) - pictures[:1]).abs().max() < 0.03
    assert (drawn(1.0) - pictures[1:]).abs().max() < 0.03
    middle = drawn(0.5)
    assert (middle - pictures[:1]).abs().max() > 0.3 and (middle - pictures[1:]).abs().max() > 0.3


def test_mix_noised() -> None:
    a, b, eps, eps_b = (normal(2, 1, 4, 4, seed=k) for k in range(4))
    at = grid("uniform", 10).at(4, a)
    ends = add_noise(a, eps, at), add_noise(b, eps_b, at)
    for share, wanted in ((0.0, ends[0]), (1.0, ends[1]), (0.25, 0.75 * ends[0] + 0.25 * ends[1])):
        torch.testing.assert_close(mix_noised(a, b, at, share, eps=eps, eps_other=eps_b), wanted)
    rows = mix_noised(a, b, at, torch.tensor([0.0, 1.0]), eps=eps, eps_other=eps_b)
    torch.testing.assert_close(rows, torch.cat([ends[0][:1], ends[1][1:]]))

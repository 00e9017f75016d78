"""Conditional means and covariances that are known: which method has them, and how far off the others are.

Mixtures of independent normals in 12 pixels, seen through a mask, in grey, as block means (trap 62).
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.analytic import Mixture
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import (
    AtEnd,
    Hold,
    HoldKnown,
    hold_grey,
    hold_known,
    hold_low_frequencies,
    resampling_path,
)
from unnoise.diffusion.particles import run_particles
from unnoise.diffusion.reconstruction import dps, pigdm
from unnoise.diffusion.samplers import Ddim, Ddpm
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.walk import run

NONE, SHAPE, STEPS = Condition(), (3, 2, 2), 50
SCHEDULE = NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced(space(STEPS, 1000))
GENERATOR = torch.Generator().manual_seed(0)
MEANS = 0.6 * torch.randn(4, *SHAPE, generator=GENERATOR, dtype=torch.float64)
DATA = Mixture(
    MEANS, torch.tensor([0.03, 0.05, 0.08, 0.04]).double(), torch.tensor([0.4, 0.3, 0.2, 0.1]).double(),
    optimal=True,
)  # fmt: skip
KNOWN = DATA.sample(1, 1, GENERATOR)
HELD: dict[str, Hold | HoldKnown] = {
    "mask": hold_known(KNOWN, torch.tensor([[1.0, 0.0], [0.0, 0.0]])),
    "grey": hold_grey(KNOWN),
    "blocks": hold_low_frequencies(KNOWN, 2),
}
VARIANCE = 0.1
SAMPLER = Ddpm()


@dataclass(frozen=True)
class Found:
    """Errors of mean and covariance against the exact ones, as norms and in standard errors (rms)."""

    mean: float
    covariance: float
    mean_in_errors: float
    covariance_in_errors: float


def noise(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda like, *, step, draw: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def compared(x: Tensor, weights: Tensor, held: Hold | HoldKnown) -> Found:
    """x (B, K, C, H, W), weights (B, K): independent estimates, one a row, and their mean."""
    mean, covariance = DATA.given(KNOWN, held.project)
    off = x.flatten(2) - mean
    means = torch.einsum("bk,bkd->bd", weights, off)
    squares = torch.einsum("bk,bkd,bke->bde", weights, off, off) - covariance

    def in_errors(rows: Tensor) -> float:
        error = rows.flatten(1).std(0) / len(rows) ** 0.5
        real = error > 1e-9  # what is held has neither error nor spread
        return (rows.flatten(1).mean(0)[real] / error[real]).square().mean().sqrt().item()

    return Found(
        mean=means.mean(0).norm().item() / covariance.trace().sqrt().item(),
        covariance=squares.mean(0).norm().item() / covariance.norm().item(),
        mean_in_errors=in_errors(means),
        covariance_in_errors=in_errors(squares),
    )


def walked(name: str, method: str, count: int = 1500, sampler=SAMPLER, path=None) -> Found:
    held, drawn = HELD[name], noise(1)
    x = drawn(torch.empty(count, *SHAPE, dtype=torch.float64), step=-1, draw=0)
    pulled = {"dps": lambda: dps(DATA, held, scale=10), "pigdm": lambda: pigdm(DATA, held, variance=VARIANCE)}
    denoise = pulled[method]() if method in pulled else DATA
    path, constraint = path or SCHEDULE.path(x), AtEnd(held) if method in pulled else held
    walk = run(sampler, denoise, x, path, cond=NONE, noise=drawn, constraint=constraint)
    *_, end = walk
    return compared(end.x[:, None], torch.ones(count, 1).double(), held)


def clouds(name: str, pictures: int, count: int) -> Found:
    held, drawn = HELD[name], noise(2)
    x = drawn(torch.empty(pictures, count, *SHAPE, dtype=torch.float64), step=-1, draw=0)
    walk = run_particles(
        DATA, held, x, SCHEDULE.path(x[:, 0]), cond=NONE, noise=drawn, variance=VARIANCE, rows=2000
    )
    *_, end = walk
    return compared(end.x, end.weights, held)


@pytest.mark.parametrize("name", HELD)
def test_particles_have_the_conditional_within_its_error(name: str) -> None:
    found = clouds(name, 60, 40)
    assert found.mean_in_errors < 1.7, found
    assert found.covariance_in_errors < 2, found


@pytest.mark.parametrize("name", HELD)
def test_the_others_are_biased_replacement_most(name: str) -> None:
    replaced = walked(name, "replace")
    assert replaced.mean_in_errors > 5 and replaced.covariance_in_errors > 4, replaced
    for method in ("dps", "pigdm"):
        pulled = walked(name, method)
        assert pulled.mean_in_errors > 2.5, (method, pulled)
        assert pulled.mean < 0.8 * replaced.mean, (method, pulled, replaced)
        assert pulled.covariance < 0.8 * replaced.covariance, (method, pulled, replaced)


@pytest.mark.parametrize("sampler", [Ddpm(), Ddim(), Ddim(eta=1)], ids=["ddpm", "ddim", "ddim-eta1"])
def test_resampling_lessens_the_bias_with_any_sampler_and_does_not_end_it(sampler) -> None:
    """Ten steps each walked four times are nearer than as many calls in one walk, but no posterior."""
    short = NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced(space(10, 1000))
    like = torch.empty(1200, *SHAPE, dtype=torch.float64)
    path = resampling_path(short, like, jump=2, repeats=4)
    calls = sum(bool(to.i[0] < at.i[0]) for at, to in zip(path, path[1:], strict=False))
    assert calls == 10 + 3 * 2 * 4
    repainted = walked("blocks", "replace", 1200, sampler, path)
    as_many = NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced(space(calls, 1000))
    replaced = walked("blocks", "replace", 1200, sampler, as_many.path(like))
    assert repainted.mean < 0.9 * replaced.mean and repainted.mean_in_errors > 5, (repainted, replaced)

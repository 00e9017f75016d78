"""Bits per dimension of Gaussian data in closed form: with the exact reverse process the bound is tight."""

import math

import pytest
import torch

from tests.analytic import Gaussian
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.likelihood import (
    approximate_normal_cdf,
    bits_per_dim,
    normal_kl,
    pixel_log_likelihood,
    prior_bits,
    rate_distortion,
)
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space

MEAN, VARIANCE = 0.1, 0.04
DATA = Gaussian(
    torch.tensor(MEAN, dtype=torch.float64), torch.tensor(VARIANCE, dtype=torch.float64), optimal=True
)


def data(count: int) -> torch.Tensor:
    """Gaussian grey levels, five standard deviations inside [-1, 1]; float64."""
    generator = torch.Generator().manual_seed(0)
    x = MEAN + VARIANCE**0.5 * torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64)
    return ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def measured(schedule: NoiseSchedule, count: int = 96):
    generator = torch.Generator().manual_seed(1)

    def noise(like, *, step, draw):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    return bits_per_dim(DATA, data(count), schedule, cond=Condition(), noise=noise)


@pytest.mark.parametrize("keep", ["", "20"])
def test_gaussian_data_cost_their_entropy(keep: str) -> None:
    """total = log2(127.5) + log2(2 pi e v) / 2 for any steps: the exact reverse process loses nothing."""
    schedule = NoiseSchedule.from_betas(make_betas("linear", 100)).respaced(space(keep, 100))
    bits = measured(schedule)
    entropy = math.log2(127.5) + 0.5 * math.log2(2 * math.pi * math.e * VARIANCE)
    error = bits.total.std().item() / math.sqrt(len(bits.total))
    # 0.002: the tanh form of the normal distribution function.
    assert abs(bits.total.mean().item() - entropy) < 5 * error + 0.002
    assert error < 0.01
    torch.testing.assert_close(bits.total, bits.prior + bits.vlb.sum(1))


def test_rate_is_mutual_information_and_distortion_what_is_unknown() -> None:
    """rate at x_i = I(x0; x_i) = log2(1 + snr v) / 2 bits; distortion^2 = Var[x0 | x_i]."""
    schedule = NoiseSchedule.from_betas(make_betas("cosine", 60))
    bits = measured(schedule)
    rate, distortion = rate_distortion(bits)
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    wanted = 0.5 * torch.log2(1 + snr * VARIANCE)
    torch.testing.assert_close(rate, wanted, rtol=0, atol=0.01)
    unknown = 127.5 * (VARIANCE / (1 + snr * VARIANCE)).sqrt()
    torch.testing.assert_close(distortion, unknown, rtol=0.02, atol=0)
    assert (rate.diff() < 0).all()
    assert rate.dtype == distortion.dtype == torch.float64
    # eps error: E(eps - eps_hat)^2 = snr Var[x0 | x_i].
    torch.testing.assert_close(
        bits.eps_mse.mean(0), snr * VARIANCE / (1 + snr * VARIANCE), rtol=0.05, atol=1e-6
    )


def test_prior() -> None:
    """Against the KL of two normals written out, for a process that keeps much of the signal."""
    schedule = NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced([300])
    x0 = data(4)
    signal = schedule.alpha_bar[-1].item()
    kl = 0.5 * (signal * x0**2 + (1 - signal) - 1 - math.log(1 - signal))
    torch.testing.assert_close(prior_bits(x0, schedule), kl.flatten(1).mean(1) / math.log(2))


def test_normal_kl_against_torch() -> None:
    g = torch.Generator().manual_seed(0)
    m1, s1, m2, s2 = (torch.randn(50, generator=g, dtype=torch.float64) for _ in range(4))
    p = torch.distributions.Normal(m1, (0.5 * s1).exp())
    q = torch.distributions.Normal(m2, (0.5 * s2).exp())
    torch.testing.assert_close(normal_kl(m1, s1, m2, s2), torch.distributions.kl_divergence(p, q))


def test_pixels_are_a_distribution() -> None:
    """The masses of the 256 grey levels add to 1 for any mean and spread; none is below 1e-12."""
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean in (-1.0, -0.3, 0.0, 0.99, 1.5):
        for log_std in (-2.0, 0.0, 2.0):
            masses = pixel_log_likelihood(
                levels, torch.full_like(levels, mean), torch.full_like(levels, log_std)
            )
            assert masses.exp().sum().item() == pytest.approx(1, abs=1e-6)
    sharp = pixel_log_likelihood(levels, torch.zeros_like(levels), torch.full_like(levels, -12.0))
    assert sharp.min().item() == pytest.approx(math.log(1e-12))


def test_cdf_is_nearly_normal() -> None:
    z = torch.linspace(-4, 4, 101, dtype=torch.float64)
    exact = torch.distributions.Normal(0.0, 1.0).cdf(z)
    assert (approximate_normal_cdf(z) - exact).abs().max() < 5e-4

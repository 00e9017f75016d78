"""The variational bound in bits per dimension (DDPM Eq. 5), the 8-bit decoder, rate and distortion.

DDPM: Ho, Jain, Abbeel 2020, arXiv:2006.11239. Bits are means over C, H, W divided by ln 2.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.prediction import Denoise, Prediction, posterior_mean, reverse
from unnoise.diffusion.schedule import At, NoiseSchedule, add_noise


def mean_over_pixels(x: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return x.flatten(1).mean(1)


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor | float) -> Tensor:
    """KL(N1 || N2) of normals in nats, elementwise; the arguments broadcast."""
    log_variance2 = torch.as_tensor(log_variance2, dtype=mean1.dtype, device=mean1.device)
    # In the published code's order: near t = T the terms cancel, and what is left is this order's rounding.
    return 0.5 * (
        -1.0
        + log_variance2
        - log_variance1
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    )


def approximate_normal_cdf(z: Tensor) -> Tensor:
    """0.5 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))): the published code's normal cdf."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def pixel_log_likelihood(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log of the normal's mass on the grey level of x0, x0 +- 1/255, open at -1 and 1 (DDPM Eq. 13), in nats.

    x0: k/127.5 - 1 for k in 0..255. Masses below 1e-12 count as 1e-12.
    """
    centred, inv_std = x0 - mean, torch.exp(-log_std)
    above = approximate_normal_cdf(inv_std * (centred + 1 / 255))
    below = approximate_normal_cdf(inv_std * (centred - 1 / 255))
    mass = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def vlb_bits(prediction: Prediction, x0: Tensor, x: Tensor, at: At) -> Tensor:
    """The bound's term at each picture's entry, (B,) in bits per dimension, of x drawn from q(x_i | x0).

    KL(q(x_{i-1} | x_i, x0) || p(x_{i-1} | x_i)), or -log p(x0 | x_0) at i = 0. With entries drawn uniformly,
    S times it is an unbiased estimate of the sum over the S entries.
    """
    said = reverse(prediction, x, at)
    true = posterior_mean(x0, x, at)
    bits = mean_over_pixels(normal_kl(true, at.scales.log_variance, said.mean, said.log_variance)) / math.log(
        2
    )
    first = at.i == 0
    if first.any():
        log_std = 0.5 * said.log_variance.expand_as(x0)
        last = mean_over_pixels(pixel_log_likelihood(x0, said.mean, log_std)) / -math.log(2)
        bits = torch.where(first.to(bits.device), last, bits)
    return bits


def prior_bits(x0: Tensor, schedule: NoiseSchedule) -> Tensor:
    """KL(q(x_T | x0) || N(0, 1)), T the noisiest entry: (B,) bits per dimension."""
    at = schedule.at(schedule.steps - 1, x0)
    log_variance = at.cast((1 - at.alpha_bar).log())
    mean = at.scales.alpha * x0
    return mean_over_pixels(normal_kl(mean, log_variance, torch.zeros_like(mean), 0.0)) / math.log(2)


@dataclass(frozen=True, eq=False)
class BitsPerDim:
    """The bound of a batch and its parts. Column i of the (B, S) tables is entry i, least noisy first."""

    total: Tensor
    """(B,) bits per dimension: prior + the sum of `vlb`."""
    prior: Tensor
    """(B,)."""
    vlb: Tensor
    """(B, S) bits per dimension."""
    x0_mse: Tensor
    """(B, S) mean square error of the predicted x0."""
    eps_mse: Tensor
    """(B, S) of the predicted eps."""


@torch.no_grad()
def bits_per_dim(
    denoise: Denoise, x0: Tensor, schedule: NoiseSchedule, *, cond: Condition, noise: Noise
) -> BitsPerDim:
    """The variational bound on -log2 p(x0) per dimension (DDPM Eq. 5), one network call an entry.

    Entry i uses noise(step=S-1-i, draw=0): the noisiest comes first, as in the published calc_bpd_loop.
    """
    vlb, x0_mse, eps_mse = [], [], []
    for i in range(schedule.steps - 1, -1, -1):
        at, eps = schedule.at(i, x0), noise(x0, step=schedule.steps - 1 - i, draw=0)
        x = add_noise(x0, eps, at)
        prediction = denoise(x, at, cond)
        vlb.append(vlb_bits(prediction, x0, x, at))
        x0_mse.append(mean_over_pixels((prediction.x0 - x0) ** 2))
        eps_mse.append(mean_over_pixels((prediction.eps - eps) ** 2))
    tables = [torch.stack(rows[::-1], dim=1) for rows in (vlb, x0_mse, eps_mse)]
    prior = prior_bits(x0, schedule)
    return BitsPerDim(tables[0].sum(1) + prior, prior, *tables)


def rate_distortion(bits: BitsPerDim) -> tuple[Tensor, Tensor]:
    """Rate and distortion once x_i has been sent, i = 0..S-1 (DDPM Fig. 5): (S,) float64 each, batch means.

    rate: bits per dimension, prior + the terms of entries above i. distortion: sqrt(x0_mse) in grey levels of
    0..255.
    """
    terms = bits.vlb.double().mean(0)
    rate = bits.prior.double().mean() + terms.flip(0).cumsum(0).flip(0) - terms
    return rate, 127.5 * bits.x0_mse.double().mean(0).sqrt()

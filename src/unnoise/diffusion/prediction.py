"""What a network says about x_t, whatever it was trained to predict.

DDPM: Ho, Jain, Abbeel 2020, arXiv:2006.11239. v: Salimans, Ho 2022, arXiv:2202.00512. Learned variance:
Nichol, Dhariwal 2021, arXiv:2102.09672.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.schedule import At


@dataclass(frozen=True, eq=False)
class Prediction:
    """x0 and eps, consistent at (x_t, at), and what the network adds about x_{i-1}; (B, C, H, W) each.

    With neither `var_fraction` nor `log_variance` the variance of the step is the posterior's.
    """

    x0: Tensor
    eps: Tensor
    var_fraction: Tensor | None = None
    """Nominally in [0, 1], not clamped: 0 is the posterior variance, 1 beta (IDDPM Eq. 15)."""
    mean: Tensor | None = None
    """Of x_{i-1}, where the network predicts it; else it follows from x0."""
    log_variance: Tensor | None = None


Denoise = Callable[[Tensor, At, Condition], Prediction]
"""(x_t, at, cond) -> Prediction: a Denoiser, or a transform of one. Never called where sigma is 0."""


def x0_from_eps(x: Tensor, eps: Tensor, at: At) -> Tensor:
    """x0 = inv_alpha x_t - sigma_ve eps."""
    return at.scales.inv_alpha * x - at.scales.sigma_ve * eps


def eps_from_x0(x: Tensor, x0: Tensor, at: At) -> Tensor:
    """eps = (inv_alpha x_t - x0) / sigma_ve."""
    return (at.scales.inv_alpha * x - x0) / at.scales.sigma_ve


def posterior_mean(x0: Tensor, x: Tensor, at: At) -> Tensor:
    """Mean of q(x_{i-1} | x_t, x0) (DDPM Eq. 7)."""
    return at.scales.coef_x0 * x0 + at.scales.coef_xt * x


def decode_eps(x: Tensor, output: Tensor, at: At) -> Prediction:
    """The network says eps (DDPM Eq. 11)."""
    return Prediction(x0_from_eps(x, output, at), output)


def decode_x0(x: Tensor, output: Tensor, at: At) -> Prediction:
    """The network says x0."""
    return Prediction(output, eps_from_x0(x, output, at))


def decode_v(x: Tensor, output: Tensor, at: At) -> Prediction:
    """The network says v = alpha eps - sigma x0: x0 = alpha x_t - sigma v, eps = sigma x_t + alpha v."""
    alpha, sigma = at.scales.alpha, at.scales.sigma
    return Prediction(alpha * x - sigma * output, sigma * x + alpha * output)


def decode_mean(x: Tensor, output: Tensor, at: At) -> Prediction:
    """The network says the mean of x_{i-1}; x0 is what has this posterior mean."""
    x0 = at.scales.inv_coef_x0 * output - at.scales.coef_ratio * x
    return Prediction(x0, eps_from_x0(x, x0, at), mean=output)


DECODERS: dict[str, Callable[[Tensor, Tensor, At], Prediction]] = {
    "eps": decode_eps,
    "x0": decode_x0,
    "v": decode_v,
    "mean": decode_mean,
}


@dataclass(frozen=True, eq=False)
class Reverse:
    """p(x_{i-1} | x_t), a normal: mean, variance and its logarithm, (B, C, H, W) or (B, 1, 1, 1).

    The two differ only at i = 0 of the posterior variance, 0, whose logarithm is taken from i = 1.
    """

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


def reverse(prediction: Prediction, x: Tensor, at: At) -> Reverse:
    """The step x_i -> x_{i-1} that a prediction stands for (DDPM Eq. 1, IDDPM Eq. 15)."""
    scales = at.scales
    mean = posterior_mean(prediction.x0, x, at) if prediction.mean is None else prediction.mean
    if prediction.var_fraction is not None:
        fraction = prediction.var_fraction
        log_variance = fraction * scales.log_beta + (1 - fraction) * scales.log_variance
    elif prediction.log_variance is not None:
        log_variance = prediction.log_variance
    else:
        return Reverse(mean, scales.variance, scales.log_variance)
    return Reverse(mean, log_variance.exp(), log_variance)

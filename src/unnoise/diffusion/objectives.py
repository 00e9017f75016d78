"""What training minimises. Noise and times are arguments, so that a loss is a function.

simple: Ho, Jain, Abbeel 2020, arXiv:2006.11239, Eq. 14. hybrid, vlb: Nichol, Dhariwal 2021, arXiv:2102.09672.
min-SNR: Hang et al. 2023, arXiv:2303.09556. Absolute errors and weights of the bound: the code of Rombach et
al. 2022, arXiv:2112.10752. ADM's loss types: MSE is `simple` with a fixed variance, else
`Hybrid(vlb_weight=1/S)`; RESCALED_MSE `Hybrid(vlb_weight=0.001)`; KL `Vlb(vlb_weight=1/S)`; RESCALED_KL
`Vlb()`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.likelihood import mean_over_pixels, vlb_bits
from unnoise.diffusion.schedule import At, NoiseSchedule, add_noise

Weight = Literal["uniform", "min_snr"]
Error = Literal["l2", "l1"]


class Objective(Protocol):
    """What a training step minimises, of noise and times that are given."""

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        at: At,
        *,
        eps: Tensor,
        cond: Condition,
        logvar: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The "loss" of each picture, (B,), and its parts "mse" and "vlb" where it has them."""
        ...


def min_snr_weight(predicts: str, at: At, gamma: float) -> Tensor:
    """min(SNR, gamma) on the error of x0 (min-SNR section 3.4), for what is predicted: (B,) float64."""
    alpha_bar = at.alpha_bar
    snr = alpha_bar / (1 - alpha_bar)
    weight = snr.clamp(max=gamma)
    if predicts == "eps":
        return weight / snr
    if predicts == "v":
        return weight / (snr + 1)
    if predicts == "mean":
        return weight / at.schedule.posterior_coefficients[0][at.i] ** 2
    return weight


def elbo_weights(schedule: NoiseSchedule, predicts: str, v_posterior: float = 0.0) -> Tensor:
    """Weights of the mean square errors in the variational bound as latent diffusion has them: (S,) float64.

    eps: beta^2 / (2 variance (1 - beta) (1 - alpha_bar)) (DDPM Eq. 12); x0: sqrt(alpha_bar) / (2 (2 -
    alpha_bar)), its published code's, which is not the bound's. At entry 0 that of entry 1.
    """
    if predicts not in ("eps", "x0") or schedule.steps < 2:
        raise ValueError(
            f"elbo_weight has no value for predicts={predicts} over {schedule.steps} steps; leave it at 0, "
            "or predict eps or x0 over 2 steps or more"
        )
    if predicts == "eps":
        rest = 2 * schedule.mixed_variance(v_posterior) * (1 - schedule.betas) * (1 - schedule.alpha_bar)
        weights = schedule.betas**2 / rest
    else:
        weights = 0.5 * schedule.alpha_bar.sqrt() / (2 - schedule.alpha_bar)
    return torch.cat([weights[1:2], weights[1:]])


@dataclass(frozen=True)
class Simple:
    """simple_weight * weight * error + elbo_weight * its share in the bound, of what the network predicts.

    With the weights left as they are the mean square error (DDPM Eq. 14); the variance is fixed.
    """

    weight: Weight = "uniform"
    min_snr_gamma: float = 5.0
    error: Error = "l2"
    """Mean square error, or mean absolute error."""
    simple_weight: float = 1.0
    elbo_weight: float = 0.0
    """Of the error weighted as `elbo_weights` says, for networks that predict eps or x0."""

    def __post_init__(self) -> None:
        _check_weight(self.weight, self.min_snr_gamma)
        if self.error not in get_args(Error):
            raise ValueError(f"error={self.error!r} is unknown; use one of {', '.join(get_args(Error))}")
        if self.simple_weight < 0 or self.elbo_weight < 0 or self.simple_weight + self.elbo_weight == 0:
            raise ValueError(
                f"simple_weight={self.simple_weight:g}, elbo_weight={self.elbo_weight:g} leave nothing to "
                "minimise; use 0 or more, one of them above 0"
            )

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        at: At,
        *,
        eps: Tensor,
        cond: Condition,
        logvar: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"loss", "mse" or "mae"}, "elbo" where it is weighted; with a learnt logvar (B,) the weighted error
        becomes error / exp(logvar) + logvar, that of the bound stays (LDM).
        """
        if denoiser.learns_variance:
            raise ValueError(
                f"objective=simple does not train the {denoiser.variance} variance; "
                "use hybrid, or variance=fixed_large"
            )
        x = add_noise(x0, eps, at)
        said = denoiser.raw(x, at, cond)
        missed = denoiser.target(x0, x, at, eps=eps) - said
        error = mean_over_pixels(missed**2 if self.error == "l2" else missed.abs())
        loss = self.simple_weight * _weigh(self.weight, self.min_snr_gamma, error, denoiser, at, logvar)
        parts = {"mse" if self.error == "l2" else "mae": error}
        if self.elbo_weight:
            weights = elbo_weights(at.schedule, denoiser.predicts, denoiser.v_posterior)[at.i]
            parts["elbo"] = weights.to(error.dtype).to(error.device) * error
            loss = loss + self.elbo_weight * parts["elbo"]
        return {"loss": loss, **parts}


@dataclass(frozen=True)
class Vlb:
    """vlb_weight * S * the bound's term: at weight 1 an unbiased estimate of the bound (DDPM Eq. 5)."""

    vlb_weight: float = 1.0

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        at: At,
        *,
        eps: Tensor,
        cond: Condition,
        logvar: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"loss", "vlb"}, "vlb" the single term in bits per dimension."""
        if logvar is not None:
            raise ValueError("objective=vlb has no use for a learnt logvar; leave it out, or use simple")
        x = add_noise(x0, eps, at)
        vlb = vlb_bits(denoiser(x, at, cond), x0, x, at)
        return {"loss": self.vlb_weight * at.schedule.steps * vlb, "vlb": vlb}


@dataclass(frozen=True)
class Hybrid:
    """weight * mse + vlb_weight * S * the bound's term, which trains the variance alone (IDDPM Eq. 16)."""

    weight: Weight = "uniform"
    min_snr_gamma: float = 5.0
    vlb_weight: float = 0.001
    """Of the bound summed over the S entries; 0.001 is ADM's rescaled loss (S/1000 of a term)."""

    def __post_init__(self) -> None:
        _check_weight(self.weight, self.min_snr_gamma)

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        at: At,
        *,
        eps: Tensor,
        cond: Condition,
        logvar: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"loss", "mse", "vlb"}, "vlb" the single term in bits per dimension, unweighted."""
        x = add_noise(x0, eps, at)
        output = denoiser.raw(x, at, cond)
        said, variance = denoiser.split(output)
        if variance is None:
            raise ValueError(
                f"objective=hybrid has nothing to learn of a {denoiser.variance} variance; "
                "use simple, or variance=learned_range"
            )
        mse = mean_over_pixels((denoiser.target(x0, x, at, eps=eps) - said) ** 2)
        frozen = torch.cat([said.detach(), variance], dim=1)
        vlb = vlb_bits(denoiser.decode(frozen, x, at), x0, x, at)
        loss = _weigh(self.weight, self.min_snr_gamma, mse, denoiser, at, logvar)
        return {"loss": loss + self.vlb_weight * at.schedule.steps * vlb, "mse": mse, "vlb": vlb}


OBJECTIVES: dict[str, Callable[..., Objective]] = {"simple": Simple, "vlb": Vlb, "hybrid": Hybrid}


def _check_weight(weight: str, gamma: float) -> None:
    if weight not in ("uniform", "min_snr"):
        raise ValueError(f"weight={weight!r} is unknown; use uniform or min_snr")
    if not gamma > 0:
        raise ValueError(f"min_snr_gamma={gamma} must be above 0; 5 is usual")


def _weigh(
    weight: Weight, gamma: float, mse: Tensor, denoiser: Denoiser, at: At, logvar: Tensor | None
) -> Tensor:
    if weight == "min_snr":
        mse = mse * min_snr_weight(denoiser.predicts, at, gamma).to(mse.dtype).to(mse.device)
    return mse if logvar is None else mse / logvar.exp() + logvar

"""Reconstruction guidance: what is known of a picture pulls the predicted x0, through the network's gradient.

DPS: Chung et al. 2023, arXiv:2209.14687, Algorithm 1. PiGDM: Song, Vahdat, Mardani, Kautz 2023,
"Pseudoinverse-guided diffusion models for inverse problems", ICLR. Both change a denoiser, so every sampler
takes them; a call costs a forward and a backward pass. Clip outside of them: a clipped x0 has no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At


class Known(Protocol):
    """Something that is known of x0."""

    def missing(self, x0: Tensor) -> Tensor:
        """What is known less what x0 (n B, C, H, W) shows of it: (n B, ...), all 0 where the two agree.

        n copies of a batch of B may lie behind each other, as under classifier-free guidance.
        """
        ...


@dataclass(frozen=True, eq=False)
class Measured:
    """Any differentiable measurement, such as the pixels of decoded latents: x0 -> known - measured(x0)."""

    residual: Callable[[Tensor], Tensor]

    def missing(self, x0: Tensor) -> Tensor:
        """The residual."""
        return self.residual(x0)


@dataclass(frozen=True, eq=False)
class Look:
    """What a denoiser says about x, how far that is from what is known, and how x would mend it."""

    prediction: Prediction
    missing: Tensor
    """(B, ...) r."""
    gradient: Tensor
    """(B, C, H, W) of |r|^2 / 2 over x."""


def look(denoise: Denoise, known: Known, x: Tensor, at: At, cond: Condition) -> Look:
    """One forward pass and one backward pass, in at least float32 with autocast off; no gradient is kept."""
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        place = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_(True)
        prediction = denoise(place, at, cond)
        if not prediction.x0.requires_grad:
            raise ValueError(
                "the denoiser keeps no gradient to x, which pulls; use one that does not detach it"
            )
        missing = known.missing(prediction.x0)
        missing = missing.to(torch.promote_types(missing.dtype, torch.float32))
        gradient = torch.zeros_like(place)
        if missing.requires_grad:  # else nothing that depends on x is known
            (gradient,) = torch.autograd.grad(0.5 * missing.square().sum(), place)
    told = {name: value.detach() for name, value in vars(prediction).items() if value is not None}
    return Look(Prediction(**told), missing.detach(), gradient)


def move_x0(prediction: Prediction, by: Tensor, at: At) -> Prediction:
    """x0 + by, eps and mean re-derived, the variance as it was. Where by is 0 nothing changes to the bit."""
    mean = None if prediction.mean is None else prediction.mean + at.scales.coef_x0 * by
    eps = prediction.eps - by / at.scales.sigma_ve
    return replace(prediction, x0=prediction.x0 + by, eps=eps, mean=mean)


def dps(denoise: Denoise, known: Known, *, scale: float = 2.0) -> Denoise:
    """x_{i-1} - zeta grad |r|, r = known - x0 as measured: posterior sampling (DPS Algorithm 1).

    zeta = scale sqrt(C H W) / S: all S steps together may move a pixel by `scale`, root mean square, whatever
    the number of steps and the size (the published 1 a step is 2.3, at 1000 steps of 256x256x3). No step goes
    further than to where |r| would be 0 if it were linear; the published ones overshoot there. That is the
    move of ancestral sampling: the x0 that leads to it is what other samplers get. scale 0 is off.
    """
    _check_scale(scale)
    if scale == 0:
        return denoise

    def pulled(x: Tensor, at: At, cond: Condition) -> Prediction:
        seen = look(denoise, known, x, at, cond)
        square = seen.missing.square().flatten(1).sum(1)
        zeta = scale * x[0].numel() ** 0.5 / at.schedule.steps
        # grad |r| = gradient / |r|; |r| falls to 0 within a move of |r|^2 / |gradient|^2 times the gradient.
        factor = torch.minimum(zeta / square.sqrt(), square / seen.gradient.square().flatten(1).sum(1))
        factor = torch.where(square > 0, factor, 0).view(at.scales.alpha.shape)
        return move_x0(seen.prediction, -factor * seen.gradient / at.scales.coef_x0, at)

    return pulled


def pigdm(denoise: Denoise, known: Known, *, variance: float = 1.0, scale: float = 1.0) -> Denoise:
    """x0 + scale (sigma^2 / alpha) grad log N(r; 0, v_t): pseudoinverse guidance without measurement noise.

    r = known - x0 as measured, in x0's unit: what a projection sees, or nearly. v_t = variance sigma^2 /
    (alpha^2 variance + sigma^2) is what is not known of a pixel of `variance` at this noise (PiGDM section 3;
    1 there). Exact where pixels are independent normals of this variance. Those of pictures are not: a move
    that would overshoot ends where |r| is least on its line. scale 0 is off.
    """
    _check_scale(scale)
    if not variance > 0:
        raise ValueError(f"variance={variance} of the data's pixels is not positive; 1 is usual")
    if scale == 0:
        return denoise

    def pulled(x: Tensor, at: At, cond: Condition) -> Prediction:
        seen = look(denoise, known, x, at, cond)
        return move_x0(seen.prediction, scale * pseudoinverse_move(seen, known, at, variance), at)

    return pulled


def pseudoinverse_move(seen: Look, known: Known, at: At, variance: float) -> Tensor:
    """(sigma^2 / alpha) grad log N(r; 0, v_t), shortened to where |r| is least on its line, or to nothing."""
    move = -at.cast(_gain(at, variance)) * seen.gradient
    # Far from independent pixels the gradient is too long by their correlations, and at much noise by what a
    # network gets wrong, divided by alpha.
    mended = (seen.missing - known.missing(seen.prediction.x0 + move)).flatten(1)
    share = (mended * seen.missing.flatten(1)).sum(1) / mended.square().sum(1)
    return share.nan_to_num(nan=1.0).clamp(0, 1).view(at.scales.alpha.shape) * move


def unknown_variance(at: At, variance: float) -> Tensor:
    """v_t = variance sigma^2 / (alpha^2 variance + sigma^2): of x0 given x_t, (B,) float64 on the CPU."""
    return variance * (1 - at.alpha_bar) / (at.alpha_bar * variance + 1 - at.alpha_bar)


def _gain(at: At, variance: float) -> Tensor:
    """sigma^2 / (alpha v_t); 0 where no signal is left, and x says nothing about x0."""
    gain = (1 - at.alpha_bar) / (at.alpha_bar.sqrt() * unknown_variance(at, variance))
    return torch.where(at.alpha_bar > 0, gain, 0)


def _check_scale(scale: float) -> None:
    if not scale >= 0:
        raise ValueError(f"scale={scale} is not a strength; use 0 (off) or more")

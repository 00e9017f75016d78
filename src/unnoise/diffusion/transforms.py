"""Denoiser -> denoiser: changes to the predicted x0. Not for latents, whose range is open.

Dynamic thresholding: Saharia et al. 2022 (Imagen), arXiv:2205.11487.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import Denoise, Prediction, eps_from_x0
from unnoise.diffusion.schedule import At


def clip_x0(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """x0 clamped to [low, high], eps re-derived from it; `mean`, where a network predicts it, stays (ADM)."""

    def clipped(x: Tensor, at: At, cond: Condition) -> Prediction:
        prediction = denoise(x, at, cond)
        x0 = prediction.x0.clamp(low, high)
        return replace(prediction, x0=x0, eps=eps_from_x0(x, x0, at))

    return clipped


def dynamic_threshold(denoise: Denoise, percentile: float = 0.995) -> Denoise:
    """x0 clamped to [-s, s] over s = max(1, the percentile of |x0|) of each picture (Imagen section 2.3)."""
    if not 0 < percentile <= 1:
        raise ValueError(f"percentile={percentile} is not a share of the pixels; use a number in (0, 1]")

    def thresholded(x: Tensor, at: At, cond: Condition) -> Prediction:
        prediction = denoise(x, at, cond)
        s = prediction.x0.flatten(1).abs().quantile(percentile, dim=1).clamp(min=1)
        s = s.view(-1, *(1,) * (x.ndim - 1))
        x0 = prediction.x0.clamp(-s, s) / s
        return replace(prediction, x0=x0, eps=eps_from_x0(x, x0, at))

    return thresholded


def quantize_x0(denoise: Denoise, quantize: Callable[[Tensor], Tensor]) -> Denoise:
    """x0 moved to the nearest codes by `quantize`; eps stays as predicted (LDM's quantize_denoised)."""

    def quantized(x: Tensor, at: At, cond: Condition) -> Prediction:
        prediction = denoise(x, at, cond)
        return replace(prediction, x0=quantize(prediction.x0))

    return quantized

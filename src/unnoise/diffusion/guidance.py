"""Steering: classifier-free and two-model guidance change a denoiser, a guide is a gradient to add.

Classifier guidance (Algorithms 1 and 2): Dhariwal, Nichol 2021, arXiv:2105.05233. Classifier-free: Ho,
Salimans 2022, arXiv:2207.12598. Two models (autoguidance): Karras et al. 2024, arXiv:2406.02507. Intervals:
Kynkaanniemi et al. 2024, arXiv:2404.07724. Scales that rise: Wang et al. 2024, arXiv:2404.13040.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.diffusion.condition import Condition, cat
from unnoise.diffusion.prediction import Denoise, Prediction, x0_from_eps
from unnoise.diffusion.schedule import At

Guide = Callable[[Tensor, At, Condition], Tensor]
"""(x_t, at, cond) -> scale * gradient of log p(y | x_t), (B, C, H, W)."""
Nothing = Callable[[Condition], Condition]
"""A condition -> what the unconditional branch is told instead."""


Course = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Strength:
    """Which share of a guidance acts at each noise level: none outside of low < sigma_ve <= high.

    Inside, all of it (constant), or more the less noise there is: 1 - a (linear) or (1 + cos(pi a)) / 2
    (cosine), with a = atan(sigma_ve) / (pi / 2), 1 for pure noise and 0 for a picture.
    """

    low: float = 0.0
    high: float = math.inf
    course: Course = "constant"

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(
                f"interval=({self.low}, {self.high}] is empty; give 0 <= low < high, in sigma/alpha"
            )
        if self.course not in get_args(Course):
            raise ValueError(f"course={self.course!r} is unknown; use one of {', '.join(get_args(Course))}")

    def share(self, at: At) -> Tensor:
        """(B,) float64 in [0, 1] on the CPU."""
        sigma_ve = (1 / at.alpha_bar - 1).sqrt()
        noisy = sigma_ve.atan() / (math.pi / 2)
        share = {
            "constant": torch.ones_like(noisy),
            "linear": 1 - noisy,
            "cosine": (1 + (math.pi * noisy).cos()) / 2,
        }[self.course]
        return torch.where((sigma_ve > self.low) & (sigma_ve <= self.high), share, 0.0)


ALWAYS = Strength()


def classifier_free(denoise: Denoise, null: Nothing, scale: float, *, strength: Strength = ALWAYS) -> Denoise:
    """eps = u + scale (c - u), c told the condition, u told `null` of it (LDM: scale 1 is off).

    The two run as one batch, unconditional half first. x0 is re-derived; variance and mean are those of c, so
    clip outside of this. Where `strength` is 0 for the whole batch only c runs.
    """
    if scale == 1:
        return denoise

    def guided(x: Tensor, at: At, cond: Condition) -> Prediction:
        share = strength.share(at)
        if not share.any():
            return denoise(x, at, cond)
        both = denoise(torch.cat([x, x]), at.repeat(2), cat([null(cond), cond]))
        plain, told = _halves(both)
        return _extrapolate(plain, told, scale, share, x, at)

    return guided


def two_models(
    denoise: Denoise,
    worse: Denoise,
    scale: float,
    *,
    null: Nothing = lambda cond: cond,
    strength: Strength = ALWAYS,
) -> Denoise:
    """eps = w + scale (d - w), w another model's: an unconditional one, or a worse one (autoguidance).

    The other model is told `null` of the condition. Scale 1 is off; variance and mean are those of `denoise`.
    """
    if scale == 1:
        return denoise

    def guided(x: Tensor, at: At, cond: Condition) -> Prediction:
        told, share = denoise(x, at, cond), strength.share(at)
        if not share.any():
            return told
        return _extrapolate(worse(x, at, null(cond)), told, scale, share, x, at)

    return guided


def _extrapolate(
    plain: Prediction, told: Prediction, scale: float, share: Tensor, x: Tensor, at: At
) -> Prediction:
    """plain + (1 + share (scale - 1)) (told - plain), and exactly `told` where the share is 0."""
    whole = bool((share == 1).all())
    factor = scale if whole else at.cast(1 + share * (scale - 1))
    eps = plain.eps + factor * (told.eps - plain.eps)
    if not share.all():
        eps = torch.where((share > 0).to(x.device).view(at.scales.alpha.shape), eps, told.eps)
    return replace(told, x0=x0_from_eps(x, eps, at), eps=eps)


def _halves(both: Prediction) -> tuple[Prediction, Prediction]:
    pairs: dict[str, Any] = {
        name: (None, None) if value is None else value.chunk(2) for name, value in vars(both).items()
    }
    first, second = ({name: pair[k] for name, pair in pairs.items()} for k in (0, 1))
    return Prediction(**first), Prediction(**second)


@contextmanager
def _frozen(module: Callable[..., Tensor]) -> Iterator[None]:
    """The module's parameters take no gradient inside, so that none of its activations are kept for them."""
    parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
    thawed = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


def classifier_guide(
    classifier: Callable[[Tensor, Tensor], Tensor], scale: float, *, strength: Strength = ALWAYS
) -> Guide:
    """scale * gradient over x of log softmax(classifier(x, t))[label] (ADM Algorithms 1, 2); scale 0 is off.

    classifier: (x, t) -> logits (B, classes). Worked out in float32 with autocast off; no gradient reaches
    the parameters.
    """

    def guide(x: Tensor, at: At, cond: Condition) -> Tensor:
        if cond.label is None:
            raise ValueError("a classifier guides towards a class, and the condition has no label; give one")
        share = strength.share(at)
        if scale == 0 or not share.any():
            return torch.zeros_like(x)
        with torch.enable_grad(), _frozen(classifier), torch.autocast(x.device.type, enabled=False):
            place = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_(True)
            logits = classifier(place, at.t)
            log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
            chosen = log_p.gather(1, cond.label.view(-1, 1)).sum()
            (gradient,) = torch.autograd.grad(chosen, place)
        return at.cast(scale * share) * gradient

    return guide


def add_guides(*guides: Guide) -> Guide:
    """The sum of guides."""

    def guide(x: Tensor, at: At, cond: Condition) -> Tensor:
        return torch.stack([one(x, at, cond) for one in guides]).sum(0)

    return guide


def fold_guide(denoise: Denoise, guide: Guide) -> Denoise:
    """eps - sigma * guide, x0 re-derived and not clipped again (ADM Algorithm 2); the variance stays."""

    def folded(x: Tensor, at: At, cond: Condition) -> Prediction:
        prediction = denoise(x, at, cond)
        eps = prediction.eps - at.scales.sigma * guide(x, at, cond)
        return replace(prediction, x0=x0_from_eps(x, eps, at), eps=eps, mean=None)

    return folded

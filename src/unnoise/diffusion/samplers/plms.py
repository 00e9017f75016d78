"""Pseudo linear multistep sampling: Liu et al. 2022 (PNDM), arXiv:2202.09778, as latent diffusion's code."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction, x0_from_eps
from unnoise.diffusion.samplers.euler import euler
from unnoise.diffusion.schedule import At

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of this eps and the ones before it, newest first, by how many there are (PNDM Eq. 12)."""

Epsilons = tuple[Tensor, ...]


@dataclass(frozen=True)
class Plms:
    """DDIM's step along an Adams-Bashforth mean of the last four eps (PNDM Eq. 11, 12).

    The weights are those of equal steps: second order where neighbouring steps are about equally long, first
    elsewhere. The first step asks the network twice: improved Euler (LDM).
    """

    order: ClassVar[int | None] = 2
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def start(self) -> Epsilons:
        """No eps yet."""
        return ()

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        at: At,
        to: At,
        state: Epsilons,
        *,
        cond: Condition,
        noise: StepNoise,
        guide: Guide | None,
    ) -> tuple[Tensor, Prediction, Epsilons]:
        """To any less noisy entry; the prediction reported is the mean's."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        if state:
            said = (prediction.eps, *state)
            weights = ADAMS_BASHFORTH[len(state)]
            eps = sum((w * e for w, e in zip(weights[1:], said[1:], strict=True)), weights[0] * said[0])
        else:
            # At the next entry's t, or once more at this one's where none is left (LDM).
            ahead = to.schedule.at(to.i.clamp(min=0), x)
            eps = (prediction.eps + denoise(euler(prediction, to), ahead, cond).eps) / 2
        mean = replace(prediction, x0=x0_from_eps(x, eps, at), eps=eps)
        silent = at.alpha_bar == 0
        if silent.any():
            # Without signal x says nothing about x0: the first step is DDIM's.
            rows = silent.to(x.device).view(at.scales.alpha.shape)
            x0, eps = (torch.where(rows, *pair) for pair in ((prediction.x0, mean.x0), (prediction.eps, eps)))
            mean = replace(mean, x0=x0, eps=eps)
        # The history is of what the network said, not of the means.
        return euler(mean, to), mean, (prediction.eps, *state)[:3]

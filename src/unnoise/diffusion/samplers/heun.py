"""Heun's method on the probability-flow ODE: Karras et al. 2022, arXiv:2206.00364."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.samplers.euler import euler
from unnoise.diffusion.schedule import At


@dataclass(frozen=True)
class Heun:
    """x'/alpha' = x/alpha + (sigma_ve' - sigma_ve) (eps + eps') / 2 (Karras et al. Algorithm 1).

    eps' is predicted where Euler's step leads: two calls of the network a step, one in the last.
    """

    order: ClassVar[int | None] = 2
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def start(self) -> None:
        """No history."""

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        at: At,
        to: At,
        state: None,
        *,
        cond: Condition,
        noise: StepNoise,
        guide: Guide | None,
    ) -> tuple[Tensor, Prediction, None]:
        """To any less noisy entry; Euler's step to the landing, where no network is called."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        ahead = euler(prediction, to)
        here, there = at.alpha_bar, to.alpha_bar
        corrected = (to.i >= 0) & (here > 0)
        if not corrected.any():
            return ahead, prediction, None
        move = there.sqrt() * ((1 / there - 1).sqrt() - (1 / here - 1).sqrt())
        weight = at.cast(torch.where(corrected, 0.5 * move, 0))
        # Pictures that land in this step are asked at the entry above it, and what is said is not used.
        second = denoise(ahead, to.schedule.at(to.i.clamp(min=0), x), cond)
        change = torch.where(weight == 0, 0, weight * (second.eps - prediction.eps))
        return ahead + change, prediction, None

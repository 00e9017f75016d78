"""Euler's method on the probability-flow ODE, dx/dsigma = eps in x/alpha and sigma_ve: Karras et al. 2022,
arXiv:2206.00364, Eq. 1, 3.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At


@dataclass(frozen=True)
class Euler:
    """x'/alpha' = x/alpha + (sigma_ve' - sigma_ve) eps (Karras et al. Algorithm 1, lines 4, 5).

    The same as DDIM without noise, which has more options: this is the name that others know it by.
    """

    order: ClassVar[int | None] = 1
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
        """To any less noisy entry."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        return euler(prediction, to), prediction, None


def euler(prediction: Prediction, to: At) -> Tensor:
    """Where a prediction leads: x' = alpha' (x0 + sigma_ve' eps), as x/alpha is x0 + sigma_ve eps.

    Written so, a start without any signal, whose x/alpha is infinite, and a landing without noise are no
    special cases.
    """
    return to.scales.alpha * prediction.x0 + to.scales.sigma * prediction.eps

"""Ancestral sampling: Ho, Jain, Abbeel 2020, arXiv:2006.11239, Algorithm 2; guided as Dhariwal, Nichol 2021,
arXiv:2105.05233, Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction, reverse
from unnoise.diffusion.samplers.ddim import check_temperature
from unnoise.diffusion.schedule import At


def check_neighbours(at: At, to: At) -> None:
    """Refuse a move that is not one entry down."""
    if to.schedule is not at.schedule or not bool((to.i == at.i - 1).all()):
        raise ValueError(
            f"ancestral sampling goes from entry {at.i[0]} to {at.i[0] - 1}, not {to.i[0]}; "
            "respace the schedule to leave entries out"
        )


@dataclass(frozen=True)
class Ddpm:
    """x_{i-1} = mean + sqrt(variance) z, the mean shifted by variance * guide."""

    guide_at: Literal["x_t", "mean"] = "x_t"
    """Where the guide is worked out: at x_t as in ADM's code, or at the predicted mean as in its paper."""
    temperature: float = 1.0
    """Factor of the noise (latent diffusion)."""

    order: ClassVar[int | None] = None
    shifts_mean: ClassVar[bool] = True
    ascends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

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
        """One entry down; no noise is added on landing at alpha_bar 1."""
        check_neighbours(at, to)
        prediction = denoise(x, at, cond)
        reversal = reverse(prediction, x, at)
        mean = reversal.mean
        if guide is not None:
            mean = mean + reversal.variance * guide(x if self.guide_at == "x_t" else mean, at, cond)
        clean = to.alpha_bar == 1
        if clean.all():
            return mean, prediction, None
        std = self.temperature * (0.5 * reversal.log_variance).exp()
        if clean.any():
            std = std * at.cast((~clean).double())
        return mean + std * noise(x), prediction, None

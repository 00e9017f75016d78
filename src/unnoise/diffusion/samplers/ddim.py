"""Implicit sampling and its inversion: Song, Meng, Ermon 2021, arXiv:2010.02502."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At


@dataclass(frozen=True)
class Ddim:
    """x' = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std z (DDIM Eq. 12), std eta times the posterior's."""

    eta: float = 0.0
    """0 is deterministic, 1 has the noise of ancestral sampling."""

    order: ClassVar[int | None] = 1
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta} is outside 0 (deterministic) to 1 (ancestral noise)")

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
        """To any less noisy entry; noise is drawn only where some is added."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        if self.eta == 0:
            return to.scales.alpha * prediction.x0 + to.scales.sigma * prediction.eps, prediction, None
        here, there = at.alpha_bar, to.alpha_bar
        # In float64: float32 loses 1 - here/there, the noise of a short step, to cancellation.
        variance = self.eta**2 * (1 - there) / (1 - here) * (1 - here / there)
        direction = at.cast((1 - there - variance).clamp(min=0).sqrt())
        x = to.scales.alpha * prediction.x0 + direction * prediction.eps
        if variance.any():
            x = x + at.cast(variance.sqrt()) * noise(x)
        return x, prediction, None


@dataclass(frozen=True)
class DdimInversion:
    """x' = alpha' x0 + sigma' eps to the noisier neighbour: the noise that `Ddim` turns into this picture.

    Walks `schedule.ascent`; a clean picture stands for x at entry 0, as in ADM's ddim_reverse_sample.
    """

    order: ClassVar[int | None] = 1
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = True

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
        """To any noisier entry, pure noise included."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        return to.scales.alpha * prediction.x0 + to.scales.sigma * prediction.eps, prediction, None

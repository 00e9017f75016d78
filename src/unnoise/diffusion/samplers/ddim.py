"""Implicit sampling and its inversion: Song, Meng, Ermon 2021, arXiv:2010.02502."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At


def check_temperature(temperature: float) -> None:
    """Refuse a factor of the noise that is none."""
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} is not a factor of noise; use 0 or more, 1 is usual")


@dataclass(frozen=True)
class Ddim:
    """x' = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std z (DDIM Eq. 12), std eta times the posterior's."""

    eta: float = 0.0
    """0 is deterministic, 1 has the noise of ancestral sampling."""
    temperature: float = 1.0
    """Factor of that noise (latent diffusion): below 1 fewer and plainer pictures."""

    order: ClassVar[int | None] = 1
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta} is outside 0 (deterministic) to 1 (ancestral noise)")
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
            x = x + at.cast(self.temperature * variance.sqrt()) * noise(x)
        return x, prediction, None


@dataclass(frozen=True)
class DdimInversion:
    """x' = alpha' x0 + sigma' eps to the noisier neighbour: the noise that `Ddim` turns into this picture.

    Walks `schedule.ascent`. Without corrections a clean picture stands for x at entry 0, as in ADM's
    ddim_reverse_sample. The predictions of the way up are not those of the way down, which is its error; a
    correction asks for the prediction at x' and moves x' by what `Ddim` from there misses x by (a fixed-point
    iteration), which raises the order of the round trip by one and costs a call.
    """

    corrections: int = 0
    """Calls of the network a move, besides the first."""

    order: ClassVar[int | None] = 1
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.corrections < 0:
            raise ValueError(f"corrections={self.corrections} is too small; use 0 (none) or more")

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
        """To any noisier entry; to pure noise without corrections. From the landing, where no network is
        called, the first correction is the first guess.
        """
        assert guide is None, "run folds the guide"
        clean = bool((at.i < 0).any())
        # Where the signal is gone, nothing can be predicted and nothing corrected.
        corrections = 0 if bool((to.alpha_bar == 0).any()) else self.corrections
        if clean:
            assert bool((at.i < 0).all()), "all pictures leave the landing together"
            corrections = max(1, corrections)
            there = at.cast((to.alpha_bar / at.alpha_bar).sqrt()) * x
        else:
            prediction = denoise(x, at, cond)
            there = to.scales.alpha * prediction.x0 + to.scales.sigma * prediction.eps
        for _ in range(corrections):
            prediction = denoise(there, to, cond)
            missed = x - (at.scales.alpha * prediction.x0 + at.scales.sigma * prediction.eps)
            there = there + at.cast((to.alpha_bar / at.alpha_bar).sqrt()) * missed
        return there, prediction, None

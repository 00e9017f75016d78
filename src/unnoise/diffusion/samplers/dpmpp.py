"""DPM-Solver++, multistep, with or without noise: Lu et al. 2022, arXiv:2211.01095.

In h = lambda' - lambda, lambda = log(alpha / sigma), with D = x0 predicted now, D1 and D2 before:
x' = (sigma'/sigma) e^(-eta h) x + alpha' (1 - e^(-g)) (D + ...) + sigma' sqrt(1 - e^(-2 eta h)) z,
g = (1 + eta) h. eta 0 is the paper's ODE solver (section 4), eta 1 its SDE solver (section 5); the
form between the two, and the third-order noisy one, are k-diffusion's.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At


def log_snr(at: At) -> Tensor:
    """lambda = log(alpha / sigma), (B,) float64 on the CPU: -inf without signal, inf without noise."""
    return 0.5 * (at.alpha_bar.log() - torch.log1p(-at.alpha_bar))


@dataclass(frozen=True, eq=False)
class Move:
    """The step `at` -> `to` in log-SNR; every number (B,) float64 on the CPU."""

    h: Tensor
    g: Tensor
    keep: Tensor
    """Factor of x."""
    gain: Tensor
    """Factor of the predicted x0."""
    std: Tensor
    """Factor of the noise."""


def move(at: At, to: At, eta: float) -> Move:
    """h and the coefficients of the first-order step (DPM-Solver++ Eq. 9 at n = 1; eta 1: its SDE form)."""
    h = log_snr(to) - log_snr(at)
    sigma, sigma_to = (1 - at.alpha_bar).sqrt(), (1 - to.alpha_bar).sqrt()
    std = sigma_to * (-torch.expm1(-2 * eta * h)).sqrt() if eta else torch.zeros_like(h)
    return Move(
        h=h,
        g=(1 + eta) * h,
        # A power of e^-h, not e^(-eta h): h is infinite at a clean landing.
        keep=sigma_to / sigma * (-h).exp() ** eta,
        gain=-to.alpha_bar.sqrt() * torch.expm1(-(1 + eta) * h),
        std=std,
    )


@dataclass(frozen=True, eq=False)
class Past:
    """An earlier prediction."""

    x0: Tensor
    log_snr: Tensor


def _check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta} is outside 0 (the ODE) to 1 (the SDE)")


def _finish(x: Tensor, at: At, moved: Move, noise: StepNoise) -> Tensor:
    return x + at.cast(moved.std) * noise(x) if bool(moved.std.any()) else x


@dataclass(frozen=True)
class Dpmpp2M:
    """x' = ... (D + (h / 2 h1) (D - D1)), h1 the last step's h: DPM-Solver++(2M) Algorithm 2; 2M-SDE.

    The first step and one to a clean landing are of first order.
    """

    eta: float = 0.0
    """0 is deterministic (2M), 1 has the noise of the diffusion SDE (2M-SDE)."""

    order: ClassVar[int | None] = 2
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_eta(self.eta)

    def start(self) -> Past | None:
        """No prediction yet."""
        return None

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        at: At,
        to: At,
        state: Past | None,
        *,
        cond: Condition,
        noise: StepNoise,
        guide: Guide | None,
    ) -> tuple[Tensor, Prediction, Past]:
        """To any less noisy entry; noise is drawn only where some is added."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        moved, here = move(at, to, self.eta), log_snr(at)
        x = at.cast(moved.keep) * x + at.cast(moved.gain) * prediction.x0
        if state is not None:
            weight = 0.5 * moved.gain * moved.h / (here - state.log_snr)
            weight = torch.where(moved.h.isinf(), 0, weight)
            x = x + at.cast(weight) * (prediction.x0 - state.x0)
        return _finish(x, at, moved, noise), prediction, Past(prediction.x0, here)


@dataclass(frozen=True)
class Dpmpp3M:
    """x' = ... + alpha' (phi2(g) h D' - c phi3(g) h^2 D''), derivatives from the last three D: 3M; 3M-SDE.

    phi2(g) = (e^-g - 1) / g + 1, phi3(g) = phi2(g) / g - 1/2 (DPM-Solver++ Eq. 9 at n = 3). The published
    multistep code (k-diffusion, DPM-Solver, diffusers) has c = 1/2, half the term in D'' that the equation
    asks for, and so is of second order, with a smaller error than 2M; that is the default here too. Orders 1
    and 2 start it; a step to a clean landing is of first order.
    """

    eta: float = 0.0
    """0 is deterministic (3M), 1 has the noise of the diffusion SDE (3M-SDE)."""
    curvature: float = 0.5
    """c: 1/2 as published, 1 for third order."""

    order: ClassVar[int | None] = 2
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_eta(self.eta)

    def start(self) -> tuple[Past, ...]:
        """No predictions yet."""
        return ()

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        at: At,
        to: At,
        state: tuple[Past, ...],
        *,
        cond: Condition,
        noise: StepNoise,
        guide: Guide | None,
    ) -> tuple[Tensor, Prediction, tuple[Past, ...]]:
        """To any less noisy entry; noise is drawn only where some is added."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        moved, now = move(at, to, self.eta), Past(prediction.x0, log_snr(at))
        x = at.cast(moved.keep) * x + at.cast(moved.gain) * prediction.x0
        if state:
            newer, older = _parabola(moved, now, state, self.curvature)
            x = x + at.cast(to.alpha_bar.sqrt() * newer) * (now.x0 - state[0].x0)
            if len(state) > 1:
                x = x + at.cast(to.alpha_bar.sqrt() * older) * (state[0].x0 - state[1].x0)
        return _finish(x, at, moved, noise), prediction, (now, *state)[:2]


def _parabola(moved: Move, now: Past, state: tuple[Past, ...], curvature: float) -> tuple[Tensor, Tensor]:
    """Weights of D - D1 and of D1 - D2 (0 where there is no D2); both 0 where h is infinite.

    With r0 = h1/h, r1 = h2/h, a = (D - D1)/r0, b = (D1 - D2)/r1: h D' = a + (a - b) r0/(r0 + r1),
    h^2 D''/2 = (a - b)/(r0 + r1). An infinite h1 or h2, after a start without signal, drops out.
    """
    phi2 = torch.expm1(-moved.g) / moved.g + 1
    phi3 = phi2 / moved.g - 0.5
    r0 = (now.log_snr - state[0].log_snr) / moved.h
    newer, older = phi2 / r0, torch.zeros_like(r0)
    if len(state) > 1:
        r1 = (state[0].log_snr - state[1].log_snr) / moved.h
        bend = (phi2 * r0 - 2 * curvature * phi3) / (r0 + r1)
        newer, older = (phi2 + bend) / r0, -bend / r1
    landing = moved.h.isinf()
    return torch.where(landing, 0, newer), torch.where(landing, 0, older)

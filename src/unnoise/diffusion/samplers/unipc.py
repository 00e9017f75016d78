"""UniPC, multistep, for x0 with B2(h) = e^h - 1: Zhao et al. 2023, arXiv:2302.04867.

In h = lambda' - lambda, lambda = log(alpha / sigma):
x' = (sigma'/sigma) x + alpha' (1 - e^-h) (D + sum_k rho_k (D_k - D) / r_k),
D = x0 predicted at the step's start, D_k at log-SNR lambda + r_k h.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide
from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.samplers.dpmpp import Past, log_snr, move
from unnoise.diffusion.schedule import At


@dataclass(frozen=True, eq=False)
class History:
    """The last step: where it began, after correction, and what was known there, newest first."""

    x: Tensor
    at: At
    past: tuple[Past, ...]
    orders: Tensor
    """(B,) int64: of the predictor that made the step; its corrector has the same."""


@dataclass(frozen=True)
class UniPc:
    """Predict x' from the last predictions (UniP, section 3.2), correct it by its own (UniC, section 3.1).

    The prediction at x' serves the correction and the next step, so a step costs one call of the network; the
    last x is not corrected. The corrector lifts the order of accuracy of UniP-p to p + 1 (Theorem 3.1).
    """

    solver_order: int = 2
    """p: 2 for guided sampling, 3 for unguided."""

    order: ClassVar[int | None] = 3
    shifts_mean: ClassVar[bool] = False
    ascends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.solver_order not in (2, 3):
            raise ValueError(
                f"solver_order={self.solver_order} is not an order of UniPC; use 2 (guided) or 3 (unguided)"
            )

    def start(self) -> History | None:
        """No step yet."""
        return None

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        at: At,
        to: At,
        state: History | None,
        *,
        cond: Condition,
        noise: StepNoise,
        guide: Guide | None,
    ) -> tuple[Tensor, Prediction, History]:
        """To any less noisy entry."""
        assert guide is None, "run folds the guide"
        prediction = denoise(x, at, cond)
        now = Past(prediction.x0, log_snr(at))
        if state is not None:
            x = update(state.x, state.at, at, state.past, state.orders, corrected_by=now)
        past = (now, *(state.past if state else ()))[: self.solver_order]
        orders = self._orders(at, past)
        return update(x, at, to, past, orders), prediction, History(x, at, past, orders)

    def _orders(self, at: At, past: tuple[Past, ...]) -> Tensor:
        """As far as there are predictions; falling to 1 before a clean landing, where h is infinite."""
        usable = torch.stack([known.log_snr.isfinite() for known in past]).sum(0)
        orders = usable.clamp(1, self.solver_order)
        return torch.minimum(orders, at.i + 1) if at.schedule.alpha_bar_end == 1 else orders


def update(
    x: Tensor, at: At, to: At, past: tuple[Past, ...], orders: Tensor, corrected_by: Past | None = None
) -> Tensor:
    """x at `at` moved to `to`: UniP of these orders (B,), or UniC given the prediction at `to`."""
    moved, first = move(at, to, 0), past[0]
    known = list(past[1:])
    ratios = [(one.log_snr - first.log_snr) / moved.h for one in known]
    if corrected_by is not None:
        known.append(corrected_by)
        ratios.append(torch.ones_like(moved.h))
    x = at.cast(moved.keep) * x + at.cast(moved.gain) * first.x0
    if not known:
        return x
    weights = _weights(moved.h, torch.stack(ratios), orders, corrects=corrected_by is not None)
    for weight, one in zip(weights, known, strict=True):
        if bool(weight.any()):
            x = x + at.cast(moved.gain * weight) * (one.x0 - first.x0)
    return x


def _weights(h: Tensor, ratios: Tensor, orders: Tensor, *, corrects: bool) -> Tensor:
    """rho_k / r_k, (K, B): a picture of order p uses the p - 1 newest, and the last, 1, where it corrects."""
    weights = torch.zeros_like(ratios)
    for p in sorted(set(orders.tolist())):
        rows = (orders == p).nonzero().flatten()
        used = list(range(p - 1)) + ([len(ratios) - 1] if corrects else [])
        if not used:
            continue
        r = ratios[used][:, rows]
        solved = _solve(h[rows], r) / r
        for k, row in zip(used, solved, strict=True):
            weights[k, rows] = row
    return weights


def _solve(h: Tensor, r: Tensor) -> Tensor:
    """rho (n, B): sum_k rho_k r_k^(m-1) = m! h phi_{m+1}(h) / B2(h), m = 1..n (UniPC Theorem 3.1).

    One unknown is 1/2 whatever h, which has the same order. For x0, h enters as -h.
    """
    if len(r) == 1:
        return torch.full_like(r, 0.5)
    z, wanted, factorial = -h, [], 1.0
    first = torch.expm1(z)
    phi = first / z - 1
    for m in range(1, len(r) + 1):
        wanted.append(phi * factorial / first)
        factorial *= m + 1
        phi = phi / z - 1 / factorial
    matrix = torch.stack([r**m for m in range(len(r))])
    solved: Tensor = torch.linalg.solve(matrix.permute(2, 0, 1), torch.stack(wanted, 1))
    return solved.T

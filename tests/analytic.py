"""Data whose every expectation is known: Gaussians and mixtures of them, with their exact denoisers.

q(x_t) of N(m, v) is N(alpha m, alpha^2 v + sigma^2), so E[x0 | x_t], the score, the classifier p(k | x_t) and
the solution of the probability-flow ODE have closed forms. All in the dtype of x; tests use float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import Prediction, eps_from_x0
from unnoise.diffusion.schedule import At, NoiseSchedule


def step_log_variance(at: At, spread: Tensor) -> Tensor:
    """Of x_{i-1} given x_i: the posterior's variance and what is not known of x0, `spread` its variance."""
    known = torch.where((at.i == 0).view(at.scales.alpha.shape), 0, at.scales.variance)
    return (known + at.scales.coef_x0**2 * spread).log()


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent pixels N(mean, variance), broadcast to (C, H, W); `optimal` adds a step's best variance."""

    mean: Tensor
    variance: Tensor
    optimal: bool = False

    def x0(self, x: Tensor, at: At) -> Tensor:
        """E[x0 | x_t]."""
        alpha, sigma = at.scales.alpha, at.scales.sigma
        mean, variance = self.mean.to(x), self.variance.to(x)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return mean + gain * (x - alpha * mean)

    def spread(self, at: At) -> Tensor:
        """Var[x0 | x_t]."""
        alpha, sigma = at.scales.alpha, at.scales.sigma
        variance = self.variance.to(alpha)
        return variance * sigma**2 / (alpha**2 * variance + sigma**2)

    def __call__(self, x: Tensor, at: At, cond: Condition) -> Prediction:
        x0 = self.x0(x, at)
        log_variance = None
        if self.optimal:
            log_variance = step_log_variance(at, self.spread(at)).expand_as(x)
        return Prediction(x0, eps_from_x0(x, x0, at), log_variance=log_variance)

    def flow(self, x: Tensor, at: At, to: At) -> Tensor:
        """The probability-flow ODE's solution from `at` to `to`: (x - alpha mean) / std of q(x_t) stays."""

        def std(place: At) -> Tensor:
            return (place.scales.alpha**2 * self.variance.to(x) + place.scales.sigma**2).sqrt()

        standard = (x - at.scales.alpha * self.mean.to(x)) / std(at)
        return to.scales.alpha * self.mean.to(x) + std(to) * standard


@dataclass(frozen=True, eq=False)
class Mixture:
    """Components k, weight w_k, pixels N(mean_k, variance_k): means (K, C, H, W), variances and weights (K,).

    Told a label, it is that component's denoiser; told none, the mixture's. `optimal` adds the best variance
    of a step for every pixel, as a network that learned it would.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    optimal: bool = False

    def component(self, k: int) -> Gaussian:
        return Gaussian(self.means[k], self.variances[k])

    def logits(self, x: Tensor, at: At) -> Tensor:
        """log w_k q_k(x_t), (B, K): the exact noisy classifier."""
        alpha, sigma = at.scales.alpha, at.scales.sigma
        variance = alpha[:, 0, 0] ** 2 * self.variances.to(x) + sigma[:, 0, 0] ** 2
        square = ((x[:, None] - alpha[:, None] * self.means.to(x)) ** 2).flatten(2).sum(-1)
        return self.weights.to(x).log() - square / (2 * variance) - 0.5 * x[0].numel() * variance.log()

    def __call__(self, x: Tensor, at: At, cond: Condition) -> Prediction:
        experts = torch.stack([self.component(k).x0(x, at) for k in range(len(self.weights))], 1)
        if cond.label is None:
            share = self.logits(x, at).softmax(1)
        else:
            share = nn.functional.one_hot(cond.label, len(self.weights)).to(x)
        share = share.view(*share.shape, 1, 1, 1)
        x0 = (share * experts).sum(1)
        if not self.optimal:
            return Prediction(x0, eps_from_x0(x, x0, at))
        spreads = torch.stack([self.component(k).spread(at) for k in range(len(self.weights))], 1)
        spread = (share * (spreads + (experts - x0[:, None]) ** 2)).sum(1)
        return Prediction(x0, eps_from_x0(x, x0, at), log_variance=step_log_variance(at, spread))

    def given(self, known: Tensor, project: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of x0 with the orthogonal projection of known (1, C, H, W).

        Component k keeps m_k + P (known - m_k), v_k (1 - P); its weight is multiplied by its density there.
        """
        shape, size = self.means.shape[1:], self.means[0].numel()
        seen = project(torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1)
        off = project(known - self.means).flatten(1)
        variances = self.variances.double()
        rank = seen.trace()
        log_weights = self.weights.log() - off.square().sum(1) / (2 * variances) - rank / 2 * variances.log()
        weights = log_weights.softmax(0)
        means = self.means.flatten(1) + off
        mean = weights @ means
        between = (weights[:, None] * (means - mean)).T @ (means - mean)
        within = (weights @ variances) * (torch.eye(size, dtype=torch.float64) - seen)
        return mean, between + within

    def sample(self, k: int, count: int, generator: torch.Generator) -> Tensor:
        """Draws of component k, float64."""
        shape = (count, *self.means.shape[1:])
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.means[k] + self.variances[k].sqrt() * z


class Network(nn.Module):
    """An exact denoiser as a network that predicts eps, x0, v or the mean, told t = i of `schedule`.

    `gain` and `bias`, one each to start with 1 and 0, spoil the answer.
    """

    def __init__(
        self, data: Gaussian, schedule: NoiseSchedule, predicts: str = "eps", variance: str = "fixed_small"
    ) -> None:
        super().__init__()
        self.data, self.schedule, self.predicts, self.variance = data, schedule, predicts, variance
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.wider = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        at = self.schedule.at(t.round().long(), x)
        x0 = self.data.x0(x, at)
        eps = eps_from_x0(x, x0, at)
        scales = at.scales
        answer = {
            "eps": eps,
            "x0": x0,
            "v": scales.alpha * eps - scales.sigma * x0,
            "mean": scales.coef_x0 * x0 + scales.coef_xt * x,
        }[self.predicts]
        answer = self.gain * answer + self.bias
        if not self.variance.startswith("learned"):
            return answer
        best = step_log_variance(at, self.data.spread(at)) + self.wider
        if self.variance == "learned_range":
            # log_variance = f log beta + (1 - f) log posterior variance, f = (v + 1) / 2.
            fraction = (best - scales.log_variance) / (scales.log_beta - scales.log_variance)
            best = 2 * fraction - 1
        return torch.cat([answer, best.expand_as(x)], 1)


GRIDS = ("uniform", "smooth", "alternating")


def grid(kind: str, steps: int, *, first: float = -3.0, last: float = 3.0) -> NoiseSchedule:
    """A schedule of `steps` moves from log(alpha / sigma) = first to a landing at `last`, whatever its size.

    uniform: equal moves; smooth: a smooth map of them; alternating: every other move is twice as long.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if kind == "smooth":
        u = u + 0.5 * torch.sin(2 * math.pi * u) / (2 * math.pi)
    if kind == "alternating":
        assert steps % 2 == 0
        moves = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(steps // 2)
        u = torch.cat([torch.zeros(1, dtype=torch.float64), moves.cumsum(0) / moves.sum()])
    alpha_bar = torch.sigmoid(2 * (last + (first - last) * u))
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    timesteps = torch.arange(steps, dtype=torch.float64)
    return NoiseSchedule(betas, timesteps, alpha_bar_end=alpha_bar[0].item())


def slope(steps: list[int], errors: list[float]) -> float:
    """Order of convergence: minus the least-squares slope of log(error) over log(steps)."""
    x = torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    return -((x - x.mean()) * (y - y.mean())).sum().item() / ((x - x.mean()) ** 2).sum().item()

"""Which entries to train on.

Loss-aware importance sampling: Nichol, Dhariwal 2021, arXiv:2102.09672, Eq. 18.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class TimestepSampler(Protocol):
    """A distribution over entries 0..S-1, and how it learns from losses."""

    def probabilities(self) -> Tensor:
        """(S,) float64, summing to 1."""
        ...

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Entries (B,) int64 and importance weights (B,) float32, on the CPU, of u (B,) in [0, 1)."""
        ...

    def update(self, i: Tensor, losses: Tensor) -> None:
        """Learn from the unweighted losses (B,) of the entries i (B,)."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All that was learnt."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        ...


def draw(probabilities: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Entries by inverse distribution function, and their importance weights 1 / (S p).

    u: (B,) in [0, 1), the caller's randomness. Returns i (B,) int64 and weights (B,) float32, on the CPU.
    """
    steps = len(probabilities)
    edges = probabilities.cumsum(0)
    i = torch.searchsorted(edges / edges[-1], u.to("cpu", torch.float64), right=True).clamp(max=steps - 1)
    return i, (1 / (steps * probabilities[i])).float()


@dataclass(frozen=True)
class Uniform:
    """Every entry alike."""

    steps: int

    def probabilities(self) -> Tensor:
        """(S,) float64."""
        return torch.full((self.steps,), 1 / self.steps, dtype=torch.float64)

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """floor(u S) and weights of 1; u (B,) in [0, 1)."""
        i = (u.to("cpu", torch.float64) * self.steps).long().clamp(max=self.steps - 1)
        return i, torch.ones(len(u))

    def update(self, i: Tensor, losses: Tensor) -> None:
        """Nothing to learn."""

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing to restore."""


class LossSecondMoment:
    """p as sqrt(mean of the last `history` squared losses), mixed with a uniform share (IDDPM Eq. 18).

    Uniform until every entry has `history` losses.
    """

    def __init__(self, steps: int, history: int = 10, uniform_prob: float = 0.001) -> None:
        if steps < 1 or history < 1 or not 0 <= uniform_prob <= 1:
            raise ValueError(
                f"steps={steps}, history={history}, uniform_prob={uniform_prob}: use 1 or more steps and "
                "losses, and a share in [0, 1]"
            )
        self.steps, self.history, self.uniform_prob = steps, history, uniform_prob
        self._losses = torch.zeros(steps, history, dtype=torch.float64)
        self._seen = torch.zeros(steps, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """(S,) float64."""
        uniform = torch.full((self.steps,), 1 / self.steps, dtype=torch.float64)
        if (self._seen < self.history).any():
            return uniform
        weights = (self._losses**2).mean(1).sqrt()
        total = weights.sum()
        if total == 0:
            return uniform
        return weights / total * (1 - self.uniform_prob) + uniform * self.uniform_prob

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Entries (B,) int64 and the weights (B,) float32 that keep the loss unbiased; u (B,) in [0, 1)."""
        return draw(self.probabilities(), u)

    def update(self, i: Tensor, losses: Tensor) -> None:
        """Remember the unweighted losses (B,) of the entries i (B,), in order, of all ranks."""
        for entry, loss in zip(i.tolist(), losses.detach().double().tolist(), strict=True):
            self._losses[entry, self._seen[entry] % self.history] = loss
            self._seen[entry] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The losses remembered and how many each entry has seen."""
        return {"losses": self._losses.clone(), "seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on as the sampler that gave this state."""
        shape = tuple(state["losses"].shape)
        if shape != (self.steps, self.history):
            raise ValueError(
                f"this state is of {shape} losses, not ({self.steps}, {self.history}); use its settings"
            )
        self._losses, self._seen = state["losses"].clone(), state["seen"].clone()


TIMESTEPS: dict[str, type[Uniform] | type[LossSecondMoment]] = {
    "uniform": Uniform,
    "loss_second_moment": LossSecondMoment,
}

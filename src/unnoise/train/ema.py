"""Averages of the weights over the steps of training."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from unnoise.config.schema import EmaConfig


class Ema:
    """Several exponential moving averages of the same weights: average <- rate average + (1 - rate) weights.

    They start as copies of the weights. With warm-up the n-th update (from 1) uses min(rate, (1 + n) / (10 +
    n)), as latent-diffusion does; without it, rate from the first, as guided-diffusion does.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: EmaConfig) -> None:
        self.names = list(weights)
        self.rates = tuple(config.rates)
        self.warmup = config.warmup
        self.updates = 0
        self.averages = [[w.detach().clone() for w in weights.values()] for _ in self.rates]

    @torch.no_grad()
    def update(self, weights: Iterable[Tensor]) -> None:
        """Move every average towards the weights, given in the order of the first ones."""
        self.updates += 1
        current = list(weights)
        for rate, average in zip(self.rates, self.averages, strict=True):
            torch._foreach_lerp_(average, current, 1 - self.rate_now(rate))

    def rate_now(self, rate: float) -> float:
        """The rate in use at the present count of updates."""
        n = self.updates
        return min(rate, (1 + n) / (10 + n)) if self.warmup else rate

    def weights(self, index: int = 0) -> dict[str, Tensor]:
        """One average by name; shares memory with it."""
        return dict(zip(self.names, self.averages[index], strict=True))


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The trained tensors of a network by name: its parameters, detached, sharing memory."""
    return {name: p.detach() for name, p in network.named_parameters()}

"""Learned log variances of what a network misses at each t, by which its errors are weighed.

Rombach et al. 2022 (arXiv 2112.10752), the code's learn_logvar: error / exp(logvar[t]) + logvar[t]. At its
minimum logvar[t] is the log of the mean error at t, so that every t counts alike in the gradient.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NETWORK = "network."
"""Prefix of the network's tensors among those that are trained."""


class WithLogvar(nn.Module):
    """What the loop optimises: a network, and a log variance for each entry of its schedule."""

    def __init__(self, network: nn.Module, steps: int, start: float) -> None:
        super().__init__()
        self.network = network
        self.logvar = nn.Parameter(torch.full((steps,), start))

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """As the network's own."""
        said: Tensor = self.network(x, t, cond)
        return said

    def at(self, i: Tensor) -> Tensor:
        """Log variances (B,) at entries i of the schedule."""
        return self.logvar[i.to(self.logvar.device)]


def inner(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own weights among those that are trained."""
    return {name.removeprefix(NETWORK): value for name, value in weights.items() if name.startswith(NETWORK)}

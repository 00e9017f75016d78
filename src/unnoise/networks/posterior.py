"""The Gaussian over latents that a KL first stage makes of a picture (Kingma & Welling 2014)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOGVAR_RANGE = (-30.0, 20.0)
"""Log variances are clamped to this (LDM's code)."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """N(mean, exp(logvar)) at every position and channel; mean, logvar: (B, C, H, W)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of(cls, moments: Tensor) -> "Posterior":
        """The halves of (B, 2C, H, W) along channels; log variances are clamped to `LOGVAR_RANGE`."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(*LOGVAR_RANGE))

    @property
    def std(self) -> Tensor:
        """exp(logvar / 2)."""
        return torch.exp(0.5 * self.logvar)

    def sample(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """mean + std * z for unit noise z of the same shape.

        noise (B,) adds to the variance the square of so many deviations of a channel's means over a picture,
        through which no gradient goes.
        """
        if noise is None:
            return self.mean + self.std * z
        spread = self.mean.detach().std((2, 3), keepdim=True)
        return self.mean + (self.std**2 + (noise[:, None, None, None] * spread) ** 2).sqrt() * z

    def kl(self) -> Tensor:
        """KL to N(0, 1) in nats, summed over a picture's latents: (B,)."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).sum((1, 2, 3))

    def kl_to(self, other: "Posterior") -> Tensor:
        """KL to another such Gaussian in nats, summed over a picture's latents: (B,)."""
        moved = (self.mean - other.mean) ** 2 / other.logvar.exp()
        spread = (self.logvar - other.logvar).exp()
        return 0.5 * (moved + spread - 1 - self.logvar + other.logvar).sum((1, 2, 3))

    def nll(self, latents: Tensor) -> Tensor:
        """-log of the density at latents in nats, summed over a picture's latents: (B,)."""
        errors = (latents - self.mean) ** 2 / self.logvar.exp()
        return 0.5 * (math.log(2 * math.pi) + self.logvar + errors).sum((1, 2, 3))

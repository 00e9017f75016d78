"""Mean and covariance of features as float64 accumulators that merge, so that batches, processes and shards
add up to the whole.

The merge is the pairwise update of Chan, Golub & LeVeque 1979 ("Updating formulae and a pairwise algorithm
for computing sample variances").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_matrix(features: Any, name: str = "features") -> Tensor:
    """Features as a finite float tensor (N, D) on their device; anything else is a ValueError."""
    x = features if isinstance(features, Tensor) else torch.from_numpy(np.ascontiguousarray(features))
    if x.ndim != 2:
        raise ValueError(f"{name} have shape {tuple(x.shape)}; expected (pictures, dimensions)")
    if not x.is_floating_point():
        x = x.double()
    # A sum is ten times as fast as looking at every number; finite ones may overflow it.
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).any(1).sum())
        raise ValueError(
            f"{name}: {bad} of {len(x)} rows are NaN or infinite; the pictures or the network are broken"
        )
    return x


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (D,) and covariance (D, D) in float64 of `n` feature vectors; n = 0 when unknown (a published
    file).
    """

    mean: Tensor
    covariance: Tensor
    n: int = 0

    def __post_init__(self) -> None:
        d = self.mean.numel()
        if self.mean.shape != (d,) or self.covariance.shape != (d, d):
            raise ValueError(
                f"mean {tuple(self.mean.shape)} and covariance {tuple(self.covariance.shape)} do not belong "
                "together; expected (D,) and (D, D)"
            )
        if not (torch.isfinite(self.mean).all() and torch.isfinite(self.covariance).all()):
            raise ValueError("the statistics hold NaN or infinite numbers; make the reference again")


class Moments:
    """Running count, mean and scatter sum (x - mean)(x - mean)^T of (N, D) features, in float64.

    `update` takes batches, `merge` another accumulator; any split and order gives the whole up to rounding.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def of(cls, features: Any, rows: Tensor | None = None, *, chunk: int = 4096) -> "Moments":
        """The moments of all rows, or of those of the indices `rows`, read in chunks."""
        x = as_matrix(features)
        moments = cls(x.shape[1])
        for begin in range(0, len(x) if rows is None else len(rows), chunk):
            part = slice(begin, begin + chunk)
            moments.update(x[part] if rows is None else x[rows[part]])
        return moments

    def update(self, features: Any) -> "Moments":
        """Add a batch (B, D)."""
        x = as_matrix(features).detach().to("cpu", torch.float64)
        if x.shape[1] != self.mean.numel():
            raise ValueError(f"features have {x.shape[1]} dimensions, this accumulator {self.mean.numel()}")
        if len(x):
            mean = x.mean(0)
            centred = x - mean
            self._add(len(x), mean, centred.T @ centred)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Add all that another accumulator has seen."""
        if other.mean.numel() != self.mean.numel():
            raise ValueError(f"cannot merge {other.mean.numel()} dimensions into {self.mean.numel()}")
        if other.n:
            self._add(other.n, other.mean, other.scatter)
        return self

    def _add(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(delta, delta, alpha=self.n * n / total)
        self.mean = self.mean + delta * (n / total)
        self.n = total

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance (divisor N - 1), as numpy.cov."""
        if self.n < 2:
            raise ValueError(f"{self.n} picture has no covariance; evaluate at least 2")
        return Gaussian(mean=self.mean, covariance=self.scatter / (self.n - 1), n=self.n)

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        return {"n": torch.tensor(self.n), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Moments":
        """The accumulator that `state` described."""
        moments = cls(state["mean"].numel())
        moments.n, moments.mean, moments.scatter = (
            int(state["n"]),
            state["mean"].clone(),
            state["scatter"].clone(),
        )
        return moments

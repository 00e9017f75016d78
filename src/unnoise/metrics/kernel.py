"""Kernel distance: the squared maximum mean discrepancy of features (Gretton et al. 2012; Binkowski et al.
2018, arXiv 1801.01401).

With Inception's pool features, 100 subsets of 1000 and the cubic kernel it is KID as torch-fidelity computes
it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unnoise.metrics.distances import blocks
from unnoise.metrics.statistics import as_matrix

GRAM_LIMIT = 4096
"""Up to this many pictures a side the kernel of all pairs is computed once and the subsets look it up."""


@dataclass(frozen=True)
class KernelDistance:
    """Mean and (population) standard deviation over the subsets; unbiased, so it may be below 0."""

    mean: float
    std: float


def polynomial_kernel(
    a: Tensor, b: Tensor, *, degree: int = 3, gamma: float | None = None, coef0: float = 1.0
) -> Tensor:
    """(gamma a b^T + coef0)^degree, gamma 1/D; float64 (N, M) from products in the features' dtype."""
    scale = 1 / a.shape[1] if gamma is None else gamma
    base: Tensor = (a @ b.T).double().mul_(scale).add_(coef0)
    out = base.clone()
    for _ in range(degree - 1):
        out.mul_(base)
    return out


def _unbiased(xx: Tensor, xy: Tensor, yy: Tensor) -> float:
    """Mean of k(x, x') over x != x', plus that of y, minus twice the mean of k(x, y)."""
    m, n = len(xx), len(yy)
    within_x = (xx.sum() - xx.trace()) / (m * (m - 1))
    within_y = (yy.sum() - yy.trace()) / (n * (n - 1))
    return float(within_x + within_y - 2 * xy.mean())


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    a, b = as_matrix(real, "real features"), as_matrix(fake, "sample features")
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"real features have {a.shape[1]} dimensions, samples {b.shape[1]}; use one network for both"
        )
    return a, b


def kernel_distance(
    *,
    real: Tensor,
    fake: Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    seed: int = 2020,
) -> KernelDistance:
    """Mean over random subsets of the unbiased MMD^2 with a polynomial kernel; torch-fidelity's defaults and
    draws.

    real, fake: (N, D). For each subset numpy's RandomState(seed) chooses `subset_size` real rows, then as
    many samples, without replacement.
    """
    a, b = _pair(real, fake)
    if subset_size < 2 or subset_size > min(len(a), len(b)):
        raise ValueError(
            f"subset_size={subset_size} does not fit {len(a)} real and {len(b)} sample features; "
            f"use 2..{min(len(a), len(b))}"
        )
    random = np.random.RandomState(seed)
    whole = max(len(a), len(b)) <= GRAM_LIMIT and max(len(a), len(b)) ** 2 <= subsets * subset_size**2

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return polynomial_kernel(x, y, degree=degree, gamma=gamma, coef0=coef0)

    grams = (kernel(a, a), kernel(a, b), kernel(b, b)) if whole else None
    values = []
    for _ in range(subsets):
        i = torch.from_numpy(random.choice(len(a), subset_size, replace=False))
        j = torch.from_numpy(random.choice(len(b), subset_size, replace=False))
        if grams is not None:
            values.append(_unbiased(grams[0][i][:, i], grams[1][i][:, j], grams[2][j][:, j]))
        else:
            x, y = a[i], b[j]
            values.append(_unbiased(kernel(x, x), kernel(x, y), kernel(y, y)))
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def kernel_distance_all(*, real: Tensor, fake: Tensor, degree: int = 3, block: int = 2048) -> float:
    """The unbiased MMD^2 over all pictures at once, no subsets and no draws; memory bounded by `block`."""
    a, b = _pair(real, fake)

    def total(x: Tensor, y: Tensor) -> float:
        return sum(
            float(polynomial_kernel(x[r], y[c], degree=degree).sum())
            for r in blocks(len(x), block)
            for c in blocks(len(y), block)
        )

    def within(x: Tensor) -> float:
        diagonal = (x.double().square().sum(1) / x.shape[1] + 1) ** degree
        return (total(x, x) - float(diagonal.sum())) / (len(x) * (len(x) - 1))

    return within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b))

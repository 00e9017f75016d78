"""Frechet distance between two Gaussians, and its value at infinitely many pictures.

Heusel et al. 2017, arXiv 1706.08500 (FID); Chong & Forsyth 2020, arXiv 1911.07023 (extrapolation). With
Inception's 2048 features it is FID, with its first seven mixed_6 channels sFID (Nash et al. 2021, arXiv
2103.03841), with any other network neither.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.metrics.statistics import Gaussian, Moments, as_matrix

BLOCK = 512


def _factor(covariance: Tensor) -> tuple[Tensor, bool]:
    """Lower L with L L^T = covariance, and whether it is exact; a deficient matrix gets the smallest diagonal
    that lets it factor.

    With fewer pictures than dimensions the covariance is singular and rounding makes it slightly indefinite.
    A diagonal of 1e-14 to 1e-9 of the mean variance moves the distance by less than the float32 rounding of
    the features does.
    """
    root, info = torch.linalg.cholesky_ex(covariance)
    if not int(info):
        return root, True
    scale = float(covariance.diagonal().mean())
    for exponent in range(-14, -8):
        jitter = torch.full_like(covariance.diagonal(), scale * 10.0**exponent)
        root, info = torch.linalg.cholesky_ex(covariance + torch.diag(jitter))
        if not int(info):
            return root, False
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt(), False


def _congruence(root: Tensor, covariance: Tensor) -> Tensor:
    """The lower triangle of root^T covariance root, skipping the blocks where the lower-triangular root is
    zero: a third of the full cost.
    """
    d = len(root)
    triangular = not bool(root.triu(1).any())
    out = torch.zeros_like(root)
    starts = range(0, d, BLOCK)
    for j in starts:
        first = j if triangular else 0
        columns = covariance[:, first:] @ root[first:, j : j + BLOCK]
        for i in starts:
            if i >= j:
                first = i if triangular else 0
                out[i : i + BLOCK, j : j + BLOCK] = root[first:, i : i + BLOCK].T @ columns[first:]
    return out


def lower_factor(covariance: Tensor) -> Tensor:
    """L with L L^T = covariance, (D, D), for a singular covariance within rounding."""
    return _factor(covariance)[0]


def trace_sqrt_product(a: Tensor, b: Tensor) -> float:
    """tr((a b)^(1/2)) of two covariances (D, D): with a = L L^T, the sum of the roots of the eigenvalues of
    L^T b L, which is symmetric.

    One Cholesky factor and `eigvalsh`; a singular covariance is never factored when the other is not.
    """
    root, exact = _factor(a)
    other = b
    if not exact:
        swapped, exact = _factor(b)
        if exact:
            root, other = swapped, a
    values = torch.linalg.eigvalsh(_congruence(root, other))
    return float(values.clamp_min(0).sqrt().sum())


def frechet_distance(*, real: Gaussian, fake: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), in float64. Symmetric; 0 for equal statistics."""
    if real.mean.numel() != fake.mean.numel():
        raise ValueError(
            f"the reference has {real.mean.numel()} features a picture and the samples {fake.mean.numel()}: "
            "they were made with different networks; use the same one on both sides"
        )
    gap = real.mean - fake.mean
    traces = real.covariance.trace() + fake.covariance.trace()
    return float(gap @ gap + traces) - 2 * trace_sqrt_product(real.covariance, fake.covariance)


@dataclass(frozen=True)
class Extrapolation:
    """A distance at finitely many pictures and the intercept of its line in 1/N."""

    value: float
    """At infinitely many pictures."""
    sizes: tuple[float, ...]
    distances: tuple[float, ...]


def extrapolate_frechet(*, real: Gaussian, fake: Tensor, seed: int = 0) -> Extrapolation:
    """The Frechet distance at infinitely many samples: its bias is linear in 1/N (Chong & Forsyth 2020).

    fake: (N, D) features. A least-squares line in 1/N through the distance of all N and the mean distances of
    the halves and quarters of one random order: disjoint parts are steadier than one subset of each size, and
    their statistics merge. Good for N of a few times D and more; below that the bias is not quite linear.
    """
    x = as_matrix(fake)
    if len(x) < 8:
        raise ValueError(f"{len(x)} samples are too few to extrapolate from; use at least 8")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    level = [Moments.of(x, rows) for rows in order.tensor_split(4)]
    sizes, distances = [], []
    while True:
        parts = [frechet_distance(real=real, fake=moments.gaussian()) for moments in level]
        sizes.append(sum(m.n for m in level) / len(level))
        distances.append(sum(parts) / len(parts))
        if len(level) == 1:
            break
        level = [a.merge(b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return Extrapolation(_intercept(sizes, distances), tuple(sizes), tuple(distances))


def _intercept(sizes: list[float], distances: list[float]) -> float:
    inverse = 1 / torch.tensor(sizes, dtype=torch.float64)
    design = torch.stack([torch.ones_like(inverse), inverse], 1)
    return float(
        torch.linalg.lstsq(design, torch.tensor(distances, dtype=torch.float64)[:, None]).solution[0]
    )

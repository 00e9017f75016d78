"""Standard errors of every metric over redrawn samples: the bootstrap (Efron 1979), the reference held fixed.

An interval is value +- 1.96 standard errors. Percentiles of the replicates would be wrong for distances:
redrawing with repeats adds the same bias again that a finite number of samples has already, so replicates lie
above the value; their spread is right.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.metrics.distances import blocks
from unnoise.metrics.frechet import lower_factor
from unnoise.metrics.kernel import polynomial_kernel
from unnoise.metrics.statistics import Gaussian, as_matrix

Z = 1.959963984540054
GROUPS = 20
"""Parts that are redrawn as wholes where there are more samples than dimensions."""
KERNEL_SAMPLES = 2000
STRIP = 256
"""Rows of a strip of a scatter matrix; all above its last column is left out: half of the memory and work."""


def interval(
    value: float, error: float, *, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """The 95 % interval value +- 1.96 error, within what the metric can be."""
    return max(low, value - Z * error), min(high, value + Z * error)


def share_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent pictures, by Wilson (1927).

    It holds the shares p from which the one found is at most 1.96 of p's standard errors away.
    """
    square = Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _spread(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).std()) if len(values) > 1 else 0.0


def _counts(n: int, replicates: int, seed: int) -> Tensor:
    """How often each of n is drawn in each replicate, (replicates, n) float64."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(replicates, n, dtype=torch.float64)
    for row in counts:
        row.index_add_(0, torch.randint(n, (n,), generator=generator), torch.ones(n, dtype=torch.float64))
    return counts


def mean_error(values: Tensor) -> float:
    """Standard error of the mean of one number a picture: what the bootstrap converges to, in closed form."""
    x = values.double()
    return float(x.var(unbiased=False).sqrt() / math.sqrt(len(x)))


def score_error(probs: Tensor, *, split: int = 5000, replicates: int = 100, seed: int = 0) -> float:
    """Of the Inception Score; splits are redrawn within themselves. probs: (N, classes)."""
    p = as_matrix(probs, "probabilities")
    scores = []
    for i, rows in enumerate(blocks(len(p), split)):
        part = p[rows].double()
        weights = _counts(len(part), replicates, seed + i).to(part) / len(part)
        marginals = weights @ part
        certainty = weights @ torch.special.xlogy(part, part).sum(1)
        scores.append((certainty - torch.special.xlogy(marginals, marginals).sum(1)).exp())
    return _spread(torch.stack(scores).mean(0).tolist())


def frechet_error(
    *, real: Gaussian, fake: Tensor, replicates: int = 100, seed: int = 0, groups: int = GROUPS
) -> float:
    """Of the Frechet distance to fixed reference statistics. fake: (N, D)."""
    return _spread(frechet_replicates(real=real, fake=fake, replicates=replicates, seed=seed, groups=groups))


def frechet_replicates(
    *, real: Gaussian, fake: Tensor, replicates: int = 100, seed: int = 0, groups: int = GROUPS
) -> list[float]:
    """Frechet distances of redrawn samples; equal seeds redraw the same rows of equally many. fake: (N, D).

    With N <= D pictures are redrawn one by one, and the roots come from a Gram matrix of those drawn. With
    more, `groups` random parts are redrawn as wholes (their scatter is summed once), at most `groups`
    replicates.
    """
    x = as_matrix(fake)
    root = lower_factor(real.covariance)
    if len(x) <= x.shape[1]:
        gap = x.cpu().double() - real.mean
        projected = gap @ root
        return [_distance_of_drawn(gap, projected, real, w) for w in _counts(len(x), replicates, seed)]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    parts = [
        _part(x[i].cpu().double() - real.mean, root) for i in order.tensor_split(min(groups, len(x) // 2))
    ]
    values = []
    for w in _counts(len(parts), min(replicates, groups), seed):
        drawn = [(float(weight), part) for weight, part in zip(w, parts, strict=True) if weight]
        n = math.fsum(weight * part.n for weight, part in drawn)
        squares = math.fsum(weight * part.squares for weight, part in drawn)
        mean = torch.stack([weight * part.total for weight, part in drawn]).sum(0) / n
        trace = (squares - n * float(mean @ mean)) / (n - 1)
        scatter = torch.zeros_like(root)
        for weight, part in drawn:
            _add_lower(scatter, part.scatter, weight)
        projected = mean @ root
        scatter.addr_(projected, projected, alpha=-n)
        values.append(_assemble(mean, trace, real, scatter / (n - 1)))
    return values


def frechet_difference_error(
    *, real: Gaussian, first: Tensor, second: Tensor, replicates: int = 100, seed: int = 0
) -> float:
    """Of the difference of two Frechet distances whose samples are paired: row k of both from one noise."""
    pairs = [
        frechet_replicates(real=real, fake=fake, replicates=replicates, seed=seed) for fake in (first, second)
    ]
    return _spread([b - a for a, b in zip(*pairs, strict=True)])


@dataclass(frozen=True, eq=False)
class _Part:
    """Sums over some samples' gaps to the real mean."""

    n: int
    total: Tensor  # (D,)
    squares: float
    scatter: list[Tensor]  # of the gaps times the real factor: its lower triangle in strips of rows


def _part(gap: Tensor, root: Tensor) -> _Part:
    z = gap @ root
    strips = [z[:, r].T @ z[:, : r.stop] for r in blocks(len(root), STRIP)]
    return _Part(len(gap), gap.sum(0), float(gap.square().sum()), strips)


def _add_lower(out: Tensor, strips: list[Tensor], weight: float) -> None:
    """Add weight times a symmetric matrix to the lower triangle of `out`, which is all that is read of it."""
    for r, strip in zip(blocks(len(out), STRIP), strips, strict=True):
        out[r, : r.stop].add_(strip, alpha=weight)


def _distance_of_drawn(gap: Tensor, projected: Tensor, real: Gaussian, weights: Tensor) -> float:
    drawn = weights > 0
    w, g, z = weights[drawn], gap[drawn], projected[drawn]
    n = float(w.sum())
    mean = (w[:, None] * g).sum(0) / n
    trace = (float((w * g.square().sum(1)).sum()) - n * float(mean @ mean)) / (n - 1)
    centred = (z - (w[:, None] * z).sum(0) / n) * (w / (n - 1)).sqrt()[:, None]
    return _assemble(mean, trace, real, centred @ centred.T)


def _assemble(gap: Tensor, trace: float, real: Gaussian, product: Tensor) -> float:
    roots = torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum()
    return float(gap @ gap) + trace + float(real.covariance.trace()) - 2 * float(roots)


def kernel_error(*, real: Tensor, fake: Tensor, replicates: int = 100, seed: int = 0) -> float:
    """Of the unbiased kernel distance; pairs of one picture with itself never count. real, fake: (N, D).

    Measured on at most 2,000 pictures a side and scaled by the root of their number.
    """
    generator = torch.Generator().manual_seed(seed)
    b = as_matrix(fake)
    a = as_matrix(real)
    chosen = b[torch.randperm(len(b), generator=generator)[:KERNEL_SAMPLES]]
    others = a[torch.randperm(len(a), generator=generator)[:KERNEL_SAMPLES]]
    within = polynomial_kernel(chosen, chosen)
    within.fill_diagonal_(0)
    across = polynomial_kernel(others, chosen).mean(0)
    values = []
    for w in _counts(len(chosen), replicates, seed).to(within.device):
        pairs = float(w.sum() ** 2 - w.square().sum())
        if not pairs:  # of a handful of pictures, one may be all that is drawn
            continue
        values.append(float(w @ within @ w) / pairs - 2 * float(across @ w) / float(w.sum()))
    return _spread(values) * math.sqrt(len(chosen) / len(b))

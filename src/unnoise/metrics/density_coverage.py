"""Density and coverage (Naeem et al. 2020, arXiv 2002.09797): precision and recall that one outlier cannot
move.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.metrics.distances import BLOCK, blocks, squared_distances, squared_norms
from unnoise.metrics.precision_recall import manifold_radii, pair_of


@dataclass(frozen=True, eq=False)
class DensityCoverage:
    """Density in [0, inf), expected 1 for equal distributions; coverage in [0, 1]."""

    density: float
    coverage: float
    fake_counts: Tensor  # (N_fake,) int64: real balls that hold each sample
    real_covered: Tensor  # (N_real,) bool: a sample lies in the ball


def density_coverage(
    *, real: Tensor, fake: Tensor, k: int = 5, block: int = BLOCK, real_radii: Tensor | None = None
) -> DensityCoverage:
    """density = 1/(k M) sum_j #{i: |fake_j - real_i| < r_k(i)}; coverage = share of i whose open ball holds a
    sample.

    r_k(i): distance of real_i to its k-th nearest other real picture. Strictly smaller, k = 5, as the
    authors' code. `real_radii` (N_real,), squared, as `manifold_radii` gives them, saves most of the work.
    """
    a, b = pair_of(real, fake, k)
    radii = manifold_radii(a, ks=(k,), block=block)[:, 0] if real_radii is None else real_radii
    norms_a, norms_b = squared_norms(a), squared_norms(b)
    counts = torch.zeros(len(b), dtype=torch.int64, device=a.device)
    covered = torch.zeros(len(a), dtype=torch.bool, device=a.device)
    for r in blocks(len(a), block):
        for c in blocks(len(b), block):
            hits = squared_distances(a[r], b[c], norms_a[r], norms_b[c]).clamp_min_(0) < radii[r, None]
            counts[c] += hits.sum(0)
            covered[r] |= hits.any(1)
    return DensityCoverage(float(counts.double().mean() / k), float(covered.double().mean()), counts, covered)

"""Nearest training pictures of samples in feature space, and the share of samples that all but copy one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.metrics.distances import BLOCK, blocks, squared_distances, squared_norms
from unnoise.metrics.neighbours import neighbour_distances
from unnoise.metrics.precision_recall import pair_of

COPY_QUANTILE = 0.01


@dataclass(frozen=True, eq=False)
class Nearest:
    """Each sample's nearest real pictures and how near is suspiciously near."""

    indices: Tensor  # (N_fake, k) int64 into the real pictures, nearest first
    distances: Tensor  # (N_fake, k) Euclidean
    threshold: float
    """The `quantile` of the distances between real pictures and their nearest other real picture."""
    copies: Tensor  # (N_fake,) bool: nearer than the threshold
    share: float
    """Of samples that are copies; about `quantile` for fresh samples of the training distribution."""

    def closest_pairs(self, count: int) -> list[tuple[int, int, float]]:
        """(sample, real picture, distance) of the nearest pairs, closest first."""
        order = self.distances[:, 0].argsort()[:count].tolist()
        return [(i, int(self.indices[i, 0]), float(self.distances[i, 0])) for i in order]


def nearest_training(
    *,
    real: Tensor,
    fake: Tensor,
    k: int = 3,
    quantile: float = COPY_QUANTILE,
    block: int = BLOCK,
    among_real: Tensor | None = None,
) -> Nearest:
    """The k nearest real features of every sample; a sample is a near-copy when it lies nearer to a real
    picture than all but `quantile` of real pictures lie to each other. real, fake: (N, D).

    Duplicates among the real pictures make the threshold 0; then only exact copies count.
    `among_real` (N_real,), squared distances of real pictures to their nearest other, saves most of the work.
    """
    a, b = pair_of(real, fake, 1)
    norms_a, norms_b = squared_norms(a), squared_norms(b)
    k = min(k, len(a))
    places, lengths = [], []
    for c in blocks(len(b), block):
        best = torch.full((len(b[c]), k), float("inf"), device=a.device)
        where = torch.zeros(len(b[c]), k, dtype=torch.int64, device=a.device)
        for r in blocks(len(a), block):
            d, i = squared_distances(b[c], a[r], norms_b[c], norms_a[r]).topk(
                min(k, len(a[r])), largest=False
            )
            best, order = torch.cat([best, d.clamp_min(0)], 1).topk(k, largest=False)
            where = torch.cat([where, i + r.start], 1).gather(1, order)
        places.append(where)
        lengths.append(best.sqrt())
    if among_real is None:
        among_real = neighbour_distances(a, 1, block=block)[:, 1]
    threshold = float(torch.quantile(among_real.sqrt().double(), quantile))
    distances = torch.cat(lengths)
    # A copy's distance is what rounding leaves of |u|^2 - 2uv + |v|^2.
    rounding = float(norms_a.max()) ** 0.5 * 1e-3
    copies = distances[:, 0] <= max(threshold, rounding)
    return Nearest(torch.cat(places), distances, threshold, copies, float(copies.double().mean()))

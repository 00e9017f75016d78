"""The k nearest neighbours of every point, and which points lie in a ball around one of others: what
precision, recall, density, coverage and near-copies are made of. Exact; sketches only spare work.
"""

import torch
from torch import Tensor

from unnoise.metrics.distances import BLOCK, blocks, smallest, squared_distances, squared_norms
from unnoise.metrics.sketch import Sketch, sketched_membership, sketched_neighbours, sketches


def neighbour_distances(x: Tensor, k: int, *, block: int = BLOCK, sketch: Sketch | None = None) -> Tensor:
    """Squared distances of each row of (N, D) to itself and its k nearest others, ascending: (N, k + 1), >=
    0.

    Where a few directions bound the distances well, only a few candidates of each row are measured
    (`sketch.py`); else each pair of blocks is multiplied once and read from both sides. A `sketch` of x that
    is at hand is used. Memory: `block` x `block`, of which more than 1024 x 1024 would only leave the cache.
    """
    block = min(block, BLOCK)
    if sketch is None:
        made = sketches(x)
        sketch = made[0] if made else None
    found = sketched_neighbours(sketch, k) if sketch else None
    if sketch is None or found is None:
        return _all_neighbours(x, k, block)
    best, open_ = found
    left = open_.nonzero()[:, 0]
    for r in blocks(len(left), block):
        best[left[r]] = _nearest_of(x[left[r]], sketch.norms[left[r]], x, sketch.norms, k, block)
    return best


def _nearest_of(rows: Tensor, norms: Tensor, x: Tensor, norms_x: Tensor, k: int, block: int) -> Tensor:
    parts = [
        smallest(squared_distances(rows, x[c], norms, norms_x[c]), k + 1) for c in blocks(len(x), 4 * block)
    ]
    return smallest(torch.cat(parts, 1), k + 1).clamp_min_(0)


def _all_neighbours(x: Tensor, k: int, block: int) -> Tensor:
    norms = squared_norms(x)
    slices = list(blocks(len(x), block))
    best = x.new_full((len(x), k + 1), float("inf"))

    def add(rows: slice, values: Tensor, minima: Tensor) -> None:
        """values: a matrix of distances, `minima` of its rows; rows that no value improves are left alone."""
        known = best[rows]
        closer = (minima < known[:, k]).nonzero()[:, 0]
        if len(closer):
            known[closer] = smallest(torch.cat([known[closer], smallest(values[closer], k + 1)], 1), k + 1)

    for rows in slices:
        for columns in slices[rows.start // block :]:
            d = squared_distances(x[rows], x[columns], norms[rows], norms[columns])
            add(rows, d, d.amin(1))
            if columns is not rows:
                add(columns, d.T, d.amin(0))
    return best.clamp_min_(0)


def inside_balls(
    a: Tensor,
    b: Tensor,
    radii_a: Tensor,
    radii_b: Tensor,
    *,
    block: int = BLOCK,
    pair: list[Sketch] | None = None,
) -> tuple[Tensor, Tensor]:
    """Which a lie in a ball of b, which b in a ball of a; (N,) and (M,) bool. Radii are squared; a point on
    the sphere is inside.

    One hit decides a point, and a lower bound of its distances may rule out every ball (sketches of a and b
    in `pair`): only points that are still open are measured against all, both questions in one pass.
    """
    block = min(block, BLOCK)
    in_a, in_b = (torch.zeros(len(x), dtype=torch.bool, device=x.device) for x in (a, b))
    open_a, open_b = ~in_a, ~in_b
    if pair:
        sketch_a, sketch_b = pair
        in_a, open_a = sketched_membership(sketch_a, sketch_b, radii_b) or (in_a, open_a)
        in_b, open_b = sketched_membership(sketch_b, sketch_a, radii_a) or (in_b, open_b)
    norms_a, norms_b = (s.norms for s in pair) if pair else (squared_norms(a), squared_norms(b))

    def measure(rows: Tensor, columns: Tensor) -> None:
        if not len(rows) or not len(columns):
            return
        u, nu, ru = (x if len(rows) == len(x) else x[rows] for x in (a, norms_a, radii_a))
        v, nv, rv = (x if len(columns) == len(x) else x[columns] for x in (b, norms_b, radii_b))
        hit_u, hit_v = (torch.zeros(len(x), dtype=torch.bool, device=x.device) for x in (u, v))
        for i in blocks(len(u), block):
            for j in blocks(len(v), block):
                d = squared_distances(u[i], v[j], nu[i], nv[j]).clamp_min_(0)
                # The sign of a difference is exact, and minima are faster than comparisons.
                hit_u[i] |= (d - rv[j]).amin(1) <= 0
                hit_v[j] |= (d - ru[i, None]).amin(0) <= 0
        in_a[rows] |= hit_u
        in_b[columns] |= hit_v

    measure(open_a.nonzero()[:, 0], torch.arange(len(b), device=b.device))
    measure((~open_a).nonzero()[:, 0], (open_b & ~in_b).nonzero()[:, 0])
    return in_a, in_b

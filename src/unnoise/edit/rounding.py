"""Real grey levels to whole ones whose mean over a group is a given whole level, exactly."""

import torch
from torch import Tensor

_HALVINGS = 48
"""Of an interval of some thousand levels: to less than a float64 of 255 can tell."""


def levels_with_mean(values: Tensor, mean: Tensor) -> Tensor:
    """Whole levels in 0..255 nearest to `values` (..., n) among those whose mean is `mean` (...), uint8.

    Values are shifted together, those at black or white stay there, and rounded by largest remainders: the
    projection onto the box and the plane, then onto whole numbers.
    """
    values = values.double()
    count = values.shape[-1]
    total = mean.double() * count
    low, high = -values.amax(-1), 255 - values.amin(-1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        short = (values + middle[..., None]).clamp(0, 255).sum(-1) < total
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    shifted = (values + ((low + high) / 2)[..., None]).clamp(0, 255)
    whole = shifted.floor()
    missing = (total - whole.sum(-1)).round()
    order = (shifted - whole).argsort(dim=-1, descending=True)
    rank = order.argsort(dim=-1)
    levels: Tensor = whole + (rank < missing[..., None])
    return levels.clamp(0, 255).to(torch.uint8)

"""Whether a classifier is right as often as it is confident (Guo et al. 2017, arXiv 1706.04599)."""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""Of equal width, as in the paper."""


@dataclass(frozen=True)
class Reliability:
    """Predictions by their confidence, in the bins that hold some, the least confident first."""

    confidence: tuple[float, ...]
    """Mean probability given to what was said."""
    accuracy: tuple[float, ...]
    """Share that was right."""
    count: tuple[int, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: sum over bins of count/n |accuracy - confidence| (Eq. 3)."""
        gaps = zip(self.confidence, self.accuracy, self.count, strict=True)
        return sum(n * abs(right - sure) for sure, right, n in gaps) / sum(self.count)


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> Reliability:
    """Predictions in bins of equal width over (0, 1], each with its upper end.

    confidence: (N,) the probability of what was said; right: (N,) bool. ValueError without predictions.
    """
    if not len(confidence):
        raise ValueError("no predictions, so no calibration; give one or more")
    sure, hit = confidence.double().cpu(), right.double().cpu()
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(place, minlength=bins)
    kept = count > 0
    mean = [torch.bincount(place, weights, bins)[kept] / count[kept] for weights in (sure, hit)]
    return Reliability(
        confidence=tuple(mean[0].tolist()),
        accuracy=tuple(mean[1].tolist()),
        count=tuple(count[kept].tolist()),
    )

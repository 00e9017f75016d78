"""Every metric that two sides of features allow, with its interval, its floor and its value at infinite N."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unnoise.config.schema import EvaluateRequest
from unnoise.metrics.collect import Collected
from unnoise.metrics.density_coverage import density_coverage
from unnoise.metrics.features import Features, Names
from unnoise.metrics.frechet import extrapolate_frechet, frechet_distance
from unnoise.metrics.inception_score import inception_score
from unnoise.metrics.intervals import frechet_error, interval, kernel_error, mean_error, score_error
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.nearest import nearest_training
from unnoise.metrics.precision_recall import precision_recall
from unnoise.metrics.result import Metric
from unnoise.metrics.sources import Pictures
from unnoise.metrics.statistics import Gaussian, Moments

NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
KERNEL_SUBSET = 1000
PAIRS = 16


@dataclass(frozen=True, eq=False)
class Side:
    """The reference as the metrics see it."""

    frechet: Gaussian
    spatial: Gaussian | None
    features: Features | None
    """Of single pictures; None for statistics alone."""
    pictures: Pictures | None
    facts: dict[str, Any]
    content: str
    n: int
    """Pictures behind the statistics; 0 when the file does not say."""


def measure(
    request: EvaluateRequest, names: Names, real: Side, fake: Collected
) -> tuple[list[Metric], dict[str, Any] | None]:
    """Every distribution metric that the features allow, and the nearest real pictures."""
    out = [_frechet(request, names("FD"), real.frechet, _frechet_features(real), fake.features.frechet)]
    if real.spatial is not None and fake.features.spatial is not None:
        known = real.features.spatial if real.features else None
        out.append(_frechet(request, names("sFD"), real.spatial, known, fake.features.spatial))
    if fake.features.probs is not None and names.inception:
        out.append(_score(request, names("IS"), real, fake.features.probs))
    if real.features is None:
        return out, None
    a, b = real.features.pool, fake.features.pool
    out.append(_kernel(request, names("KID"), a, b))
    a, b = _limited(request, a), _limited(request, b)
    if min(len(a), len(b)) > DENSITY_NEIGHBOURS:
        out += _manifolds(request, names, a, b)
    near = nearest_training(real=real.features.pool, fake=fake.features.pool, k=1)
    return out, {
        "share_of_near_copies": near.share,
        "threshold": near.threshold,
        "closest": near.closest_pairs(PAIRS),
    }


def _frechet_features(real: Side) -> Tensor | None:
    return real.features.frechet if real.features else None


def _halves(features: Tensor, n_fake: int, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint random parts of the real features: as many as there are samples, at most half, and the
    others.
    """
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    part = min(n_fake, len(features) // 2)
    return features[order[part:]], features[order[:part]]


def _frechet(
    request: EvaluateRequest, name: str, real: Gaussian, known: Tensor | None, fake: Tensor
) -> Metric:
    value = frechet_distance(real=real, fake=Moments.of(fake).gaussian())
    span = None
    if request.bootstrap:
        error = frechet_error(real=real, fake=fake, replicates=request.bootstrap, seed=request.seed)
        span = interval(value, error, low=0.0)
    floor = None
    if request.floor and known is not None and len(known) >= 4:
        rest, part = _halves(known, len(fake), request.seed)
        # A file's statistics of the whole data set stand in for the rest, as they do against the samples.
        whole = real if real.n != len(known) else Moments.of(rest).gaussian()
        floor = frechet_distance(real=whole, fake=Moments.of(part).gaussian())
    infinite = None
    if request.extrapolate and len(fake) >= 8:
        infinite = extrapolate_frechet(real=real, fake=fake, seed=request.seed).value
    return Metric(name=name, value=value, interval=span, floor=floor, infinite=infinite)


def _score(request: EvaluateRequest, name: str, real: Side, probs: Tensor) -> Metric:
    value = inception_score(fake=probs)
    span = None
    if request.bootstrap:
        span = interval(value, score_error(probs, replicates=request.bootstrap, seed=request.seed), low=1.0)
    known = real.features.probs if real.features else None
    floor = inception_score(fake=known) if request.floor and known is not None else None
    return Metric(name=name, value=value, better="higher", interval=span, floor=floor)


def _kernel(request: EvaluateRequest, name: str, real: Tensor, fake: Tensor) -> Metric:
    def distance(a: Tensor, b: Tensor) -> float:
        size = min(KERNEL_SUBSET, len(a), len(b))
        return kernel_distance(real=a, fake=b, subset_size=size).mean

    value = distance(real, fake)
    span = None
    if request.bootstrap:
        error = kernel_error(real=real, fake=fake, replicates=request.bootstrap, seed=request.seed)
        span = interval(value, error)
    floor = distance(*_halves(real, len(fake), request.seed)) if request.floor and len(real) >= 4 else None
    size = min(KERNEL_SUBSET, len(real), len(fake))
    return Metric(name=name, value=value, interval=span, floor=floor, note=f"100 subsets of {size}")


def _limited(request: EvaluateRequest, features: Tensor) -> Tensor:
    limit = request.neighbours
    if limit is None or limit >= len(features):
        return features
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(request.seed))
    return features[order[:limit].sort().values]


def _manifolds(request: EvaluateRequest, names: Names, real: Tensor, fake: Tensor) -> list[Metric]:
    """Precision, recall, density, coverage; their intervals hold the two manifolds fixed."""
    floors: dict[str, float] = {}
    if request.floor and len(real) // 2 > DENSITY_NEIGHBOURS:
        rest, part = _halves(real, len(fake), request.seed)
        floors = {key: value for key, (value, _) in _shares(request, rest, part).items()}
    out = []
    for key, (value, each) in _shares(request, real, fake).items():
        high = float("inf") if key == "density" else 1.0
        span = interval(value, mean_error(each), low=0.0, high=high) if request.bootstrap else None
        note = f"k = {DENSITY_NEIGHBOURS if key in ('density', 'coverage') else NEIGHBOURS}"
        out.append(
            Metric(
                name=names(key), value=value, better="higher", interval=span, floor=floors.get(key), note=note
            )
        )
    return out


def _shares(request: EvaluateRequest, real: Tensor, fake: Tensor) -> dict[str, tuple[float, Tensor]]:
    """Metric -> (value, the numbers whose mean it is)."""
    pr = precision_recall(real=real, fake=fake, k=NEIGHBOURS, half=request.half, block=request.block)
    dc = density_coverage(real=real, fake=fake, k=DENSITY_NEIGHBOURS, block=request.block)
    return {
        "precision": (pr.precision, pr.fake_inside),
        "recall": (pr.recall, pr.real_inside),
        "density": (dc.density, dc.fake_counts / DENSITY_NEIGHBOURS),
        "coverage": (dc.coverage, dc.real_covered),
    }

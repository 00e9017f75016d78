"""Every metric that two sides of features allow, with its interval, its floor and its value at infinite N."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unnoise.config.requests import EvaluateRequest
from unnoise.metrics.collect import Collected
from unnoise.metrics.density_coverage import density_coverage
from unnoise.metrics.features import FIDELITY, Names, Table
from unnoise.metrics.frechet import extrapolate_frechet, frechet_distance
from unnoise.metrics.inception_score import inception_score, inception_score_fidelity
from unnoise.metrics.intervals import frechet_error, interval, kernel_error, mean_error, score_error
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.nearest import nearest_training
from unnoise.metrics.own_neighbours import own_neighbours
from unnoise.metrics.precision_recall import precision_recall, precision_recall_fidelity
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
    table: Table | None
    """Features of single pictures; None for statistics alone."""
    pictures: Pictures | None
    facts: dict[str, Any]
    content: str
    n: int
    """Pictures behind the statistics; 0 when the file does not say."""


def measure(
    request: EvaluateRequest, names: Names, real: Side, fake: Collected
) -> tuple[list[Metric], dict[str, Any] | None]:
    """Every distribution metric that the features allow, and the nearest real pictures; of reconstructions,
    which ought to be near, the metrics alone.
    """
    table, known = fake.table, real.table
    out = [_frechet(request, names("FD"), table.frechet, real.frechet, fake.frechet, table, known)]
    if real.spatial is not None and fake.spatial is not None:
        out.append(_frechet(request, names("sFD"), "spatial", real.spatial, fake.spatial, table, known))
    if "probs" in table.widths and names.inception:
        out.append(_score(request, names("IS"), known, table))
    if known is None:
        return out, None
    # Networks with a middle layer have a Frechet distance that says little: the kernel distance stands first.
    out.insert(0 if "middle" in table.widths else len(out), _kernel(request, names("KID"), known, table))
    limit = request.neighbours or max(known.n, table.n)
    if min(limit, known.n, table.n) > DENSITY_NEIGHBOURS:
        out += _manifolds(request, names, known, table)
    if request.paired:
        return out, None
    near = nearest_training(
        real=known.load("pool"),
        fake=table.load("pool"),
        k=1,
        block=request.block,
        among_real=_own(request, known)[:, 1],
    )
    return out, {
        "share_of_near_copies": near.share,
        "threshold": near.threshold,
        "closest": near.closest_pairs(PAIRS),
    }


def _halves(n: int, n_fake: int, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint random parts of n real pictures: the rest, and as many as there are samples, at most half."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    part = min(n_fake, n // 2)
    return order[part:], order[:part]


def _frechet(
    request: EvaluateRequest,
    name: str,
    column: str,
    real: Gaussian,
    fake: Gaussian,
    table: Table,
    known: Table | None,
) -> Metric:
    span, floor, infinite = None, None, None
    value = frechet_distance(real=real, fake=fake)
    rows = table.load(column) if request.bootstrap or request.extrapolate else None
    if rows is not None and request.bootstrap:
        error = frechet_error(real=real, fake=rows, replicates=request.bootstrap, seed=request.seed)
        span = interval(value, error, low=0.0)
    if rows is not None and request.extrapolate and len(rows) >= 8:
        infinite = extrapolate_frechet(real=real, fake=rows, seed=request.seed).value
    del rows
    if request.floor and known is not None and column in known.widths and known.n >= 4:
        everything = known.load(column)
        rest, part = _halves(known.n, table.n, request.seed)
        # A file's statistics of the whole data set stand in for the rest, as they do against the samples.
        whole = real if real.n != known.n else Moments.of(everything, rest).gaussian()
        floor = frechet_distance(real=whole, fake=Moments.of(everything, part).gaussian())
    return Metric(name=name, value=value, interval=span, floor=floor, infinite=infinite)


def _score(request: EvaluateRequest, name: str, known: Table | None, table: Table) -> Metric:
    def score(probs: Tensor) -> tuple[float, int]:
        """The score and its pictures a split."""
        if request.evaluator == FIDELITY:
            return inception_score_fidelity(fake=probs).mean, len(probs) // 10
        return inception_score(fake=probs), 5000

    probs = table.load("probs")
    value, split = score(probs)
    span, floor = None, None
    if request.bootstrap:
        error = score_error(probs, split=split, replicates=request.bootstrap, seed=request.seed)
        span = interval(value, error, low=1.0)
    del probs
    if request.floor and known is not None and "probs" in known.widths:
        floor, _ = score(known.load("probs"))
    return Metric(name=name, value=value, better="higher", interval=span, floor=floor)


def _kernel(request: EvaluateRequest, name: str, known: Table, table: Table) -> Metric:
    def distance(a: Tensor, b: Tensor) -> float:
        size = min(KERNEL_SUBSET, len(a), len(b))
        return kernel_distance(real=a, fake=b, subset_size=size).mean

    real, fake = known.load("pool"), table.load("pool")
    value = distance(real, fake)
    span, floor = None, None
    if request.bootstrap:
        error = kernel_error(real=real, fake=fake, replicates=request.bootstrap, seed=request.seed)
        span = interval(value, error)
    del fake
    if request.floor and known.n >= 4:
        rest, part = _halves(known.n, table.n, request.seed)
        floor = distance(real[rest], real[part])
    size = min(KERNEL_SUBSET, known.n, table.n)
    return Metric(name=name, value=value, interval=span, floor=floor, note=f"100 subsets of {size}")


def _limited(request: EvaluateRequest, table: Table) -> Tensor:
    features, limit = table.load("pool"), request.neighbours
    if limit is None or limit >= len(features):
        return features
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(request.seed))
    return features[order[:limit].sort().values]


def _manifolds(request: EvaluateRequest, names: Names, known: Table, table: Table) -> list[Metric]:
    """Precision, recall, density, coverage; their intervals hold the two manifolds fixed."""
    own = _own(request, known) if (request.neighbours or known.n) >= known.n else None
    values = _shares(request, _limited(request, known), _limited(request, table), own)
    floors: dict[str, float] = {}
    if request.floor:
        real = _limited(request, known)
        rest, part = _halves(len(real), min(request.neighbours or table.n, table.n), request.seed)
        if len(part) > DENSITY_NEIGHBOURS:
            parts = real[rest], real[part]
            del real
            floors = {key: value for key, (value, _) in _shares(request, *parts).items()}
    out = []
    for key, (value, each) in values.items():
        high = float("inf") if key == "density" else 1.0
        span = interval(value, mean_error(each), low=0.0, high=high) if request.bootstrap else None
        note = f"k = {DENSITY_NEIGHBOURS if key in ('density', 'coverage') else NEIGHBOURS}"
        out.append(
            Metric(
                name=names(key), value=value, better="higher", interval=span, floor=floors.get(key), note=note
            )
        )
    return out


def _own(request: EvaluateRequest, known: Table) -> Tensor:
    """Squared distances of real pictures to the others nearest to them."""
    return own_neighbours(known, min(DENSITY_NEIGHBOURS, known.n - 1), block=request.block)


def _shares(
    request: EvaluateRequest, real: Tensor, fake: Tensor, own: Tensor | None = None
) -> dict[str, tuple[float, Tensor]]:
    """Metric -> (value, the numbers whose mean it is); `own`: as `_own`, of these real pictures."""
    if request.evaluator == FIDELITY:
        pr = precision_recall_fidelity(real=real, fake=fake, k=NEIGHBOURS, block=request.block)
    else:
        radii = None if own is None or request.half else own[:, NEIGHBOURS]
        pr = precision_recall(
            real=real, fake=fake, k=NEIGHBOURS, half=request.half, block=request.block, real_radii=radii
        )
    dc = density_coverage(
        real=real,
        fake=fake,
        k=DENSITY_NEIGHBOURS,
        block=request.block,
        real_radii=None if own is None else own[:, DENSITY_NEIGHBOURS],
    )
    return {
        "precision": (pr.precision, pr.fake_inside),
        "recall": (pr.recall, pr.real_inside),
        "density": (dc.density, dc.fake_counts / DENSITY_NEIGHBOURS),
        "coverage": (dc.coverage, dc.real_covered),
    }

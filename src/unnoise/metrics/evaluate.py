"""From an EvaluateRequest to an Evaluation: both sides through one feature network, every metric, the
protocol beside it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unnoise import __version__
from unnoise.config.schema import EvaluateRequest
from unnoise.distributed import choose_device
from unnoise.metrics import weights as store
from unnoise.metrics.collect import Collected, collect
from unnoise.metrics.density_coverage import density_coverage
from unnoise.metrics.extractors import EXTRACTORS, open_features
from unnoise.metrics.features import FeatureNetwork, Features, Names
from unnoise.metrics.frechet import extrapolate_frechet, frechet_distance
from unnoise.metrics.inception_score import inception_score
from unnoise.metrics.intervals import frechet_error, interval, kernel_error, mean_error, score_error
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.nearest import nearest_training
from unnoise.metrics.paired import paired_metrics
from unnoise.metrics.precision_recall import precision_recall
from unnoise.metrics.reference import Reference, is_reference, read_reference
from unnoise.metrics.result import Evaluation, Metric
from unnoise.metrics.sources import Pictures, open_pictures
from unnoise.metrics.statistics import Gaussian, Moments

FID_SAMPLES = 50_000
NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
KERNEL_SUBSET = 1000
PAIRS = 16
Stage = Callable[[str, int, int], None]
"""(what, done, total)."""


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


def _quiet(what: str, done: int, total: int) -> None:
    pass


def evaluate(request: EvaluateRequest, *, on_progress: Stage = _quiet) -> Evaluation:
    """Measure samples against a reference.

    Pictures stream; features are kept in shards in the cache, so the same request continues an interrupted
    evaluation. ValueError, one line with the way out, for sides that cannot be compared.
    """
    began = time.monotonic()
    warnings: list[str] = []
    check_numbers(request)
    device = str(choose_device(request.device))
    network = choose_network(request, device, warnings)
    samples = open_pictures(request.samples, request, n=request.n)
    if samples.n < 2:
        raise ValueError(f"{request.samples} has one picture; evaluation needs at least 2")
    real = open_side(request, network, samples, on_progress)
    fake = collect(
        samples,
        network,
        cache=request.cache,
        batch_size=request.batch_size,
        on_progress=lambda done, total: on_progress("samples", done, total),
    )
    metrics, nearest = measure(request, Names(network.name), real, fake)
    if request.paired:
        if real.pictures is None:
            raise ValueError("--paired needs the reference's pictures; name a folder, zip, npz or data set")
        metrics += paired_metrics(request, samples, real.pictures, warnings)
    warnings += _warnings(samples, real, fake, network)
    protocol = _protocol(request, samples, real, network, device, time.monotonic() - began)
    return Evaluation(
        samples=request.samples,
        against=request.against,
        metrics=tuple(metrics),
        protocol=protocol,
        warnings=tuple(warnings),
        nearest=nearest,
    )


def check_numbers(request: EvaluateRequest) -> None:
    """Refuse settings that no data could satisfy."""
    for name in ("samples", "against"):
        if not getattr(request, name):
            raise ValueError(f"{name} is empty; name a folder, zip, npz, data set, model file or reference")
    for name, least in (("batch_size", 1), ("block", 16), ("bootstrap", 0)):
        if getattr(request, name) < least:
            raise ValueError(f"{name}={getattr(request, name)} is less than {least}; use {least} or more")
    for name in ("n", "neighbours"):
        value = getattr(request, name)
        if value is not None and value < 2:
            raise ValueError(f"{name}={value} is less than 2; a distribution needs more pictures")


def choose_network(request: EvaluateRequest, device: str, warnings: list[str]) -> FeatureNetwork:
    """The network asked for; `auto` takes Inception where its weights are on this machine, else what is."""
    chosen = request.weights or None
    if request.features != "auto":
        return open_features(request.features, weights=chosen, device=device)
    try:
        store.find(store.INCEPTION, chosen, download=False)
        return open_features("inception", weights=chosen, device=device)
    except ValueError as missing:
        for name in ("unnoise-small", "effnet-lite0"):
            if name in EXTRACTORS:
                try:
                    network = open_features(name, device=device)
                except ValueError:
                    continue
                warnings.append(f"measured with {network.name}, not Inception: {missing}")
                return network
        raise


def open_side(
    request: EvaluateRequest, network: FeatureNetwork, samples: Pictures, on_progress: Stage = _quiet
) -> Side:
    """The reference: a file of statistics, or pictures whose features are computed or found in the cache."""
    reference = read_reference(request.against, network) if is_reference(request.against) else None
    pictures: Pictures | None = None
    if reference is None or (reference.has_pictures and reference.features is None):
        pictures = open_pictures(request.against, replace(request, size=_side(request, samples, reference)))
        _same_channels(samples.shape[2], pictures.shape[2], request.against)
    elif "shape" in reference.facts:
        _same_channels(samples.shape[2], reference.facts["shape"][2], request.against)
    found: Collected | None = None
    if pictures is not None:
        if pictures.n < 2:
            raise ValueError(f"{request.against} has one picture; a reference needs at least 2")
        found = collect(
            pictures,
            network,
            cache=request.cache,
            batch_size=request.batch_size,
            keep_spatial=request.floor,
            on_progress=lambda done, total: on_progress("reference", done, total),
        )
    if reference is None:
        assert found is not None and pictures is not None
        return Side(
            frechet=found.frechet,
            spatial=found.spatial,
            features=found.features,
            pictures=pictures,
            facts=pictures.facts,
            content=pictures.content,
            n=pictures.n,
        )
    return Side(
        frechet=reference.frechet,
        spatial=reference.spatial,
        features=reference.features or (found.features if found else None),
        pictures=pictures,
        facts=reference.facts,
        content=_hash(reference.frechet),
        n=reference.frechet.n,
    )


def _side(request: EvaluateRequest, samples: Pictures, reference: Reference | None) -> int | None:
    """Side of the reference pictures; drawn samples say which when nobody else does."""
    if request.size is None and samples.is_model and reference is None:
        return samples.shape[0]
    return request.size


def _hash(gaussian: Gaussian) -> str:
    import hashlib

    return hashlib.sha256(gaussian.mean.numpy().tobytes()).hexdigest()[:32]


def _same_channels(fake: int, real: int, against: str) -> None:
    if fake != real:
        raise ValueError(
            f"the samples have {fake} channels and {against} has {real}; "
            "convert one of them, or read both alike with channels=1 or 3"
        )


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


def _warnings(samples: Pictures, real: Side, fake: Collected, network: FeatureNetwork) -> list[str]:
    out = []
    names = Names(network.name)
    fd = names("FD")
    if samples.n < FID_SAMPLES:
        out.append(
            f"{samples.n:,} samples: published FIDs use {FID_SAMPLES:,}, and fewer give a larger {fd}; "
            "compare its value at infinite N, or evaluations of equal N"
        )
    dims = fake.frechet.mean.numel()
    if samples.n <= dims:
        out.append(f"{samples.n:,} samples for {dims} features: the covariance is singular; trust KID more")
    if 0 < real.n <= dims:
        out.append(f"{real.n:,} reference pictures for {dims} features: the covariance is singular")
    shape = real.pictures.shape if real.pictures else tuple(real.facts.get("shape", ()))
    if shape and shape[:2] != samples.shape[:2]:
        out.append(
            f"samples are {samples.shape[1]}x{samples.shape[0]} and the reference {shape[1]}x{shape[0]}: "
            "resizing alone moves the numbers"
        )
    shares = [float(facts.get("jpeg", 0.0)) for facts in (samples.facts, real.facts)]
    if (shares[0] > 0) != (shares[1] > 0):
        side = "samples" if shares[0] > 0 else "reference pictures"
        out.append(f"the {side} are JPEG and the other side is not: compression alone moves the numbers")
    for side, facts in (("samples", samples.facts), ("reference", real.facts)):
        if facts.get("enlarged"):
            out.append(f"{facts['enlarged']} pictures of the {side} were enlarged")
        if facts.get("broken"):
            out.append(f"{facts['broken']} broken pictures of the {side} were left out")
    counts = list(samples.classes.values())
    if counts and max(counts) > 1.5 * max(1, min(counts)) and max(counts) - min(counts) > 1:
        out.append(f"the samples' classes are unbalanced: {min(counts)} to {max(counts)} pictures a class")
    if samples.is_model and samples.facts.get("ema_rate") is None:
        out.append("these are not averaged (EMA) weights; published numbers use the average")
    return out


def _protocol(
    request: EvaluateRequest,
    samples: Pictures,
    real: Side,
    network: FeatureNetwork,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    return {
        "unnoise": __version__,
        "torch": torch.__version__,
        "features": network.name,
        "weights_hash": network.weights_hash,
        "preprocess": network.preprocess,
        "precision": "float32 features, float64 statistics",
        "distances": "float16 as ADM's evaluator" if request.half else "float32",
        "samples_n": samples.n,
        "samples_shape": list(samples.shape),
        "samples_facts": samples.facts,
        "reference_n": real.n or None,
        "reference_shape": list(real.pictures.shape) if real.pictures else real.facts.get("shape"),
        "reference_facts": real.facts,
        "against_content": real.content,
        "neighbours": request.neighbours,
        "bootstrap": request.bootstrap,
        "seed": request.seed,
        "device": device,
        "seconds": round(seconds, 1),
    }

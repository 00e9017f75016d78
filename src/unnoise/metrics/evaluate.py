"""From an EvaluateRequest to an Evaluation: both sides through one feature network, every metric, the
protocol beside it.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

from unnoise.config.requests import EvaluateRequest
from unnoise.distributed import choose_device, is_main
from unnoise.metrics import weights as store
from unnoise.metrics.collect import Collected, collect
from unnoise.metrics.extractors import open_features
from unnoise.metrics.features import ADM, EVALUATORS, FeatureNetwork, Names
from unnoise.metrics.measures import Side, measure
from unnoise.metrics.paired import check_pairs, open_lpips, paired_metrics
from unnoise.metrics.protocol import protocol_of, warnings_of
from unnoise.metrics.reference import Reference, is_reference, read_reference
from unnoise.metrics.result import Evaluation
from unnoise.metrics.sources import Pictures, open_pictures, refuse_model
from unnoise.metrics.statistics import Gaussian

Stage = Callable[[str, int, int], None]
"""(what, done, total)."""


def _quiet(what: str, done: int, total: int) -> None:
    pass


def evaluate(request: EvaluateRequest, *, on_progress: Stage = _quiet) -> Evaluation:
    """Measure samples against a reference.

    Pictures stream; features are kept in shards in the cache, so the same request continues an interrupted
    evaluation. ValueError, one line with the way out, for sides that cannot be compared.
    """
    found = _evaluate(request, False, on_progress)
    assert found is not None
    return found


def evaluate_together(request: EvaluateRequest, *, on_progress: Stage = _quiet) -> Evaluation | None:
    """The same by all processes of the group: they share the pictures, then the first one measures and the
    others are given None.
    """
    return _evaluate(request, True, on_progress)


def _evaluate(request: EvaluateRequest, together: bool, on_progress: Stage) -> Evaluation | None:
    began = time.monotonic()
    warnings: list[str] = []
    check_numbers(request)
    device = str(choose_device(request.device))
    samples = open_pictures(request.samples, request, n=request.n)
    if samples.n < 2:
        raise ValueError(f"{request.samples} has one picture; evaluation needs at least 2")
    network = choose_network(request, device, warnings, channels=samples.shape[2])
    lpips = open_lpips(request, warnings) if request.paired else (None, "")
    real = open_side(request, network, samples, together=together, on_progress=on_progress)
    fake = collect(
        samples,
        network,
        cache=request.cache,
        batch_size=request.batch_size,
        together=together,
        on_progress=lambda done, total: on_progress("samples", done, total),
    )
    if together and not is_main():
        return None
    names = Names(network.name, request.evaluator, request.paired)
    metrics, nearest = measure(request, names, real, fake)
    if request.paired and real.pictures is not None:
        metrics += paired_metrics(request, samples, real.pictures, lpips)
    warnings += warnings_of(names, samples, real, fake)
    protocol = protocol_of(request, samples, real, network, device, time.monotonic() - began)
    return Evaluation(
        samples=request.samples,
        against=request.against,
        metrics=tuple(metrics),
        protocol=protocol,
        warnings=tuple(warnings),
        nearest=nearest,
    )


MOST = 10_000_000
"""Pictures, whose features are held in memory in the end."""
MOST_REPLICATES = 100_000


def check_most(name: str, value: int, most: int = MOST) -> None:
    """Refuse a count that would run for ever, or out of memory in the end."""
    if value > most:
        raise ValueError(f"{name}={value:,} is more than can be measured; use {most:,} at most")


def check_numbers(request: EvaluateRequest) -> None:
    """Refuse settings that no data could satisfy."""
    for name in ("samples", "against"):
        if not getattr(request, name):
            raise ValueError(f"{name} is empty; name a folder, zip, npz, data set, model file or reference")
    for name, least in (("batch_size", 1), ("block", 16), ("bootstrap", 0)):
        if getattr(request, name) < least:
            raise ValueError(f"{name}={getattr(request, name)} is less than {least}; use {least} or more")
    if not -(2**63) <= request.seed < 2**63 - MOST_REPLICATES:
        raise ValueError(f"seed={request.seed} has more than 64 bits; use a smaller one")
    if request.evaluator not in EVALUATORS:
        raise ValueError(
            f"evaluator={request.evaluator} is not known; use {' or '.join(EVALUATORS)}, whose Inception "
            "Score, precision and recall differ"
        )
    if request.half and request.evaluator != ADM:
        raise ValueError(f"half is the distances of ADM's evaluator; leave it out with {request.evaluator}")
    if request.consistency is not None and not request.paired:
        raise ValueError("consistency compares enlarged pictures with their own; add --paired")
    if request.lpips and not request.paired:
        raise ValueError(f"lpips={request.lpips} compares pairs; add --paired, or leave it out")
    if request.weights and request.features.startswith("hf:"):
        raise ValueError(f"weights={request.weights} means nothing to {request.features}; leave it out")
    for name in ("n", "neighbours"):
        value = getattr(request, name)
        if value is not None and value < 2:
            raise ValueError(f"{name}={value} is less than 2; a distribution needs more pictures")
        check_most(name, value or 0)
    check_most("bootstrap", request.bootstrap, MOST_REPLICATES)


def choose_network(
    request: EvaluateRequest, device: str, warnings: list[str], *, channels: int
) -> FeatureNetwork:
    """The network asked for; `auto` takes Inception where its weights are on this machine, else what is: for
    colour pictures EfficientNet-Lite0 first.
    """
    chosen = request.weights or None
    if request.features != "auto":
        return open_features(request.features, weights=chosen, device=device)
    try:
        store.find(store.INCEPTION, chosen, download=False)
        return open_features("inception", weights=chosen, device=device)
    except ValueError as missing:
        for name in ("effnet-lite0", "unnoise-small")[channels == 1 :]:
            try:
                network = open_features(name, device=device)
            except ValueError:
                continue
            warnings.append(f"measured with {network.name}, not Inception: {missing}")
            return network
        raise


def open_side(
    request: EvaluateRequest,
    network: FeatureNetwork,
    samples: Pictures,
    *,
    together: bool = False,
    on_progress: Stage = _quiet,
) -> Side:
    """The reference: a file of statistics, or pictures whose features are computed or found in the cache."""
    refuse_model(request.against)
    reference = read_reference(request.against, network) if is_reference(request.against) else None
    pictures: Pictures | None = None
    if reference is None or (reference.has_pictures and reference.table is None):
        pictures = open_pictures(request.against, replace(request, size=_side(request, samples, reference)))
        _same_channels(samples.shape[2], pictures.shape[2], request.against)
    elif "shape" in reference.facts:
        _same_channels(samples.shape[2], reference.facts["shape"][2], request.against)
    if request.paired:
        check_pairs(request, samples, pictures)
    found: Collected | None = None
    if pictures is not None:
        if pictures.n < 2:
            raise ValueError(f"{request.against} has one picture; a reference needs at least 2")
        found = collect(
            pictures,
            network,
            cache=request.cache,
            batch_size=request.batch_size,
            together=together,
            on_progress=lambda done, total: on_progress("reference", done, total),
        )
    if reference is None:
        assert found is not None and pictures is not None
        return Side(
            frechet=found.frechet,
            spatial=found.spatial,
            table=found.table,
            pictures=pictures,
            facts=pictures.facts,
            content=pictures.content,
            n=pictures.n,
        )
    return Side(
        frechet=reference.frechet,
        spatial=reference.spatial,
        table=reference.table or (found.table if found else None),
        pictures=pictures,
        facts=reference.facts,
        content=_hash(reference.frechet),
        n=reference.frechet.n,
    )


def _side(request: EvaluateRequest, samples: Pictures, reference: Reference | None) -> int | None:
    """Side of the reference pictures; drawn samples say which when nobody else does."""
    drawn = samples.is_model or "request" in samples.facts  # now, or by `unnoise sample` before
    if request.size is None and drawn and reference is None:
        return samples.shape[0]
    return request.size


def _hash(gaussian: Gaussian) -> str:
    return hashlib.sha256(gaussian.mean.numpy().tobytes()).hexdigest()[:32]


def _same_channels(fake: int, real: int, against: str) -> None:
    if fake != real:
        raise ValueError(
            f"the samples have {fake} channels and {against} has {real}; "
            "convert one of them, or read both alike with channels=1 or 3"
        )

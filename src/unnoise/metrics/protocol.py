"""What an evaluation was made by, and what a reader must be warned of."""

from typing import Any

import torch

from unnoise import __version__
from unnoise.config.requests import EvaluateRequest
from unnoise.metrics.collect import Collected
from unnoise.metrics.features import FeatureNetwork, Names
from unnoise.metrics.measures import Side
from unnoise.metrics.sources import Pictures

FID_SAMPLES = 50_000


def warnings_of(names: Names, samples: Pictures, real: Side, fake: Collected) -> list[str]:
    """Everything that makes the numbers less comparable than they look."""
    out = []
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
        if samples.facts.get("training_step"):
            out.append("these are not averaged (EMA) weights; published numbers use the average")
        else:
            out.append(
                "the model file does not say whether its weights are averaged (EMA); published numbers use "
                "the average"
            )
    return out


def protocol_of(
    request: EvaluateRequest,
    samples: Pictures,
    real: Side,
    network: FeatureNetwork,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """All that the numbers depend on."""
    return {
        "unnoise": __version__,
        "torch": torch.__version__,
        "features": network.name,
        "weights_hash": network.weights_hash,
        "preprocess": network.preprocess,
        "precision": "float32 features, float64 statistics",
        "evaluator": request.evaluator,
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

"""Every metric against the recorded numbers of ADM's evaluator and torch-fidelity.

The names of the recorded numbers say how they were computed (kid_subsets20_size100_seed2020): they are read,
not listed, and a number that no test reads fails `test_coverage`.
"""

import re

import torch

from tests.goldens import assert_close, golden
from tests.metrics.recipes import probabilities, sides
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.inception_score import inception_score, inception_score_fidelity
from unnoise.metrics.kernel import kernel_distance, kernel_distance_all
from unnoise.metrics.precision_recall import (
    manifold_radii,
    precision_recall,
    precision_recall_fidelity,
    realism,
)
from unnoise.metrics.statistics import Moments

KID = re.compile(r"kid_subsets(\d+)_size(\d+)_seed(\d+)(_float64)?")
SCORE = re.compile(r"torch_fidelity_isc_(\d+)_splits_seed(\d+)")
FIDELITY = re.compile(r"torch_fidelity_precision_recall_k(\d+)")
SEVERAL = re.compile(r"(precision|recall)_f32_nhood((?:_\d+)+)")
READ = (
    r"frechet_(distance|float64_symmetric_sqrt|torch_fidelity_eigvals)|(precision|recall)_f(32|16)"
    r"|mmd2_unbiased_poly_all_samples_float64|inception_score(_float64)?"
    r"|(mu|sigma)_(ref|sample)|radii_(ref|sample)_f(32|16)"
    r"|evaluate_(fraction|batch_predictions|max_realism|nearest)"
    rf"|{KID.pattern}|{SCORE.pattern}|{FIDELITY.pattern}|{SEVERAL.pattern}"
)
NOTES = r"frechet_dtype_\w+|warnings|\w+_(order|convention|note|text)|recipe|sha256_\w+|checks"


def is_distance(spec):
    return "frechet_distance" in spec["results"]


def is_score(spec):
    return "inception_score" in spec["results"]


def close(ours, recorded, relative, floor=0.0):
    assert abs(ours - recorded) <= max(relative * abs(recorded), floor), (ours, recorded)


def matches(pattern, names):
    """(name, groups) of the names that are of a form."""
    found = [(name, pattern.fullmatch(name)) for name in names]
    return [(name, match.groups()) for name, match in found if match]


def nhood_sizes(case):
    """The k of the case's manifolds, as its call says."""
    found = re.search(r"nhood_sizes \(([\d, ]+)\)", case.spec["call"])
    return [int(k) for k in found[1].split(",") if k.strip()] if found else [3]


@golden("metrics", only=lambda spec: True)
def test_coverage(case):
    numbers = [name for name, value in case.spec["results"].items() if not isinstance(value, str)]
    names = [*numbers, *case.spec["outputs"]]
    assert not [n for n in names if not re.fullmatch(f"{READ}|{NOTES}", n)]
    assert is_distance(case.spec) or is_score(case.spec), case.id


@golden("metrics", only=is_distance)
def test_frechet(case):
    real, fake = (Moments.of(x).gaussian() for x in sides(case))
    results = case.spec["results"]
    deficient = min(real.n, fake.n) <= real.mean.numel()
    ours = frechet_distance(real=real, fake=fake)
    # The original averages float32 features in float32; a float64 mean differs by about 1e-6.
    firm = 1e-4 if deficient else 2e-5
    for name, relative, floor in (
        ("frechet_distance", firm, 1e-5),
        ("frechet_float64_symmetric_sqrt", 1e-5, 1e-7),
        ("frechet_torch_fidelity_eigvals", firm, 1e-5),
    ):
        if name in results:
            close(ours, results[name], relative, floor)
    for name, ours, tolerance in (
        ("mu_ref", real.mean, 1e-5),
        ("mu_sample", fake.mean, 1e-5),
        ("sigma_ref", real.covariance, 1e-7),
        ("sigma_sample", fake.covariance, 1e-7),
    ):
        if name in case.spec["outputs"]:
            assert_close(ours, case.output(name), tolerance, name)


@golden("metrics", only=is_distance)
def test_radii(case):
    real, fake = sides(case)
    # Distances cancel: their float32 error scales with the squared norms, not with the distances.
    scale = float(max(real.square().sum(1).max(), fake.square().sum(1).max()))
    for side, x in (("ref", real), ("sample", fake)):
        for kind, tolerance in (("f32", 4e-6), ("f16", 2e-3)):
            name = f"radii_{side}_{kind}"
            if name in case.spec["outputs"]:
                ours = manifold_radii(x, ks=nhood_sizes(case), half=kind == "f16")
                assert ((ours - case.output(name)).abs() <= tolerance * scale).all(), name


@golden("metrics", only=is_distance)
def test_precision_and_recall(case):
    real, fake = sides(case)
    results = case.spec["results"]
    ties = 2.01 / min(len(real), len(fake))
    for kind, tolerance in (("f32", ties), ("f16", 0.01)):
        ours = precision_recall(real=real, fake=fake, k=nhood_sizes(case)[0], half=kind == "f16")
        for name in ("precision", "recall"):
            if f"{name}_{kind}" in results:
                assert abs(getattr(ours, name) - results[f"{name}_{kind}"]) <= tolerance, name
    for name, (k,) in matches(FIDELITY, results):
        other, recorded = precision_recall_fidelity(real=real, fake=fake, k=int(k)), results[name]
        assert abs(other.precision - recorded[0]) <= ties and abs(other.recall - recorded[1]) <= ties
    for name, (which, ks) in matches(SEVERAL, case.spec["outputs"]):
        for k, recorded in zip(ks.split("_")[1:], case.output(name), strict=True):
            both = precision_recall(real=real, fake=fake, k=int(k))
            assert abs(getattr(both, which) - recorded) <= ties, name


@golden("metrics", only=lambda spec: "evaluate_nearest" in spec["outputs"])
def test_realism(case):
    real, fake = sides(case)
    recorded = case.output("evaluate_batch_predictions").bool()
    several = matches(SEVERAL, case.spec["outputs"])
    ks = [int(k) for k in several[0][1][1].split("_")[1:]] if several else nhood_sizes(case)
    ours = realism(real=real, fake=fake, ks=ks[: recorded.shape[1]])
    assert (ours.inside != recorded).sum() <= 2
    assert abs(float(ours.inside.double().mean()) - float(case.output("evaluate_fraction"))) <= 2 / len(fake)
    assert (ours.nearest != case.output("evaluate_nearest")).sum() <= 2
    assert torch.allclose(ours.score, case.output("evaluate_max_realism"), rtol=1e-3, atol=1e-4)


@golden("metrics", only=is_distance)
def test_kernel_distance(case):
    real, fake = sides(case)
    results = case.spec["results"]
    # Recorded float32 kernels carry rounding of their own size; the distance is a small difference.
    scale = float((real.square().mean(1) + 1).pow(3).mean())
    for name, (subsets, size, seed, double) in matches(KID, results):
        a, b = (real.double(), fake.double()) if double else (real, fake)
        ours = kernel_distance(real=a, fake=b, subsets=int(subsets), subset_size=int(size), seed=int(seed))
        recorded = results[name]
        floor = 1e-12 if double else max(1e-4 * abs(recorded["mean"]), 1e-7 * scale)
        tolerance = 1e-6 if double else 1e-4
        close(ours.mean, recorded["mean"], tolerance, floor)
        close(ours.std, recorded["std"], tolerance, floor)
    if "mmd2_unbiased_poly_all_samples_float64" in results:
        recorded = results["mmd2_unbiased_poly_all_samples_float64"]
        ours = kernel_distance_all(real=real.double(), fake=fake.double())
        close(ours, recorded, 1e-6, 1e-9)


@golden("metrics", only=is_score)
def test_inception_score(case):
    probs = probabilities(case)
    results = case.spec["results"]
    ours = inception_score(fake=probs, split=case.spec.get("split_size", 5000))
    close(ours, results["inception_score"], 1e-5)
    if "inception_score_float64" in results:
        close(ours, results["inception_score_float64"], 1e-6)
    for name, (splits, seed) in matches(SCORE, results):
        recorded = results[name]
        other = inception_score_fidelity(fake=probs, splits=int(splits), seed=int(seed))
        close(other.mean, recorded["inception_score_mean"], 1e-5)
        close(other.std, recorded["inception_score_std"], 1e-4)

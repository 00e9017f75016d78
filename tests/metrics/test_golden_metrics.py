"""Every metric against the recorded numbers of ADM's evaluator and torch-fidelity."""

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


def is_distance(spec):
    return "frechet_distance" in spec["results"]


def is_score(spec):
    return "inception_score" in spec["results"]


def close(ours, recorded, relative, floor=0.0):
    assert abs(ours - recorded) <= max(relative * abs(recorded), floor), (ours, recorded)


@golden("metrics", only=is_distance)
def test_frechet(case):
    real, fake = (Moments.of(x).gaussian() for x in sides(case))
    results = case.spec["results"]
    deficient = min(real.n, fake.n) <= real.mean.numel()
    ours = frechet_distance(real=real, fake=fake)
    # The original averages float32 features in float32; a float64 mean differs by about 1e-6.
    close(ours, results["frechet_distance"], 1e-4 if deficient else 2e-5, 1e-5)
    close(ours, results["frechet_float64_symmetric_sqrt"], 1e-5, 1e-7)
    close(ours, results["frechet_torch_fidelity_eigvals"], 1e-4 if deficient else 2e-5, 1e-5)
    for name, ours, tolerance in (
        ("mu_ref", real.mean, 1e-5),
        ("mu_sample", fake.mean, 1e-5),
        ("sigma_ref", real.covariance, 1e-7),
        ("sigma_sample", fake.covariance, 1e-7),
    ):
        if name in case.spec["outputs"]:
            assert_close(ours, case.output(name), tolerance, name)


@golden("metrics", only=is_distance)
def test_precision_and_recall(case):
    real, fake = sides(case)
    results = case.spec["results"]
    n = min(len(real), len(fake))
    # Distances cancel: their float32 error scales with the squared norms, not with the distances.
    scale = float(max(real.square().sum(1).max(), fake.square().sum(1).max()))
    for name, x in (("radii_ref", real), ("radii_sample", fake)):
        recorded = case.output(f"{name}_f32")
        assert (manifold_radii(x) - recorded).abs().max() <= 4e-6 * scale, name
        if f"{name}_f16" in case.spec["outputs"]:
            recorded = case.output(f"{name}_f16")
            error = (manifold_radii(x, half=True) - recorded).abs()
            assert (error <= 2e-3 * scale).all(), name
    ours = precision_recall(real=real, fake=fake)
    assert abs(ours.precision - results["precision_f32"]) <= 2.01 / n
    assert abs(ours.recall - results["recall_f32"]) <= 2.01 / n
    half = precision_recall(real=real, fake=fake, half=True)
    assert abs(half.precision - results["precision_f16"]) <= 0.01
    assert abs(half.recall - results["recall_f16"]) <= 0.01
    other = precision_recall_fidelity(real=real, fake=fake)
    recorded = results["torch_fidelity_precision_recall_k3"]
    assert abs(other.precision - recorded[0]) <= 2.01 / n and abs(other.recall - recorded[1]) <= 2.01 / n
    if "precision_f32_nhood_3_5" in case.spec["outputs"]:
        for i, k in enumerate((3, 5)):
            both = precision_recall(real=real, fake=fake, k=k)
            assert abs(both.precision - case.output("precision_f32_nhood_3_5")[i]) <= 2.01 / n
            assert abs(both.recall - case.output("recall_f32_nhood_3_5")[i]) <= 2.01 / n


@golden("metrics", only=lambda spec: "evaluate_nearest" in spec["outputs"])
def test_realism(case):
    real, fake = sides(case)
    ks = (3, 5)[: case.output("evaluate_batch_predictions").shape[1]]
    ours = realism(real=real, fake=fake, ks=ks)
    assert (ours.inside != case.output("evaluate_batch_predictions").bool()).sum() <= 2
    assert abs(float(ours.inside.double().mean()) - float(case.output("evaluate_fraction"))) <= 2 / len(fake)
    assert (ours.nearest != case.output("evaluate_nearest")).sum() <= 2
    recorded = case.output("evaluate_max_realism")
    assert torch.allclose(ours.score, recorded, rtol=1e-3, atol=1e-4)


@golden("metrics", only=is_distance)
def test_kernel_distance(case):
    real, fake = sides(case)
    seen = 0
    for name, recorded in case.spec["results"].items():
        found = re.fullmatch(r"kid_subsets(\d+)_size(\d+)_seed(\d+)(_float64)?", name)
        if not found:
            continue
        subsets, size, seed = (int(g) for g in found.groups()[:3])
        a, b = (real.double(), fake.double()) if found[4] else (real, fake)
        ours = kernel_distance(real=a, fake=b, subsets=subsets, subset_size=size, seed=seed)
        # Recorded float32 kernels carry rounding of their own size; the distance is a small difference.
        scale = float((real.square().mean(1) + 1).pow(3).mean())
        floor = 1e-12 if found[4] else max(1e-4 * abs(recorded["mean"]), 1e-7 * scale)
        tolerance = 1e-6 if found[4] else 1e-4
        close(ours.mean, recorded["mean"], tolerance, floor)
        close(ours.std, recorded["std"], tolerance, floor)
        seen += 1
    assert seen
    if "mmd2_unbiased_poly_all_samples_float64" in case.spec["results"]:
        recorded = case.spec["results"]["mmd2_unbiased_poly_all_samples_float64"]
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
    if "torch_fidelity_isc_10_splits_seed2020" in results:
        recorded = results["torch_fidelity_isc_10_splits_seed2020"]
        other = inception_score_fidelity(fake=probs)
        close(other.mean, recorded["inception_score_mean"], 1e-5)
        close(other.std, recorded["inception_score_std"], 1e-4)


@golden("metrics", only=lambda spec: not is_distance(spec) and not is_score(spec))
def test_coverage(case):
    raise AssertionError(f"{case.id} is of a kind that no test above reads")

"""Metrics known by argument: equal covariances, one-hot scores, collapsed and noise generators."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.metrics.density_coverage import density_coverage
from unnoise.metrics.distances import lowest, smallest
from unnoise.metrics.frechet import extrapolate_frechet, frechet_distance
from unnoise.metrics.inception_score import inception_score, inception_score_fidelity
from unnoise.metrics.intervals import (
    Z,
    frechet_error,
    kernel_error,
    mean_error,
    score_error,
    share_interval,
)
from unnoise.metrics.kernel import kernel_distance, kernel_distance_all
from unnoise.metrics.nearest import nearest_training
from unnoise.metrics.neighbours import neighbour_distances
from unnoise.metrics.precision_recall import precision_recall, precision_recall_fidelity, realism
from unnoise.metrics.sketch import gathered_products, sampled_products
from unnoise.metrics.statistics import Gaussian, Moments


def normal(n, d, seed, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def random_covariance(d, seed):
    a = normal(2 * d, d, seed).double()
    return a.T @ a / (2 * d)


def test_frechet_of_equal_covariances_is_the_squared_gap_of_means():
    s = random_covariance(30, 0)
    a, b = Gaussian(torch.zeros(30).double(), s), Gaussian(torch.full((30,), 0.5).double(), s)
    assert frechet_distance(real=a, fake=b) == pytest.approx(30 * 0.25, rel=1e-9)
    assert frechet_distance(real=a, fake=a) == pytest.approx(0, abs=1e-9)


def test_frechet_of_commuting_covariances():
    va, vb = torch.rand(40).double() + 0.1, torch.rand(40).double() + 0.1
    q = torch.linalg.qr(normal(40, 40, 2).double()).Q
    a = Gaussian(torch.zeros(40).double(), q @ torch.diag(va) @ q.T)
    b = Gaussian(torch.ones(40).double(), q @ torch.diag(vb) @ q.T)
    expected = 40 + float((va.sqrt() - vb.sqrt()).square().sum())
    assert frechet_distance(real=a, fake=b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_real", "n_fake"), [(20, 20), (20, 500), (500, 20), (2, 2)])
def test_frechet_survives_fewer_pictures_than_dimensions(n_real, n_fake):
    """The nuclear norm of A B^T is tr sqrt(A^T A B^T B) exactly, whatever the rank."""
    x, y = normal(n_real, 64, 1).double(), normal(n_fake, 64, 2, 1.3, 0.2).double()
    real, fake = Moments.of(x).gaussian(), Moments.of(y).gaussian()
    a, b = (x - x.mean(0)) / math.sqrt(n_real - 1), (y - y.mean(0)) / math.sqrt(n_fake - 1)
    nuclear = float(torch.linalg.svdvals(a @ b.T).sum())
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * nuclear
    assert frechet_distance(real=real, fake=fake) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(real=fake, fake=real) == pytest.approx(float(expected), rel=1e-6)


def test_different_networks_cannot_be_compared():
    a, b = Moments.of(normal(10, 4, 0)).gaussian(), Moments.of(normal(10, 5, 0)).gaussian()
    with pytest.raises(ValueError, match="different networks"):
        frechet_distance(real=a, fake=b)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=4), st.integers(0, 1000))
def test_merged_statistics_equal_the_whole(cuts, seed):
    x = normal(60, 5, seed, 3.0, 10.0)
    edges = sorted({0, 60, *cuts})
    merged = Moments(5)
    for a, b in reversed(list(zip(edges, edges[1:], strict=False))):
        merged.merge(Moments.of(x[a:b], chunk=7))
    whole = merged.gaussian()
    assert np.allclose(whole.mean, x.double().mean(0), rtol=1e-12)
    assert np.allclose(whole.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-10, atol=1e-12)
    restored = Moments.from_state(merged.state()).gaussian()
    assert restored.covariance.equal(whole.covariance) and restored.n == 60


def test_statistics_of_one_picture_or_nan_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        Moments.of(normal(1, 3, 0)).gaussian()
    with pytest.raises(ValueError, match="1 of 2 rows are NaN"):
        Moments.of(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))
    with pytest.raises(ValueError, match="dimensions"):
        Moments(3).update(normal(4, 2, 0))


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_inception_score_of_balanced_certainty_is_the_number_of_classes(classes):
    probs = torch.eye(classes).repeat(max(2, 20 // classes), 1)
    assert inception_score(fake=probs) == pytest.approx(classes, rel=1e-9)
    even = torch.full((50, classes), 1 / classes)
    assert inception_score(fake=even) == pytest.approx(1, rel=1e-6)
    assert inception_score_fidelity(fake=even).mean == pytest.approx(1, rel=1e-6)
    assert inception_score_fidelity(fake=even).std == pytest.approx(0, abs=1e-9)


def test_inception_score_of_certainty_in_one_class_is_one():
    assert inception_score(fake=torch.eye(5)[:1].repeat(30, 1)) == pytest.approx(1)


def test_collapsed_generator_is_precise_and_forgets():
    real = normal(400, 8, 1)
    collapsed = real[:1] + normal(400, 8, 2) * 0.01
    found = precision_recall(real=real, fake=collapsed)
    assert found.precision > 0.95 and found.recall < 0.05
    assert density_coverage(real=real, fake=collapsed).coverage < 0.1
    swapped = precision_recall(real=collapsed, fake=real)
    assert swapped.precision == found.recall and swapped.recall == found.precision


def test_noise_generator_is_imprecise():
    real, noise = normal(400, 32, 1), normal(400, 32, 2, 10.0)
    assert precision_recall(real=real, fake=noise).precision == 0
    assert density_coverage(real=real, fake=noise).density == 0
    same = density_coverage(real=real, fake=normal(400, 32, 3))
    assert same.density == pytest.approx(1, abs=0.25) and same.coverage > 0.9


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 4), (137, 333, 40), (50, 50, 3)])
def test_blocks_change_nothing_and_definition_holds(n, m, d):
    real, fake = normal(n, d, 5), normal(m, d, 6, 0.9, 0.1)
    dr, df, both = torch.cdist(real, real), torch.cdist(fake, fake), torch.cdist(real, fake)
    rr, rf = dr.sort(1).values[:, 3], df.sort(1).values[:, 3]
    precision = float((both <= rr[:, None]).any(0).double().mean())
    recall = float((both <= rf[None]).any(1).double().mean())
    for block in (16, 64, 1024):
        found = precision_recall(real=real, fake=fake, block=block)
        assert (found.precision, found.recall) == pytest.approx((precision, recall), abs=1.01 / min(n, m))
    other = precision_recall_fidelity(real=real, fake=fake, block=50)
    assert (other.precision, other.recall) == pytest.approx((precision, recall), abs=1.01 / min(n, m))
    assert torch.allclose(
        neighbour_distances(real, 5, block=32).sqrt()[:, 1:], dr.sort(1).values[:, 1:6], atol=1e-4
    )
    near = realism(real=real, fake=fake, block=64).nearest
    assert (near == both.argmin(0)).double().mean() > 0.99


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.integers(1, 6), st.integers(0, 10**6))
def test_smallest_is_sort(n, k, seed):
    x = normal(3, n, seed)
    expected = torch.cat([x.sort(1).values, torch.full((3, k), math.inf)], 1)[:, :k]
    assert smallest(x, k).equal(expected)
    if n >= k:
        values, columns = lowest(x, k)
        assert values.equal(expected) and x.gather(1, columns).equal(expected)


@pytest.mark.parametrize("products", [sampled_products, gathered_products])
def test_chosen_products_are_those_of_the_matrix(products):
    a, b = normal(37, 50, 1), normal(90, 50, 2)
    chosen = torch.randint(90, (37, 5), generator=torch.Generator().manual_seed(3))
    assert torch.allclose(products(a, b, chosen), (a @ b.T).gather(1, chosen), atol=1e-5)


def test_permutations_change_nothing():
    real, fake = normal(200, 6, 1), normal(150, 6, 2, 1.1)
    order, other = torch.randperm(200), torch.randperm(150)
    for f in (
        lambda a, b: precision_recall(real=a, fake=b).precision,
        lambda a, b: density_coverage(real=a, fake=b).density,
        lambda a, b: kernel_distance_all(real=a, fake=b),
        lambda a, b: frechet_distance(real=Moments.of(a).gaussian(), fake=Moments.of(b).gaussian()),
    ):
        assert f(real, fake) == pytest.approx(f(real[order], fake[other]), rel=1e-5)


def test_kernel_distance_is_unbiased_and_defined():
    a, b = normal(120, 5, 1).double(), normal(120, 5, 2).double()
    values = [
        kernel_distance_all(real=normal(40, 5, 10 + s).double(), fake=normal(40, 5, 500 + s).double())
        for s in range(100)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / 10
    k = lambda x, y: (x @ y.T / 5 + 1) ** 3  # noqa: E731
    off = 1 - torch.eye(120)
    expected = (k(a, a) * off).sum() / 120 / 119 + (k(b, b) * off).sum() / 120 / 119 - 2 * k(a, b).mean()
    assert kernel_distance_all(real=a, fake=b, block=32) == pytest.approx(float(expected), rel=1e-9)
    whole = kernel_distance(real=a, fake=b, subsets=1, subset_size=120)
    assert whole.mean == pytest.approx(float(expected), rel=1e-9)
    with pytest.raises(ValueError, match="subset_size=121"):
        kernel_distance(real=a, fake=b, subset_size=121)


def test_errors_match_the_spread_of_fresh_samples():
    real = Moments.of(normal(4000, 6, 1)).gaussian()
    fresh = [
        frechet_distance(real=real, fake=Moments.of(normal(300, 6, 100 + s, 1.2, 0.3)).gaussian())
        for s in range(150)
    ]
    estimates = [frechet_error(real=real, fake=normal(300, 6, 900 + s, 1.2, 0.3), seed=s) for s in range(5)]
    assert np.mean(estimates) == pytest.approx(np.std(fresh), rel=0.35)
    few = [
        frechet_distance(real=real, fake=Moments.of(normal(6, 6, 100 + s, 1.2, 3.0)).gaussian())
        for s in range(150)
    ]
    estimates = [frechet_error(real=real, fake=normal(6, 6, 900 + s, 1.2, 3.0), seed=s) for s in range(20)]
    assert np.mean(estimates) == pytest.approx(np.std(few), rel=0.5)
    pool = normal(400, 6, 3)
    fresh = [kernel_distance_all(real=pool, fake=normal(200, 6, 100 + s, 1.2, 0.3)) for s in range(150)]
    estimates = [
        kernel_error(real=pool, fake=normal(200, 6, 900 + s, 1.2, 0.3), replicates=200) for s in range(5)
    ]
    assert np.mean(estimates) == pytest.approx(np.std(fresh), rel=0.35)

    def probs(seed):
        return normal(300, 10, seed, 2.0).softmax(1)

    fresh = [inception_score(fake=probs(100 + s)) for s in range(150)]
    assert score_error(probs(7), replicates=200) == pytest.approx(np.std(fresh), rel=0.35)
    assert mean_error(torch.tensor([0.0, 1.0, 1.0, 1.0])) == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


@pytest.mark.parametrize(("right", "count"), [(0, 10), (1, 7), (50, 200), (200, 200)])
def test_interval_of_a_share_ends_where_the_share_is_1_96_errors_away(right, count):
    share = right / count
    low, high = share_interval(share, count)
    assert 0 <= low <= share <= high <= 1 and low < high
    for p in (low, high):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(share - p) == pytest.approx(Z * math.sqrt(p * (1 - p) / count))
    assert (low > 0) == (right > 0) and (high < 1) == (right < count)


def test_extrapolation_removes_the_bias_of_few_samples():
    real = Gaussian(torch.zeros(10).double(), torch.eye(10).double())
    truth = 10 * (0.1**2 + 0.2**2)
    raw, ours = [], []
    for s in range(20):
        fake = normal(200, 10, s, 1.1, 0.2)
        raw.append(frechet_distance(real=real, fake=Moments.of(fake).gaussian()))
        ours.append(extrapolate_frechet(real=real, fake=fake).value)
    assert np.mean(raw) > truth + 0.1
    assert abs(np.mean(ours) - truth) < 0.25 * (np.mean(raw) - truth)


def test_copies_of_training_pictures_are_found():
    real = normal(500, 16, 1) * 3 + 40
    fake = torch.cat([real[:30] + 1e-4, normal(70, 16, 2) * 3 + 40])
    found = nearest_training(real=real, fake=fake, k=2)
    assert found.copies[:30].all() and found.share < 0.4
    assert found.indices[:30, 0].equal(torch.arange(30))
    assert {i for i, *_ in found.closest_pairs(30)} == set(range(30))
    brute = torch.cdist(fake[30:], real).topk(2, largest=False).indices
    assert (found.indices[30:] == brute).double().mean() > 0.99


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3, 3.0])
def test_sketches_change_nothing(noise):
    """From features of six degrees of freedom, where sketches decide nearly all, to mere noise."""
    directions = normal(6, 160, 9)
    real = normal(1400, 6, 1) @ directions + normal(1400, 160, 2) * noise + 5
    fake = normal(1100, 6, 3, 0.9, 0.1) @ directions + normal(1100, 160, 4) * noise + 5
    fake[:20] = real[:20]
    exact = torch.cdist(real.double(), real.double()).square().sort(1).values[:, :4]
    assert torch.allclose(
        neighbour_distances(real, 3).double(),
        exact,
        rtol=1e-3,
        atol=2e-5 * float(real.square().sum(1).max()),
    )
    both = torch.cdist(real.double(), fake.double())
    rr = exact[:, 3].sqrt()
    rf = torch.cdist(fake.double(), fake.double()).sort(1).values[:, 3]
    found = precision_recall(real=real, fake=fake)
    assert found.precision == pytest.approx(float((both <= rr[:, None]).any(0).double().mean()), abs=2 / 1100)
    assert found.recall == pytest.approx(float((both <= rf[None]).any(1).double().mean()), abs=2 / 1100)


def test_replicates_of_one_picture_alone_are_passed_over():
    """Of three pictures, one replicate in nine draws one alone, and no pair."""
    real, fake = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (9, 3))
    assert 0 < kernel_error(real=real, fake=fake, replicates=50) < 100

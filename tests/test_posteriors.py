"""The script behind docs/posteriors.md: what it calls exact is, and what it measures can be told apart."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from tests.test_scripts import run, script
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import hold_known
from unnoise.diffusion.schedule import NoiseSchedule, make_betas

WAYS = ["a pixel of four is known", "grey is known", "the mean of the pixels is known"]


@pytest.fixture(scope="module")
def posteriors():
    return script("posteriors")


def by_gauss(mixture, held):
    """Mean and covariance of x given A x = A known, A the orthonormal rows of what is seen: each component
    conditioned as any joint normal is, weighed by the density of A x under it.
    """
    size = mixture.means.shape[1]
    unit = torch.eye(size, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(held.project(unit.view(size, *held.known.shape[1:])).flatten(1))
    rows = vectors[:, values > 0.5].T
    seen = rows @ held.known.flatten()
    weights, means, covariances = [], [], []
    for weight, mean, variance in zip(mixture.weights, mixture.means, mixture.variances, strict=True):
        inner = rows @ (variance * unit) @ rows.T
        gain = variance * rows.T @ inner.inverse()
        weights.append(weight * MultivariateNormal(rows @ mean, inner).log_prob(seen).exp())
        means.append(mean + gain @ (seen - rows @ mean))
        covariances.append(variance * (unit - gain @ rows))
    shares = torch.stack(weights) / sum(weights)
    mean = sum(share * each for share, each in zip(shares, means, strict=True))
    spread = [cov + torch.outer(m - mean, m - mean) for m, cov in zip(means, covariances, strict=True)]
    return mean, sum(share * each for share, each in zip(shares, spread, strict=True))


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("seed", [0, 3])
def test_the_posterior_is_that_of_conditioned_normals(posteriors, name, seed):
    mixture, known = posteriors.data(seed)
    assert list(known) == WAYS
    found, expected = mixture.posterior(known[name]), by_gauss(mixture, known[name])
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_posterior_is_that_of_draws_that_look_alike(posteriors):
    """By force: of two million pictures those within 0.02 of the one number that is known."""
    mixture, _ = posteriors.data(0)
    known = torch.full((1, 3, 2, 2), 0.2, dtype=torch.float64)
    mask = torch.zeros(3, 2, 2)
    mask[1, 0, 1] = 1
    generator = torch.Generator().manual_seed(5)
    which = torch.multinomial(mixture.weights, 2_000_000, replacement=True, generator=generator)
    noise = torch.randn(len(which), 12, generator=generator, dtype=torch.float64)
    x = mixture.means[which] + mixture.variances[which, None].sqrt() * noise
    alike = x[(x[:, 5] - 0.2).abs() < 0.02]
    mean, covariance = mixture.posterior(hold_known(known, mask))
    free = [k for k in range(12) if k != 5]
    error = (alike.var(0) / len(alike)).sqrt()
    assert len(alike) > 10_000
    assert ((alike.mean(0) - mean).abs() < 5 * error)[free].all()
    assert (alike.T.cov() - covariance)[free][:, free].abs().max() < 0.05 * covariance.diagonal()[free].max()


def test_the_denoiser_is_the_gradient_of_the_density(posteriors):
    """Tweedie's formulae, of a density that torch works out: E[x0 | x_t], and the variance of a step."""
    mixture, _ = posteriors.data(0)
    schedule = NoiseSchedule.from_betas(make_betas("linear", 1000))
    x = torch.randn(4, *posteriors.SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for step in (0, 100, 400, 999):
        at = schedule.at(step, x)
        alpha, sigma = (float(each.flatten()[0]) for each in (at.scales.alpha, at.scales.sigma))
        noisy = (alpha**2 * mixture.variances + sigma**2).sqrt()[:, None].expand(4, 12)
        parts = Independent(Normal(alpha * mixture.means, noisy), 1)
        density = MixtureSameFamily(Categorical(mixture.weights), parts)
        said = mixture(x, at, Condition())
        for k, row in enumerate(x.flatten(1)):
            slope = torch.func.grad(density.log_prob)(row)
            bend = torch.func.hessian(density.log_prob)(row).diagonal()
            x0 = (row + sigma**2 * slope) / alpha
            assert torch.allclose(said.x0[k].flatten(), x0, rtol=1e-7, atol=1e-9)
            spread = sigma**2 * (1 + sigma**2 * bend) / alpha**2
            least = 0.0 if step == 0 else float(at.scales.variance.flatten()[0])
            best = least + float(at.scales.coef_x0.flatten()[0]) ** 2 * spread
            assert torch.allclose(said.log_variance[k].flatten().exp(), best, rtol=1e-5, atol=1e-12)


def test_errors_are_what_draws_miss_and_not_their_noise(posteriors):
    """Exact draws miss nothing, shifted ones their shift, spread ones the square of their spread."""
    mixture, known = posteriors.data(0)
    mean, covariance = mixture.posterior(known["grey is known"])
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt()
    drawn = torch.randn(4000, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64) @ root.T
    weights = torch.ones(4000, 1, dtype=torch.float64)

    def missed(x):
        return posteriors.errors(x[:, None], weights, mean, covariance)

    exact = missed(mean + drawn)
    assert exact["mean"].low == 0 and exact["mean"].high < 0.05
    assert exact["covariance"].low == 0 and exact["covariance"].high < 0.15
    shifted = missed(mean + drawn + vectors[:, -1] * 0.5 * covariance.trace().sqrt())["mean"]
    assert shifted.low < 0.5 < shifted.high and shifted.size == pytest.approx(0.5, abs=0.04)
    wide = missed(mean + 1.5 * drawn)
    assert wide["covariance"].size == pytest.approx(1.5**2 - 1, abs=0.15) and wide["mean"].low == 0


def test_particles_come_to_the_posterior_and_replacement_does_not(posteriors, tmp_path, monkeypatch, capsys):
    """The claims of the page, with intervals, of a short run of its command."""
    figure = tmp_path / "figure.svg"
    run(
        monkeypatch, "posteriors", "--out", figure, "-n", 600, "--clouds", 200, "--steps", 25, "--base", 25,
        "--repeats", 2, "--scales", 10, "--particles", 1, 16,
    )  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in said if line.startswith("| ")]
    rows = [line for line in lines if line[0] != "way"]
    assert [line for line in said if line in WAYS] == WAYS and len(rows) == 6 * len(WAYS)
    for place, name in enumerate(WAYS):
        found = {(way, setting): rest for way, setting, *rest in rows[6 * place : 6 * place + 6]}
        assert {key: int(rest[0]) for key, rest in found.items()} == {
            ("replacement", "25 steps"): 25,
            ("RePaint", "25 steps, 2 repeats"): 45,
            ("DPS, scale 10", "25 steps"): 25,
            ("PiGDM", "25 steps"): 25,
            ("particles", "25 steps, 1"): 25,
            ("particles", "25 steps, 16"): 400,
        }
        for column in (1, 2):
            biased = spans(found["replacement", "25 steps"][column])
            exact = spans(found["particles", "25 steps, 16"][column])
            assert biased[1] > 0.2, name
            assert exact[1] == 0 or exact[0] < biased[1] / 3, name
            assert exact[2] < biased[1], name
    assert figure.read_text().startswith("<svg ") and figure.read_text().count("<svg ") == 7


def spans(cell):
    """Size, low and high of "0.458 (0.423 to 0.491)"."""
    size, rest = cell.rstrip(")").split(" (")
    found = float(size), *map(float, rest.split(" to "))
    assert not any(map(math.isnan, found)) and found[1] <= found[0] <= found[2]
    return found

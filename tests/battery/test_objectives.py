"""What every objective must do: (B,) losses, finite gradients, least at the exact denoiser."""

import itertools
import math

import pytest
import torch

from tests.analytic import Gaussian, Network
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.objectives import OBJECTIVES, Hybrid, Simple, Vlb
from unnoise.diffusion.schedule import At, NoiseSchedule, make_betas

NONE = Condition()
SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 40))
DATA = Gaussian(torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.05, dtype=torch.float64))
FIXED, LEARNED = ("fixed_small", "fixed_large"), ("learned", "learned_range")
TAKES = {"simple": FIXED, "hybrid": LEARNED, "vlb": FIXED + LEARNED}
CASES = [
    (name, predicts, variance)
    for name in OBJECTIVES
    for predicts, variance in itertools.product(("eps", "x0", "v", "mean"), TAKES[name])
]


def built(predicts: str, variance: str) -> Denoiser:
    return Denoiser(Network(DATA, SCHEDULE, predicts, variance), predicts=predicts, variance=variance)


def batch(copies: int = 60) -> tuple[torch.Tensor, At, torch.Tensor]:
    """Grey levels at every entry, `copies` times."""
    g = torch.Generator().manual_seed(0)
    x0 = 0.1 + 0.05**0.5 * torch.randn(40 * copies, 1, 4, 4, generator=g, dtype=torch.float64)
    x0 = ((x0 + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    return x0, SCHEDULE.at(torch.arange(40).repeat(copies), x0), torch.randn(
        x0.shape, generator=g, dtype=torch.float64
    )  # fmt: skip


X0, AT, EPS = batch()


@pytest.mark.parametrize(("name", "predicts", "variance"), CASES)
def test_minimum_at_the_exact_denoiser(name: str, predicts: str, variance: str) -> None:
    """Spoiling the exact answer, or its variance, costs either way."""
    objective, denoiser = OBJECTIVES[name](), built(predicts, variance)
    losses = objective(denoiser, X0, AT, eps=EPS, cond=NONE)
    assert all(loss.shape == (len(X0),) and loss.isfinite().all() for loss in losses.values())
    exact = losses["loss"].mean()
    parameters = denoiser.network
    named = {"gain": 1.0, "bias": 0.0} | ({"wider": 0.0} if variance.startswith("learned") else {})
    gradients = torch.autograd.grad(exact, [getattr(parameters, key) for key in named])
    for (key, value), gradient in zip(named.items(), gradients, strict=True):
        parameter = getattr(parameters, key)
        costs = []
        for change in (-0.1, 0.1):
            with torch.no_grad():
                parameter.fill_(value + change)
                costs.append(objective(denoiser, X0, AT, eps=EPS, cond=NONE)["loss"].mean().item())
                parameter.fill_(value)
        assert min(costs) > exact.item(), (key, costs, exact.item())
        assert gradient.isfinite(), key


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "mean"])
@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_min_snr_is_one_loss_on_x0_whatever_is_predicted(predicts: str, gamma: float) -> None:
    """min(snr, gamma) |x0 - x0_hat|^2, worked out from the decoded prediction (arXiv:2303.09556 Eq. 6)."""
    denoiser = built(predicts, "fixed_small")
    with torch.no_grad():
        denoiser.network.gain.fill_(0.9)
    objective = Simple(weight="min_snr", min_snr_gamma=gamma)
    loss = objective(denoiser, X0, AT, eps=EPS, cond=NONE)["loss"]
    x = AT.scales.alpha * X0 + AT.scales.sigma * EPS
    square = ((denoiser(x, AT, NONE).x0 - X0) ** 2).flatten(1).mean(1)
    weight = (AT.alpha_bar / (1 - AT.alpha_bar)).clamp(max=gamma)
    torch.testing.assert_close(loss, weight * square, rtol=1e-6, atol=1e-12)


def test_hybrid_is_its_parts_and_the_bound_trains_the_variance_alone() -> None:
    denoiser = built("eps", "learned_range")
    with torch.no_grad():
        denoiser.network.gain.fill_(0.9)
        denoiser.network.wider.fill_(0.3)
    hybrid = Hybrid(vlb_weight=0.01)(denoiser, X0, AT, eps=EPS, cond=NONE)
    vlb = Vlb()(denoiser, X0, AT, eps=EPS, cond=NONE)
    torch.testing.assert_close(hybrid["vlb"], vlb["vlb"])
    torch.testing.assert_close(vlb["loss"], 40 * vlb["vlb"])
    torch.testing.assert_close(hybrid["loss"], hybrid["mse"] + 0.01 * vlb["loss"])
    network = denoiser.network
    gain, wider = torch.autograd.grad(hybrid["loss"].mean(), [network.gain, network.wider], retain_graph=True)
    (of_mse,) = torch.autograd.grad(hybrid["mse"].mean(), network.gain)
    (of_vlb,) = torch.autograd.grad(vlb["loss"].mean(), network.wider)
    torch.testing.assert_close(gain, of_mse)
    torch.testing.assert_close(wider, 0.01 * of_vlb)


def test_learnt_logvar() -> None:
    """loss = mse / exp(logvar) + logvar, least at logvar = log(mse)."""
    denoiser = built("eps", "fixed_small")
    logvar = torch.linspace(-1, 1, len(X0), dtype=torch.float64)
    losses = Simple()(denoiser, X0, AT, eps=EPS, cond=NONE, logvar=logvar)
    torch.testing.assert_close(losses["loss"], losses["mse"] / logvar.exp() + logvar)
    with pytest.raises(ValueError, match="logvar"):
        Vlb()(denoiser, X0, AT, eps=EPS, cond=NONE, logvar=logvar)


def test_refusals_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="use hybrid"):
        Simple()(built("eps", "learned"), X0, AT, eps=EPS, cond=NONE)
    with pytest.raises(ValueError, match="use simple"):
        Hybrid()(built("eps", "fixed_large"), X0, AT, eps=EPS, cond=NONE)
    for objective in (Simple, Hybrid):
        with pytest.raises(ValueError, match="weight="):
            objective(weight="snr")
        with pytest.raises(ValueError, match="min_snr_gamma=0"):
            objective(weight="min_snr", min_snr_gamma=0)


def test_absolute_error_and_its_weights() -> None:
    denoiser = built("eps", "fixed_small")
    with torch.no_grad():
        denoiser.network.gain.fill_(0.9)
    square = Simple()(denoiser, X0, AT, eps=EPS, cond=NONE)
    plain = Simple(error="l1")(denoiser, X0, AT, eps=EPS, cond=NONE)
    x = AT.scales.alpha * X0 + AT.scales.sigma * EPS
    missed = denoiser.raw(x, AT, NONE) - EPS
    torch.testing.assert_close(plain["mae"], missed.abs().flatten(1).mean(1))
    torch.testing.assert_close(square["mse"], (missed**2).flatten(1).mean(1))
    both = Simple(error="l1", simple_weight=0.5, elbo_weight=0.1)(denoiser, X0, AT, eps=EPS, cond=NONE)
    torch.testing.assert_close(both["loss"], 0.5 * plain["mae"] + 0.1 * both["elbo"])


def test_weights_of_the_bound_are_those_of_its_terms() -> None:
    """Entry by entry the KL term of the posterior in nats, where the variance is fixed (DDPM Eq. 12)."""
    denoiser = built("eps", "fixed_small")
    with torch.no_grad():
        denoiser.network.gain.fill_(0.9)
    bound = Vlb()(denoiser, X0, AT, eps=EPS, cond=NONE)["vlb"] * math.log(2)
    elbo = Simple(elbo_weight=1.0)(denoiser, X0, AT, eps=EPS, cond=NONE)["elbo"]
    later = AT.i > 0
    torch.testing.assert_close(elbo[later], bound[later], rtol=1e-6, atol=1e-10)


def test_options_of_the_simple_objective_are_checked() -> None:
    with pytest.raises(ValueError, match="error='l3' is unknown; use one of l2, l1"):
        Simple(error="l3")
    with pytest.raises(ValueError, match="leave nothing to minimise"):
        Simple(simple_weight=0.0)
    with pytest.raises(ValueError, match="predicts=v .* predict eps or x0"):
        Simple(elbo_weight=1.0)(built("v", "fixed_small"), X0, AT, eps=EPS, cond=NONE)

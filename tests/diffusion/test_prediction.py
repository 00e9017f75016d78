"""Every parameterisation of every variance decodes to the same exact prediction."""

import pytest
import torch
from torch import Tensor, nn

from tests.analytic import Gaussian, Network
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.prediction import DECODERS, eps_from_x0, posterior_mean, reverse, x0_from_eps
from unnoise.diffusion.schedule import NoiseSchedule, add_noise, make_betas

SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 50))
DATA = Gaussian(torch.tensor(0.2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64), optimal=True)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = 0.2 + 0.5 * torch.randn(50, 2, 4, 4, generator=generator, dtype=torch.float64)
    return x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64)


X0, EPS = batch()
AT = SCHEDULE.at(torch.arange(50), X0)
X = add_noise(X0, EPS, AT)


@pytest.mark.parametrize("predicts", DECODERS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned", "learned_range"])
def test_all_say_the_same(predicts: str, variance: str) -> None:
    network = Network(DATA, SCHEDULE, predicts, variance)
    prediction = Denoiser(network, predicts=predicts, variance=variance)(X, AT, Condition())
    exact = DATA(X, AT, Condition())
    torch.testing.assert_close(prediction.x0, exact.x0, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(prediction.eps, exact.eps, rtol=1e-8, atol=1e-7)
    said = reverse(prediction, X, AT)
    torch.testing.assert_close(said.mean, posterior_mean(exact.x0, X, AT), rtol=1e-8, atol=1e-9)
    wanted = {
        "fixed_small": AT.scales.log_variance,
        "fixed_large": AT.scales.log_variance_large,
        "learned": exact.log_variance,
        "learned_range": exact.log_variance,
    }[variance].expand_as(X)
    torch.testing.assert_close(said.log_variance.expand_as(X), wanted, rtol=1e-8, atol=1e-8)
    variances = said.variance.expand_as(X)
    torch.testing.assert_close(variances[1:], wanted[1:].exp(), rtol=1e-8, atol=1e-12)
    if variance == "fixed_small":
        assert (variances[0] == 0).all()


@pytest.mark.parametrize("predicts", DECODERS)
def test_target_decodes_to_the_truth(predicts: str) -> None:
    """What a network is trained to say, said, is x0 and eps themselves."""
    denoiser = Denoiser(torch.nn.Identity(), predicts=predicts)
    prediction = denoiser.decode(denoiser.target(X0, X, AT, eps=EPS), X, AT)
    torch.testing.assert_close(prediction.x0, X0, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(prediction.eps, EPS, rtol=1e-6, atol=1e-6)


def test_eps_x0_eps() -> None:
    x0 = x0_from_eps(X, EPS, AT)
    torch.testing.assert_close(x0, X0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_from_x0(X, x0, AT), EPS, rtol=1e-9, atol=1e-9)


def test_refusals_and_low_precision() -> None:
    with pytest.raises(ValueError, match="eps, x0, v, mean"):
        Denoiser(torch.nn.Identity(), predicts="noise")
    with pytest.raises(ValueError, match="fixed_small"):
        Denoiser(torch.nn.Identity(), variance="none")

    class Half(torch.nn.Module):
        def forward(self, x, t, cond):
            assert t.dtype == torch.float32 and isinstance(cond, Condition)
            return x.bfloat16()

    x = X.float()
    prediction = Denoiser(Half())(x, SCHEDULE.at(AT.i, x), Condition())
    assert prediction.x0.dtype == prediction.eps.dtype == torch.float32


def test_v_posterior_mixes_the_variances() -> None:
    schedule = NoiseSchedule.from_betas(make_betas("linear", 100))
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    at = schedule.at(torch.tensor([0, 1, 50, 99]), x)

    def variance(share: float) -> Tensor:
        denoiser = Denoiser(lambda x, t, cond: x, variance="fixed_small", v_posterior=share)
        return reverse(denoiser(x, at, Condition()), x, at).variance.flatten()

    posterior, betas = schedule.posterior_variance[at.i], schedule.betas[at.i]
    torch.testing.assert_close(variance(0.0), posterior)
    torch.testing.assert_close(variance(0.25), 0.75 * posterior + 0.25 * betas)
    torch.testing.assert_close(variance(1.0), betas)
    with pytest.raises(ValueError, match="v_posterior=0.5 with variance=fixed_large"):
        Denoiser(nn.Identity(), variance="fixed_large", v_posterior=0.5)

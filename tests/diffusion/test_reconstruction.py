"""Reconstruction guidance: exact where theory says so, elsewhere as published; one pass there and back."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.analytic import Gaussian, Mixture
from tests.battery.registry import ALL
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.constrain import AtEnd, hold_grey, hold_known, hold_low_frequencies
from unnoise.diffusion.guidance import classifier_free, classifier_guide, two_models
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.prediction import Prediction, eps_from_x0, posterior_mean, x0_from_eps
from unnoise.diffusion.reconstruction import Measured, dps, look, pigdm
from unnoise.diffusion.samplers import Ddpm
from unnoise.diffusion.schedule import At, NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.transforms import clip_x0
from unnoise.diffusion.walk import run

NONE = Condition()
SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 1000)).respaced(space(12, 1000))
SHAPE = (2, 4, 4)
VARIANCE = 0.25
DATA = Gaussian(torch.tensor(0.3, dtype=torch.float64), torch.tensor(VARIANCE, dtype=torch.float64))


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MIXTURE = Mixture(
    0.7 * pixels(3, seed=7), torch.tensor([0.1, 0.3, 0.2]).double(), torch.tensor([0.5, 0.2, 0.3]).double()
)
X, KNOWN = pixels(5), pixels(5, seed=1)
AT = SCHEDULE.at(torch.tensor([0, 3, 6, 9, 11]), X)
MASK = (torch.rand(4, 4, generator=torch.Generator().manual_seed(2)) < 0.5).double()
HELD = {
    "mask": hold_known(KNOWN, MASK),
    "masks": hold_known(KNOWN, (pixels(5, seed=3)[:, :1] > 0).double()),
    "grey": hold_grey(KNOWN),
    "blocks": hold_low_frequencies(KNOWN, 2),
}
METHODS = {"dps": dps, "pigdm": pigdm}


def last(steps) -> Tensor:
    *_, end = steps
    return end.x


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def consistent(prediction: Prediction, x: Tensor, at: At) -> None:
    close(prediction.x0, x0_from_eps(x, prediction.eps, at))
    assert not any(value.requires_grad for value in vars(prediction).values() if value is not None)


@pytest.mark.parametrize("name", HELD)
def test_pigdm_is_exact_on_independent_normals(name: str) -> None:
    """E[x0 | x_t, P x0] of N(m, v 1): what is seen is known, the rest as before."""
    held = HELD[name]
    guided = pigdm(DATA, held, variance=VARIANCE)(X, AT, NONE)
    plain = DATA(X, AT, NONE)
    close(guided.x0, plain.x0 + held.project(KNOWN - plain.x0))
    consistent(guided, X, AT)


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_draws_the_conditional_where_pigdm_is_exact(name: str) -> None:
    held, noise = HELD["blocks"], SeededNoise(0, range(5))

    def conditional(x: Tensor, at: At, cond: Condition) -> Prediction:
        plain = DATA(x, at, cond)
        x0 = plain.x0 + held.project(KNOWN - plain.x0)
        return Prediction(x0, eps_from_x0(x, x0, at))

    ends = [
        last(run(ALL[name], denoise, X, SCHEDULE.path(X), cond=NONE, noise=noise))
        for denoise in (conditional, pigdm(DATA, held, variance=VARIANCE))
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-8)
    assert held.missing(ends[1]).abs().max() < 1e-8


def test_pigdm_goes_no_further_than_where_least_is_missing() -> None:
    """Pictures s u, s normal: the gradient is |u|^2 times too long, and what is least off is the best s."""
    u = pixels(1, seed=4)

    def line(x: Tensor, at: At, cond: Condition) -> Prediction:
        alpha, sigma = at.scales.alpha, at.scales.sigma
        spread = u.square().sum()
        s = alpha * (u * x).flatten(1).sum(1).view(-1, 1, 1, 1) / (alpha**2 * spread + sigma**2)
        return Prediction(s * u, eps_from_x0(x, s * u, at))

    at = SCHEDULE.at(8, X)
    best = (MASK * u * KNOWN).flatten(1).sum(1) / (MASK * u * u).sum()
    close(pigdm(line, HELD["mask"])(X, at, NONE).x0, best.view(-1, 1, 1, 1) * u)


def test_pigdm_survives_a_network_that_is_wrong_where_noise_is_all() -> None:
    """What a network gets wrong of eps is in its gradient 1 / alpha times, and once more in the move."""
    wrong = 0.05 * torch.randn(32, 32, generator=torch.Generator().manual_seed(8), dtype=torch.float64)

    def spoiled(x: Tensor, at: At, cond: Condition) -> Prediction:
        eps = DATA(x, at, cond).eps + (x.flatten(1) @ wrong).view_as(x)
        return Prediction(x0_from_eps(x, eps, at), eps)

    at, held = SCHEDULE.at(11, X), HELD["mask"]
    plain, pulled = spoiled(X, at, NONE), pigdm(spoiled, held)(X, at, NONE)
    unlimited = look(spoiled, held, X, at, NONE).gradient / at.scales.alpha
    before = held.missing(plain.x0).flatten(1).norm(dim=1)
    assert bool((unlimited.flatten(1).norm(dim=1) > 100 * before).all())
    assert bool((held.missing(pulled.x0).flatten(1).norm(dim=1) <= before).all())
    assert bool(((pulled.x0 - plain.x0).flatten(1).norm(dim=1) < 10 * before).all())


@pytest.mark.parametrize("far", [True, False])
def test_dps_is_the_published_move_but_for_overshooting(far: bool) -> None:
    """x_{i-1} moves by -zeta grad |r|; where |r| would fall below 0 it moves to where a linear |r| is 0."""
    held = hold_known(KNOWN + 100 * far, MASK)
    scale = 2.0 if far else 200.0
    place = X.clone().requires_grad_(True)
    r = (MASK * (held.known - MIXTURE(place, AT, NONE).x0)).flatten(1).norm(dim=1)
    (slope,) = torch.autograd.grad(r.sum(), place)
    zeta = scale * 32**0.5 / SCHEDULE.steps
    most = r.detach() / slope.flatten(1).square().sum(1)
    assert bool((zeta < most).all() if far else (zeta > most).any())
    plain, guided = MIXTURE(X, AT, NONE), dps(MIXTURE, held, scale=scale)(X, AT, NONE)
    moved = posterior_mean(guided.x0, X, AT) - posterior_mean(plain.x0, X, AT)
    close(moved, -most.clamp(max=zeta).view(-1, 1, 1, 1) * slope)
    consistent(guided, X, AT)


def test_dps_comes_nearer_to_what_is_known_the_stronger_it_is() -> None:
    path, noise = SCHEDULE.path(X), SeededNoise(0, range(5))
    missing = []
    for scale in (0.0, 0.5, 2.0, 8.0):
        end = last(run(Ddpm(), dps(MIXTURE, HELD["mask"], scale=scale), X, path, cond=NONE, noise=noise))
        missing.append(HELD["mask"].missing(end).square().mean().item())
    assert missing == sorted(missing, reverse=True) and missing[-1] < 0.01 * missing[0], missing


@pytest.mark.parametrize("method", METHODS)
def test_any_differentiable_measurement(method: str) -> None:
    """A projection said as a residual is the same; a decoder that bends the picture is followed too."""
    guide, held = METHODS[method], HELD["grey"]
    close(
        guide(MIXTURE, Measured(lambda x0: (KNOWN - x0).mean(1, keepdim=True).expand_as(x0)))(X, AT, NONE).x0,
        guide(MIXTURE, held)(X, AT, NONE).x0,
    )
    seen = torch.tanh(KNOWN)[:, :, ::2]
    bent = Measured(lambda x0: seen - torch.tanh(x0)[:, :, ::2])
    noise, path = SeededNoise(0, range(5)), SCHEDULE.path(X)
    ends = [
        last(run(Ddpm(), denoise, X, path, cond=NONE, noise=noise))
        for denoise in (MIXTURE, guide(MIXTURE, bent, scale={"dps": 8.0, "pigdm": 1.0}[method]))
    ]
    errors = [bent.missing(end).square().mean().item() for end in ends]
    assert errors[1] < 0.2 * errors[0], errors


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", METHODS)
def test_all_known_and_nothing_known(method: str, name: str) -> None:
    """All: it comes back to the bit. Nothing: plain sampling with the same noise, to the bit."""
    path, noise = SCHEDULE.path(X), SeededNoise(0, range(5))

    def drawn(mask: Tensor) -> Tensor:
        held = hold_known(KNOWN, mask)
        denoise = METHODS[method](MIXTURE, held)
        return last(run(ALL[name], denoise, X, path, cond=NONE, noise=noise, constraint=AtEnd(held)))

    assert torch.equal(drawn(torch.ones(4, 4)), KNOWN)
    plain = last(run(ALL[name], MIXTURE, X, path, cond=NONE, noise=noise))
    assert torch.equal(drawn(torch.zeros(4, 4)), plain)
    mixed = drawn(MASK)
    assert torch.equal(MASK * mixed, MASK * KNOWN) and not torch.equal((1 - MASK) * mixed, (1 - MASK) * plain)


@pytest.mark.parametrize("method", METHODS)
def test_off_is_off(method: str) -> None:
    assert METHODS[method](MIXTURE, HELD["mask"], scale=0) is MIXTURE
    with pytest.raises(ValueError, match="scale=-1"):
        METHODS[method](MIXTURE, HELD["mask"], scale=-1)
    with pytest.raises(ValueError, match="variance=0"):
        pigdm(MIXTURE, HELD["mask"], variance=0)


class Counted(torch.nn.Module):
    """The mixture told a label, 3 for none, as a network with a weight; passes are counted, x0 is float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.rows: list[int] = []
        self.back: list[int] = []

    def forward(self, x: Tensor, at: At, cond: Condition) -> Prediction:
        assert x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        self.rows.append(len(x))
        if x.requires_grad:
            x.register_hook(lambda gradient: self.back.append(len(gradient)))
        told = MIXTURE(x, at, Condition(label=cond.label.clamp(max=2)))
        x0 = torch.where((cond.label == 3).view(-1, 1, 1, 1), MIXTURE(x, at, NONE).x0, told.x0)
        x0 = self.weight * x0
        return Prediction(x0, eps_from_x0(x, x0, at), var_fraction=0 * x0 + 0.3)


@pytest.mark.parametrize("method", METHODS)
def test_one_pass_there_and_back_with_guidance_inside_or_outside(method: str) -> None:
    """In float32 with autocast off, leaving no gradient behind; outside, the batch lies behind itself."""
    x, known = X.float(), KNOWN.float()
    at, cond = SCHEDULE.at(torch.tensor([0, 2, 4, 6, 8]), x), Condition(label=torch.tensor([0, 1, 2, 0, 1]))
    held = hold_known(known, HELD["masks"].mask.float())
    nothing = lambda cond: null(cond, {"label": 3})  # noqa: E731
    guide = METHODS[method]
    for outside in (False, True):
        model = Counted()
        if outside:
            denoise = classifier_free(guide(model, held), nothing, 2.5)
            by_hand = two_models(guide(Counted(), held), guide(Counted(), held), 2.5, null=nothing)
        else:
            denoise = guide(classifier_free(model, nothing, 2.5), held)
            by_hand = guide(two_models(Counted(), Counted(), 2.5, null=nothing), held)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            guided, wanted = denoise(x, at, cond), by_hand(x, at, cond)
        assert model.rows == [10] and model.back == [10]
        assert model.weight.grad is None and model.weight.requires_grad
        torch.testing.assert_close(guided.x0, wanted.x0, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(guided.x0, x0_from_eps(x, guided.eps, at), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(guided.var_fraction, torch.full_like(x, 0.3))


def test_what_the_network_adds_stays_and_the_mean_follows() -> None:
    def says_all(x: Tensor, at: At, cond: Condition) -> Prediction:
        said = MIXTURE(x, at, NONE)
        return replace(said, mean=posterior_mean(said.x0, x, at), log_variance=2 * x)

    guided = pigdm(says_all, HELD["grey"])(X, AT, NONE)
    close(guided.mean, posterior_mean(guided.x0, X, AT))
    assert torch.equal(guided.log_variance, 2 * X)
    consistent(guided, X, AT)


def test_a_classifier_still_guides_beside_it() -> None:
    """Guides add to what is pulled, as `run` folds them: the guided mixture held at a mask."""
    count, schedule = 400, SCHEDULE
    means = torch.tensor([[-0.8, -0.8], [-0.8, 0.8], [0.8, 0.8]], dtype=torch.float64).view(3, 1, 1, 2)
    mixture = Mixture(means, torch.full((3,), 0.05).double(), torch.full((3,), 1 / 3).double())
    x = SeededNoise(1, range(count))(torch.empty(count, 1, 1, 2, dtype=torch.float64), step=-1, draw=0)
    held = hold_known(torch.full_like(x, -0.8), torch.tensor([1.0, 0.0]))

    def plain(x: Tensor, at: At, cond: Condition) -> Prediction:
        return mixture(x, at, NONE)

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        index = (t[:, None] - schedule.timesteps.float()).abs().argmin(1)
        return mixture.logits(x, schedule.at(index, x))

    def share(scale: float) -> float:
        walk = run(
            ALL["ddim"], pigdm(plain, held, variance=0.05), x, schedule.path(x),
            cond=Condition(label=torch.ones(count, dtype=torch.int64)), noise=SeededNoise(1, range(count)),
            guide=classifier_guide(classifier, scale),
        )  # fmt: skip
        return (last(walk)[..., 1] > 0).double().mean().item()

    assert 0.3 < share(0.0) < 0.7 and share(2.0) > 0.98


def test_a_picture_does_not_depend_on_its_batch() -> None:
    for guide in METHODS.values():
        together = guide(MIXTURE, HELD["masks"])(X, AT, NONE)
        for row in range(5):
            rows = slice(row, row + 1)
            held = hold_known(KNOWN[rows], HELD["masks"].mask[rows])
            alone = guide(MIXTURE, held)(X[rows], SCHEDULE.at(AT.i[rows], X[rows]), NONE)
            close(alone.x0, together.x0[rows])


def test_a_denoiser_without_gradient_is_refused() -> None:
    detached = torch.no_grad()(lambda x, at, cond: MIXTURE(x, at, cond))
    with pytest.raises(ValueError, match="keeps no gradient"):
        pigdm(detached, HELD["mask"])(X, AT, NONE)


def test_known_pictures_must_fit_the_batch() -> None:
    with pytest.raises(ValueError, match="3 known pictures for 5"):
        pigdm(MIXTURE, hold_known(KNOWN[:3], MASK))(X, AT, NONE)
    one = pigdm(MIXTURE, hold_known(KNOWN[:1], MASK))(X, AT, NONE)
    close(one.x0, pigdm(MIXTURE, hold_known(KNOWN[:1].expand_as(X), MASK))(X, AT, NONE).x0)


def test_a_start_without_signal_is_not_pulled() -> None:
    """At alpha_bar 0 x says nothing of x0, and there is nothing to follow."""
    betas = SCHEDULE.betas.clone()
    betas[-1] = 1
    silent = NoiseSchedule(betas, SCHEDULE.timesteps)
    at = silent.at(11, X)

    def denoise(x: Tensor, at: At, cond: Condition) -> Prediction:
        x0 = MIXTURE(x, at, cond).x0 if bool((at.alpha_bar > 0).all()) else 0.1 + 0 * x
        return Prediction(x0, (x - at.scales.alpha * x0) / at.scales.sigma)

    for guide in METHODS.values():
        guided = guide(denoise, HELD["mask"])(X, at, NONE)
        assert torch.equal(guided.x0, torch.full_like(X, 0.1)) and torch.equal(guided.eps, X)


def test_the_gradient_is_that_of_the_residual() -> None:
    seen = look(clip_x0(MIXTURE), HELD["blocks"], X, AT, NONE)
    place = X.clone().requires_grad_(True)
    r = HELD["blocks"].project(KNOWN - clip_x0(MIXTURE)(place, AT, NONE).x0)
    (wanted,) = torch.autograd.grad(0.5 * r.square().sum(), place)
    close(seen.gradient, wanted)
    close(seen.missing, r.detach())


def test_projections_as_the_identity_give_back_to_the_bit() -> None:
    grey = hold_grey(KNOWN[:, :1])
    assert torch.equal(grey.final(X[:, :1]), KNOWN[:, :1])
    assert torch.equal(hold_low_frequencies(KNOWN, 1).final(X), KNOWN)

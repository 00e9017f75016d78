"""What every sampler of the registry must do, on data whose answer is known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.analytic import GRIDS, Gaussian, Mixture, Network, grid, slope
from tests.battery.registry import ALL, DETERMINISTIC, STOCHASTIC, convergence
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import hold_grey, hold_known, hold_low_frequencies, resampling_path
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import classifier_guide, fold_guide
from unnoise.diffusion.noise import RecordedNoise, SeededNoise
from unnoise.diffusion.prediction import Prediction
from unnoise.diffusion.samplers import SAMPLERS, DdimInversion
from unnoise.diffusion.schedule import At, NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.walk import run

NONE = Condition()
DATA = Gaussian(torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64))


def no_noise(like: Tensor, *, step: int, draw: int) -> Tensor:
    raise AssertionError(f"noise drawn at step {step}, draw {draw}, and not needed")


def last(steps) -> Tensor:
    *_, end = steps
    return end.x


def pixels(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def few(steps: int = 12) -> NoiseSchedule:
    return NoiseSchedule.from_betas(make_betas("cosine", 1000)).respaced(space(steps, 1000))


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_convergence(name: str, kind: str) -> None:
    """Against the exact solution of the ODE; a wrong coefficient anywhere changes the slope to 0."""
    sampler, wanted, errors = DETERMINISTIC[name], convergence(name, kind), []
    for steps in wanted.counts:
        schedule = grid(kind, steps, first=wanted.first)
        x = pixels(2, 1, 2, 2)
        path = schedule.path(x)
        end = last(run(sampler, DATA, x, path, cond=NONE, noise=no_noise))
        errors.append((end - DATA.flow(x, path[0], path[-1])).abs().max().item())
    measured = slope(list(wanted.counts), errors)
    assert wanted.order - 0.2 < measured < wanted.order + wanted.above, (measured, errors)


def moments(sampler, schedule: NoiseSchedule, data: Gaussian) -> tuple[float, float]:
    """Mean and variance of a sampler's draws, exactly: on Gaussian data it is affine in x_T and every noise.

    Row 0 has no noise, row 1 x_T = 1, row k + 2 noise 1 at step k.
    """
    rows = schedule.steps + 2
    unit = torch.eye(rows, dtype=torch.float64).view(rows, rows, 1, 1, 1)
    noise = RecordedNoise({(k, 0): unit[k + 2] for k in range(schedule.steps)})
    x = unit[1].clone()
    ends = last(run(sampler, data, x, schedule.path(x), cond=NONE, noise=noise)).flatten()
    return ends[0].item(), ((ends[1:] - ends[0]) ** 2).sum().item()


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_moments_converge(name: str, kind: str) -> None:
    """Mean and variance of the landing's q tend to the data's, at first order or better."""
    counts, errors = [32, 64, 128, 256], []
    for steps in counts:
        schedule = grid(kind, steps, first=-6.0, last=3.0)
        mean, variance = moments(STOCHASTIC[name], schedule, DATA)
        landing = schedule.alpha_bar_end
        wanted = landing * DATA.variance.item() + 1 - landing
        errors.append(abs(mean - math.sqrt(landing) * DATA.mean.item()) + abs(variance - wanted))
    assert slope(counts, errors) > 0.8, errors
    assert errors[-1] < 0.02, errors


@pytest.mark.parametrize("name", STOCHASTIC)
def test_moments_of_draws(name: str) -> None:
    """20,000 draws have the moments that the affine map says, within five standard errors."""
    schedule, count = grid("uniform", 16, first=-5.0), 20_000
    mean, variance = moments(STOCHASTIC[name], schedule, DATA)
    generator = torch.Generator().manual_seed(3)

    def noise(like: Tensor, *, step: int, draw: int) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    x = noise(torch.empty(count, 1, 1, 1, dtype=torch.float64), step=-1, draw=0)
    drawn = last(run(STOCHASTIC[name], DATA, x, schedule.path(x), cond=NONE, noise=noise)).flatten()
    assert abs(drawn.mean() - mean) < 5 * math.sqrt(variance / count)
    assert abs(drawn.var() - variance) < 5 * variance * math.sqrt(2 / count)


def test_ancestral_sampling_with_the_best_variance_is_exact() -> None:
    """With the true mean and variance of x_{i-1} given x_i, five steps draw the data's own distribution."""
    best = Gaussian(DATA.mean, DATA.variance, optimal=True)
    schedule = few(5)
    first = schedule.alpha_bar[-1].item()
    mean, variance = moments(SAMPLERS["ddpm"](), schedule, best)
    # The last step lands on E[x0 | x_0] without noise, so the variance lacks Var[x0 | x_0]. And x_T is drawn
    # from N(0, 1) instead of q(x_T): an error of the order of its alpha_bar.
    lacking = DATA.spread(schedule.at(0, pixels(1, 1, 1, 1))).item()
    assert abs(mean - 0.3) < 2 * math.sqrt(first)
    assert abs(variance + lacking - 0.25) < 2 * first
    fixed = moments(SAMPLERS["ddpm"](), schedule, DATA)[1]
    assert abs(fixed - 0.25) > 20 * abs(variance - 0.25), (
        "the posterior variance alone is too small at five steps"
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_dtype(name: str, dtype: torch.dtype) -> None:
    """x stays in its type, bfloat16 in float32; float32 follows float64."""
    start = pixels(3, 1, 2, 2).to(dtype)
    schedule, noise = few(), SeededNoise(0, range(3))

    def walked(x: Tensor) -> Tensor:
        return last(run(ALL[name], DATA, x, schedule.path(x), cond=NONE, noise=noise))

    end = walked(start)
    assert end.dtype == torch.promote_types(dtype, torch.float32)
    # Means of eps are multiplied by alpha' sigma_ve, 2600 in the first step here, and so is their rounding.
    atol = 3e-4 if name in ("heun", "plms") else 1e-5
    torch.testing.assert_close(end.double(), walked(start.double()), rtol=0, atol=atol)


@pytest.mark.parametrize("name", ALL)
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    schedule = few()
    noise = SeededNoise(5, (7, 8, 9))
    x = noise(torch.empty(3, 1, 2, 2, dtype=torch.float64), step=-1, draw=0)
    together = last(run(ALL[name], DATA, x, schedule.path(x), cond=NONE, noise=noise))
    for row, image in enumerate((7, 8, 9)):
        one, alone = x[row : row + 1], SeededNoise(5, (image,))
        end = last(run(ALL[name], DATA, one, schedule.path(one), cond=NONE, noise=alone))
        torch.testing.assert_close(end, together[row : row + 1], rtol=0, atol=1e-13)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_constraint(name: str) -> None:
    """Called once a step, before the network, with its own noise; known pixels come back to the bit."""
    schedule, calls, seen = few(), [], {}
    known, mask = pixels(3, 1, 2, 2, seed=1), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    held = hold_known(known, mask)

    class Spy:
        def before(self, x, at, noise):
            calls.append(at.i[0].item())
            return held.before(x, at, noise)

        def final(self, x0):
            calls.append("final")
            return held.final(x0)

    def denoise(x, at, cond):
        seen.setdefault(len(calls), (at, x))  # the first call after `before`; some samplers call again
        return DATA(x, at, cond)

    drawn = {}
    seeded = SeededNoise(0, range(3))

    def noise(like, *, step, draw):
        assert (step, draw) not in drawn, "drawn twice"
        drawn[step, draw] = seeded(like, step=step, draw=draw)
        return drawn[step, draw]

    x = pixels(3, 1, 2, 2)
    end = last(run(ALL[name], denoise, x, schedule.path(x), cond=NONE, noise=noise, constraint=Spy()))
    assert calls == [*range(schedule.steps - 1, -1, -1), "final"]
    assert torch.equal(end * mask, known * mask)
    assert (end - known).abs()[:, :, 0, 1].min() > 1e-6
    assert (schedule.steps - 1, 0) not in drawn, "the last step adds no noise, so none is drawn"
    for step in range(schedule.steps):
        at, before = seen[step + 1]
        assert at.i[0] == schedule.steps - 1 - step
        wanted = at.scales.alpha * known + at.scales.sigma * drawn[step, 1]
        torch.testing.assert_close(before * mask, wanted * mask)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("repeats", [1, 3])
def test_all_held_and_nothing_held(repeats: int, name: str) -> None:
    """All: it comes back to the bit. Nothing: the same walk without a constraint, to the bit."""
    schedule, x, known, noise = (
        few(),
        pixels(3, 3, 4, 4),
        pixels(3, 3, 4, 4, seed=1),
        SeededNoise(0, range(3)),
    )

    # Ancestral sampling goes from neighbour to neighbour; the others take long steps as well.
    path = resampling_path(schedule, x, jump=3, repeats=repeats)
    if name != "ddpm":
        path = [at for at in path if int(at.i[0]) % 3 == 0 or at in (path[0], path[-1])]

    def end(constraint) -> Tensor:
        return last(run(ALL[name], DATA, x, path, cond=NONE, noise=noise, constraint=constraint))

    assert torch.equal(end(hold_known(known, torch.ones(4, 4))), known)
    assert torch.equal(end(hold_known(known, torch.zeros(4, 4))), end(None))
    assert torch.equal(end(hold_low_frequencies(known, 1)), known)
    for held in (hold_grey(known), hold_low_frequencies(known, 2)):
        drawn = end(held)
        assert held.missing(drawn).abs().max() < 1e-12
        assert (drawn - held.project(drawn)).abs().max() > 0.1


@pytest.mark.parametrize("name", ALL)
def test_guided_mixture_is_its_component(name: str) -> None:
    """A mixture guided by its exact classifier draws the component, within the standard error."""
    means = torch.tensor([-0.8, 0.5], dtype=torch.float64).view(2, 1, 1, 1)
    variances = torch.tensor([0.02, 0.05], dtype=torch.float64)
    mixture = Mixture(means, variances, torch.tensor([0.7, 0.3], dtype=torch.float64))
    steps = 150 if (ALL[name].order or 1) == 1 else 60
    schedule, count = grid("uniform", steps, first=-6.0, last=5.0), 4000

    def unconditional(x, at, cond):
        return mixture(x, at, NONE)

    def classifier(x, t):
        return mixture.logits(x, schedule.at(t.round().long(), x))

    generator = torch.Generator().manual_seed(1)

    def noise(like, *, step, draw):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    x = noise(torch.empty(count, 1, 1, 1, dtype=torch.float64), step=-1, draw=0)
    label = torch.ones(count, dtype=torch.int64)

    def drawn(scale: float) -> Tensor:
        told = Condition(label=label)
        guide = classifier_guide(classifier, scale)
        walk = run(ALL[name], unconditional, x, schedule.path(x), cond=told, noise=noise, guide=guide)
        return last(walk).flatten()

    share = (drawn(0.0) > 0).double().mean().item()
    assert abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / count)
    ends = drawn(1.0)
    assert abs(ends.mean() - 0.5) < 5 * math.sqrt(0.05 / count) + 0.01
    assert abs(ends.var() - 0.05) < 5 * 0.05 * math.sqrt(2 / count) + 0.004


def test_both_algorithms_of_classifier_guidance_meet() -> None:
    """Shifting the mean (ADM Algorithm 1) and shifting the score (Algorithm 2) agree as steps grow."""
    means = torch.tensor([-0.8, 0.5], dtype=torch.float64).view(2, 1, 1, 1)
    mixture = Mixture(means, torch.full((2,), 0.05, dtype=torch.float64), torch.full((2,), 0.5).double())
    counts, apart = [40, 80, 160], []
    label, x = torch.arange(60) % 2, pixels(60, 1, 1, 1)
    for steps in counts:
        schedule, z = grid("uniform", steps, first=-5.0, last=4.0), pixels(steps, 60, 1, 1, 1, seed=1)

        def unconditional(x, at, cond):
            return mixture(x, at, NONE)

        def classifier(x, t, schedule=schedule):
            return mixture.logits(x, schedule.at(t.round().long(), x))

        guide = classifier_guide(classifier, 2.0)
        noise = RecordedNoise({(step, 0): z[step] for step in range(steps)})
        options = {"cond": Condition(label=label), "noise": noise}
        mean = run(SAMPLERS["ddpm"](), unconditional, x, schedule.path(x), guide=guide, **options)
        score = run(SAMPLERS["ddpm"](), fold_guide(unconditional, guide), x, schedule.path(x), **options)
        ends = last(mean), last(score)
        assert (ends[0].flatten() * (2 * label - 1) > 0).double().mean() > 0.95
        apart.append((ends[0] - ends[1]).abs().mean().item())
    assert slope(counts, apart) > 0.8 and apart[-1] < 0.03, apart


@pytest.mark.parametrize("kind", GRIDS)
def test_inversion_and_back(kind: str) -> None:
    """What is inverted is drawn again, the error falling at first order."""
    counts, errors = [32, 64, 128, 256], []
    x0 = 0.3 + 0.5 * pixels(4, 1, 2, 2)
    for steps in counts:
        schedule = grid(kind, steps)
        up = schedule.ascent(x0)
        noisy = last(run(DdimInversion(), DATA, x0, up, cond=NONE, noise=no_noise))
        back = last(run(SAMPLERS["ddim"](), DATA, noisy, up[::-1], cond=NONE, noise=no_noise))
        errors.append((back - x0).abs().max().item())
        forward = (noisy - DATA.flow(x0, up[0], up[-1])).abs().max().item()
        assert forward < 40 / steps
    assert slope(counts, errors) > 0.8, errors
    assert errors[-1] < 0.03, errors


@pytest.mark.parametrize("corrections", [0, 1, 2])
@pytest.mark.parametrize("kind", GRIDS)
def test_every_correction_raises_the_order_of_the_way_there_and_back(kind: str, corrections: int) -> None:
    counts, errors = [32, 64, 128, 256], []
    x0, calls = 0.3 + 0.5 * pixels(4, 1, 2, 2), 0

    def counted(x: Tensor, at: At, cond: Condition) -> Prediction:
        nonlocal calls
        calls += 1
        return DATA(x, at, cond)

    for steps in counts:
        schedule, calls = grid(kind, steps), 0
        up = schedule.ascent(x0)
        noisy = last(run(DdimInversion(corrections), counted, x0, up, cond=NONE, noise=no_noise))
        assert calls == (1 + corrections) * (steps - 1)
        back = last(run(SAMPLERS["ddim"](), DATA, noisy, up[::-1], cond=NONE, noise=no_noise))
        errors.append((back - x0).abs().max().item())
    order = corrections + 1
    assert order - 0.2 < slope(counts, errors) < order + 0.6, errors


@pytest.mark.parametrize("corrections", [0, 1, 8])
def test_inversion_from_the_landing_goes_all_of_a_path_back(corrections: int) -> None:
    """Where the landing is a clean picture, sigma 0, and no network may be called."""
    x0, schedule = 0.3 + 0.5 * pixels(4, 1, 2, 2), replace(grid("smooth", 64), alpha_bar_end=1.0)
    asked = []

    def watched(x: Tensor, at: At, cond: Condition) -> Prediction:
        asked.append(int(at.i[0]))
        return DATA(x, at, cond)

    up = schedule.ascent(x0, start=-1)
    noisy = last(run(DdimInversion(corrections), watched, x0, up, cond=NONE, noise=no_noise))
    assert min(asked) == 0
    path = schedule.path(x0)
    assert [at.i[0].item() for at in path] == [at.i[0].item() for at in up[::-1]]
    back = last(run(SAMPLERS["ddim"](), DATA, noisy, path, cond=NONE, noise=no_noise))
    assert (back - x0).abs().max() < {0: 0.06, 1: 0.01, 8: 1e-6}[corrections]


def test_pure_noise_is_reached_without_corrections() -> None:
    """Nothing is predicted where no signal is left."""
    x0, schedule = pixels(2, 1, 2, 2), grid("uniform", 16)
    ends = [
        last(
            run(DdimInversion(n), DATA, x0, schedule.ascent(x0, start=14, stop=16), cond=NONE, noise=no_noise)
        )
        for n in (0, 2)
    ]
    assert all(end.isfinite().all() for end in ends) and not torch.equal(*ends)
    with pytest.raises(ValueError, match="corrections=-1"):
        DdimInversion(-1)


@pytest.mark.parametrize("name", ALL)
def test_pictures_may_stand_at_different_entries(name: str) -> None:
    """One step of a batch whose pictures are at entries of their own is each picture's step alone."""
    schedule, sampler = few(), ALL[name]
    i, x, z = torch.tensor([0, 4, 11]), pixels(3, 1, 2, 2), pixels(3, 1, 2, 2, seed=1)

    def step(rows: slice) -> Tensor:
        at, to = schedule.at(i[rows], x[rows]), schedule.at(i[rows] - 1, x[rows])
        return sampler.step(
            DATA, x[rows], at, to, sampler.start(), cond=NONE, noise=lambda like: z[rows], guide=None
        )[0]

    together = step(slice(0, 3))
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], step(slice(row, row + 1)))


@pytest.mark.parametrize("name", ALL)
def test_a_start_without_signal(name: str) -> None:
    """An entry with alpha_bar 0, where log-SNR and x/alpha are infinite, is a start like any other."""
    schedule, noise = grid("uniform", 30, first=-6.0, last=1.0), SeededNoise(0, range(3))
    betas = schedule.betas.clone()
    betas[-1] = 1
    silent = NoiseSchedule(betas, schedule.timesteps, alpha_bar_end=schedule.alpha_bar_end)

    def denoise(x, at, cond):
        x0 = DATA.x0(x, at)
        return Prediction(x0, (x - at.scales.alpha * x0) / at.scales.sigma)

    x = pixels(3, 1, 2, 2)
    ends = [
        last(run(ALL[name], denoise, x, walked.path(x), cond=NONE, noise=noise))
        for walked in (silent, schedule)
    ]
    assert (ends[0] - ends[1]).abs().max() < 0.15, ends


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "mean"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_whatever_a_network_predicts(name: str, predicts: str) -> None:
    """Learned variances change nothing, nor does what the prediction is made of."""
    training = NoiseSchedule.from_betas(make_betas("linear", 24))
    x = pixels(2, 1, 2, 2)

    def walked(denoise) -> Tensor:
        return last(run(DETERMINISTIC[name], denoise, x, training.path(x), cond=NONE, noise=no_noise))

    exact = walked(DATA)
    for variance in ("fixed_small", "fixed_large", "learned", "learned_range"):
        network = Network(DATA, training, predicts, variance)
        with torch.no_grad():
            network.wider.fill_(0.7)
        end = walked(Denoiser(network, predicts=predicts, variance=variance))
        torch.testing.assert_close(end, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpmpp-3m"])
def test_noise_of_samplers_that_have_it(name: str) -> None:
    with pytest.raises(ValueError, match="eta=1.5"):
        SAMPLERS[name](eta=1.5)


def test_orders_of_unipc() -> None:
    with pytest.raises(ValueError, match="solver_order=4"):
        SAMPLERS["unipc"](solver_order=4)

"""The twisted sampler: exact within Monte-Carlo bounds; each picture a function of its seed; identities."""

import math

import pytest
import torch
from torch import Tensor

from tests.analytic import Gaussian, Mixture
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.constrain import HoldKnown, hold_grey, hold_known, hold_low_frequencies
from unnoise.diffusion.guidance import classifier_free
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.particles import Cloud, effective_count, run_particles
from unnoise.diffusion.prediction import Prediction
from unnoise.diffusion.samplers import Ddpm
from unnoise.diffusion.schedule import At, NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.walk import run

NONE = Condition()
SHAPE = (2, 2, 2)


def schedule(steps: int) -> NoiseSchedule:
    return NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced(space(steps, 1000))


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MIXTURE = Mixture(
    0.6 * pixels(3, *SHAPE, seed=7), torch.tensor([0.1, 0.3, 0.2]).double(),
    torch.tensor([0.5, 0.2, 0.3]).double(), optimal=True,
)  # fmt: skip
MASK = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)


def walked(denoise, held, noise, pictures: int, count: int, steps: int = 8, **options) -> list[Cloud]:
    x = noise(torch.empty(pictures, count, *SHAPE, dtype=torch.float64), step=-1, draw=0)
    path = schedule(steps).path(x[:, 0])
    options = {"cond": NONE, "variance": 0.4} | options
    return list(run_particles(denoise, held, x, path, noise=noise, **options))


@pytest.mark.parametrize("held", [hold_known, hold_grey, hold_low_frequencies])
def test_exact_on_independent_normals(held) -> None:
    """With the best variance of a step the chain is the data's, and the twist is p(y | x_i): no bias."""
    data = Gaussian(torch.tensor(0.3).double(), torch.tensor(0.25).double(), optimal=True)
    pictures, count, steps = 60, 32, 10
    known = 0.3 + 0.5 * pixels(1, *SHAPE, seed=1)
    told = {hold_known: MASK, hold_low_frequencies: 2}
    constraint = held(known, told[held]) if held in told else held(known)
    end = walked(data, constraint, SeededNoise(0, range(pictures)), pictures, count, steps, variance=0.25)[-1]
    free = lambda x: x - constraint.project(x)  # noqa: E731
    assert constraint.missing(end.x.flatten(0, 1)).abs().max() < 1e-12
    weights = end.weights.view(pictures, count, 1, 1, 1)
    off = free((end.x - 0.3).flatten(0, 1)).view_as(end.x)
    means, squares = (weights * off).sum(1), (weights * off**2).sum(1)
    error = means.std(0) / math.sqrt(pictures)
    assert bool((means.mean(0).abs() < 4 * error + 1e-12).all())
    # The landing is E[x0 | x_0], which lacks Var[x0 | x_0].
    lacking = data.spread(schedule(steps).at(0, known)).item()
    share = 1 - constraint.project(torch.eye(8).double().view(8, *SHAPE)).flatten(1).trace() / 8
    wanted, found = (0.25 - lacking) * share.item(), squares.mean((1, 2, 3))
    assert abs(found.mean().item() - wanted) < 4 * found.std().item() / math.sqrt(pictures)


def test_nothing_known_is_plain_sampling() -> None:
    """To the bit with the same noise: one particle is what Ddpm draws, and several are, equally weighted."""
    held, noise, pictures = hold_known(pixels(3, *SHAPE), torch.zeros(2, 2)), SeededNoise(4, range(3)), 3
    path = schedule(8).path(torch.empty(3, *SHAPE, dtype=torch.float64))
    x = noise(torch.empty(3, *SHAPE, dtype=torch.float64), step=-1, draw=0)
    *_, plain = run(Ddpm(), MIXTURE, x, path, cond=NONE, noise=noise)
    one = walked(MIXTURE, held, noise, pictures, 1)[-1]
    assert torch.equal(one.x[:, 0], plain.x) and torch.equal(one.drawn(noise), plain.x)

    def flat(like: Tensor, *, step: int, draw: int) -> Tensor:
        return noise(like.view(3, 4, *SHAPE), step=step, draw=draw).flatten(0, 1)

    x = flat(torch.empty(12, *SHAPE, dtype=torch.float64), step=-1, draw=0)
    *_, plain = run(Ddpm(), MIXTURE, x, schedule(8).path(x), cond=NONE, noise=flat)
    clouds = walked(MIXTURE, held, noise, pictures, 4)
    torch.testing.assert_close(clouds[-1].x.flatten(0, 1), plain.x, rtol=0, atol=1e-13)
    assert all(torch.equal(cloud.weights, torch.full((3, 4), 0.25).double()) for cloud in clouds)


def test_all_known_comes_back_to_the_bit() -> None:
    known, noise = pixels(3, *SHAPE), SeededNoise(4, range(3))
    end = walked(MIXTURE, hold_known(known, torch.ones(2, 2)), noise, 3, 4)[-1]
    assert torch.equal(end.x, known[:, None].expand(3, 4, *SHAPE)) and torch.equal(end.drawn(noise), known)
    end = walked(MIXTURE, hold_low_frequencies(known, 1), noise, 3, 4)[-1]
    assert torch.equal(end.drawn(noise), known)


def test_a_picture_is_a_function_of_its_seed() -> None:
    """Whatever its batch and however many rows the network takes at once, and resampled or not."""
    known = 0.6 * pixels(3, *SHAPE, seed=2)
    mask = (pixels(3, 1, 2, 2, seed=3) > 0).double()
    together = walked(MIXTURE, hold_known(known, mask), SeededNoise(9, (5, 6, 7)), 3, 6, threshold=0.9)
    for rows in (1, 7, 1000):
        again = walked(
            MIXTURE, hold_known(known, mask), SeededNoise(9, (5, 6, 7)), 3, 6, threshold=0.9, rows=rows
        )
        torch.testing.assert_close(again[-1].x, together[-1].x, rtol=0, atol=1e-12)
    resampled = 0
    for row in range(3):
        noise, rows = SeededNoise(9, (5 + row,)), slice(row, row + 1)
        alone = walked(MIXTURE, hold_known(known[rows], mask[rows]), noise, 1, 6, threshold=0.9)
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one.x[0], all_.x[row], rtol=0, atol=1e-12)
            torch.testing.assert_close(one.log_weights[0], all_.log_weights[row], rtol=0, atol=1e-9)
            resampled += bool((one.log_weights == -math.log(6)).all())
        torch.testing.assert_close(
            alone[-1].drawn(noise)[0], together[-1].drawn(SeededNoise(9, (5, 6, 7)))[row], rtol=0, atol=1e-12
        )
    assert resampled > 3, "nothing was resampled, which this is about"


def test_particles_are_resampled_systematically_where_few_count() -> None:
    """Every particle K w times, rounded down or up; the others of the batch stay as they are."""
    known, noise = torch.full((2, *SHAPE), 1.5, dtype=torch.float64), SeededNoise(1, range(2))
    mask = torch.stack([MASK, 0 * MASK])[:, None]
    drawn = []

    def watched(like: Tensor, *, step: int, draw: int) -> Tensor:
        drawn.append((step, draw))
        return noise(like, step=step, draw=draw)

    never = walked(MIXTURE, hold_known(known, mask), watched, 2, 20, threshold=0)
    assert {draw for _, draw in drawn} == {0}
    assert (7, 0) not in drawn, "the last step adds no noise, so none is drawn"
    assert never[-1].effective[0] < 10 and never[-1].effective[1] == pytest.approx(20)
    few = walked(MIXTURE, hold_known(known, mask), watched, 2, 20, threshold=0.5)
    assert 4 in {draw for _, draw in drawn}
    first = next(k for k, cloud in enumerate(few) if (k, 4) in drawn)
    weights = never[first].weights[0]
    origins = (few[first].x0[0][:, None] == never[first].x0[0][None]).flatten(2).all(2).double()
    assert bool(((origins.sum(0) - 20 * weights).abs() < 1).all())
    assert bool((few[first].log_weights[0] == -math.log(20)).all())
    assert torch.equal(few[-1].x[1], never[-1].x[1])


def test_which_particle_is_given_out() -> None:
    """By its weight, from one number of noise a picture."""
    weights = torch.tensor([0.1, 0.6, 0.0, 0.3], dtype=torch.float64)
    count = 4000
    x = torch.arange(4).double().view(1, 4, 1, 1, 1).expand(count, 4, 1, 1, 1)
    cloud = Cloud(7, x, x, weights.log().expand(count, 4))
    chosen = cloud.drawn(SeededNoise(0, range(count))).flatten()
    shares = torch.stack([(chosen == k).double().mean() for k in range(4)])
    assert bool(((shares - weights).abs() <= 4 * (weights * (1 - weights) / count).sqrt()).all())
    assert effective_count(weights.log()[None]).item() == pytest.approx(1 / 0.46)


def test_conditions_and_guidance_go_with_their_pictures() -> None:
    """Told a component each, held at its mean, guided inside: particles are of that component."""

    def labelled(x: Tensor, at: At, cond: Condition) -> Prediction:
        told = MIXTURE(x, at, Condition(label=cond.label.clamp(max=2)))
        plain = MIXTURE(x, at, NONE)
        none = (cond.label == 3).view(-1, 1, 1, 1)
        return Prediction(torch.where(none, plain.x0, told.x0), torch.where(none, plain.eps, told.eps))

    guided = classifier_free(labelled, lambda cond: null(cond, {"label": 3}), 1.5)
    label, noise = torch.tensor([2, 0, 1]), SeededNoise(0, range(3))
    held = hold_known(MIXTURE.means[label], MASK)
    for rows in (1, 64):
        end = walked(guided, held, noise, 3, 16, 20, cond=Condition(label=label), rows=rows)[-1]
        at = schedule(20).at(0, end.x.flatten(0, 1))
        likely = MIXTURE.logits(end.x.flatten(0, 1), at).argmax(1).view(3, 16)
        assert bool((likely == label[:, None]).double().mean() > 0.9)


def test_one_pass_there_and_back_a_particle_and_move() -> None:
    rows = []

    def counted(x: Tensor, at: At, cond: Condition) -> Prediction:
        rows.append(len(x))
        assert x.requires_grad
        return MIXTURE(x, at, cond)

    held = hold_grey(pixels(2, *SHAPE))
    clouds = walked(counted, held, SeededNoise(0, range(2)), 2, 5, rows=4)
    assert rows == [4, 4, 2] * 8
    assert [cloud.index for cloud in clouds] == list(range(8))
    assert not any(value.requires_grad for cloud in clouds for value in (cloud.x, cloud.x0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_are_float64_and_survive_what_is_far_away(dtype: torch.dtype) -> None:
    far, noise = torch.full((2, *SHAPE), 1e3), SeededNoise(0, range(2))
    x = noise(torch.empty(2, 4, *SHAPE), step=-1, draw=0).to(dtype)
    path = schedule(8).path(x[:, 0].float())
    held = HoldKnown(far, MASK.float())
    for cloud in run_particles(MIXTURE, held, x, path, cond=NONE, noise=noise):
        assert cloud.log_weights.dtype == torch.float64 and cloud.x.dtype == torch.float32
        assert cloud.log_weights.isfinite().all() and cloud.x.isfinite().all()
        torch.testing.assert_close(cloud.weights.sum(1), torch.ones(2).double())


def test_a_landing_with_noise_left() -> None:
    """As latent diffusion's: the last step is the model's own, noise and all, for what is not known."""
    short = NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced([100, 400, 800], end=0.99)
    noise, known = SeededNoise(2, range(3)), pixels(3, *SHAPE)
    like = torch.empty(3, 1, *SHAPE, dtype=torch.float64)
    x = noise(like, step=-1, draw=0)
    held = hold_known(known, 0 * MASK)
    *_, end = run_particles(MIXTURE, held, x, short.path(x[:, 0]), cond=NONE, noise=noise)
    *_, plain = run(Ddpm(), MIXTURE, x[:, 0], short.path(x[:, 0]), cond=NONE, noise=noise)
    assert torch.equal(end.x[:, 0], plain.x)


def test_refusals_say_the_way_out() -> None:
    held, noise = hold_grey(pixels(2, *SHAPE)), SeededNoise(0, range(2))
    for options, says in (
        ({"variance": 0}, "variance=0"), ({"threshold": 2}, "threshold=2"), ({"rows": 0}, "rows=0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            walked(MIXTURE, held, noise, 2, 3, **options)
    x = pixels(2, *SHAPE)
    with pytest.raises(ValueError, match=r"x is \(2, 2, 2, 2\)"):
        next(run_particles(MIXTURE, held, x, schedule(8).path(x), cond=NONE, noise=noise))
    skipping = [schedule(8).at(i, x) for i in (7, 4, -1)]
    with pytest.raises(ValueError, match="from entry 7 to 6, not 4"):
        next(run_particles(MIXTURE, held, x[:, None], skipping, cond=NONE, noise=noise))

"""The loop: what it draws, when it re-noises, what it leaves to the caller; constraints, resampling."""

import math

import pytest
import torch

from tests.analytic import Gaussian, Mixture
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import (
    hold_grey,
    hold_known,
    hold_low_frequencies,
    resampling_path,
)
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.prediction import reverse
from unnoise.diffusion.samplers import Ddim, Ddpm
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.walk import jump, run

NONE = Condition()
SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 1000)).respaced(space(20, 1000))
DATA = Gaussian(torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64))
X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NOISE = SeededNoise(0, range(3))


def entries(path) -> list[int]:
    return [at.i[0].item() for at in path]


def test_steps_are_numbered_and_hold_what_they_moved_along() -> None:
    seen = []

    def denoise(x, at, cond):
        seen.append(x)
        return DATA(x, at, cond)

    steps = list(run(Ddim(), denoise, X, SCHEDULE.path(X), cond=NONE, noise=NOISE))
    assert [step.index for step in steps] == list(range(20))
    assert seen[0] is X and all(a.x is b for a, b in zip(steps, seen[1:], strict=False))
    torch.testing.assert_close(steps[-1].x, steps[-1].prediction.x0)


def test_the_callers_gradient_mode_is_its_own() -> None:
    for step in run(Ddpm(), DATA, X, SCHEDULE.path(X), cond=NONE, noise=NOISE):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad
    with torch.no_grad():
        next(run(Ddpm(), DATA, X, SCHEDULE.path(X), cond=NONE, noise=NOISE))
        assert not torch.is_grad_enabled()

    class Grads(torch.nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            return x

    network = Grads()
    for _ in run(
        Ddpm(), lambda x, at, c: DATA(network(x), at, c), X, SCHEDULE.path(X), cond=NONE, noise=NOISE
    ):
        pass


def test_starting_in_the_middle_is_image_to_image() -> None:
    path = SCHEDULE.path(X, start=7)
    assert len(list(run(Ddim(), DATA, X, path, cond=NONE, noise=NOISE))) == 8


def test_ancestral_steps_do_not_skip() -> None:
    path = [SCHEDULE.at(i, X) for i in (9, 7, -1)]
    with pytest.raises(ValueError, match="from entry 9 to 8, not 7"):
        list(run(Ddpm(), DATA, X, path, cond=NONE, noise=NOISE))


def test_jump_is_the_forward_process() -> None:
    """Noise of an upward move: x at the one level becomes x at the other, mean and variance as q says."""
    for low, high in ((-1, 4), (3, 19), (10, 11)):
        at, to = SCHEDULE.at(low, X), SCHEDULE.at(high, X)
        mean = jump(X, at, to, torch.zeros_like)
        std = (jump(X, at, to, torch.ones_like) - mean).flatten()[0].item()
        torch.testing.assert_close(mean, to.scales.alpha / at.scales.alpha * X)
        before, after = at.scales.sigma[0].item(), to.scales.sigma[0].item()
        ratio = (to.scales.alpha / at.scales.alpha)[0].item()
        assert math.isclose(ratio**2 * before**2 + std**2, after**2, rel_tol=1e-12)


def test_jumps_are_not_steps_and_reset_the_history() -> None:
    """An upward move clears a multistep sampler's history, draws as draw 2, and is not reported."""
    events = []

    class Multistep(Ddim):
        def start(self):
            events.append("start")
            return []

        def step(self, denoise, x, at, to, state, *, cond, noise, guide):
            events.append((at.i[0].item(), to.i[0].item(), list(state)))
            x, prediction, _ = Ddim.step(self, denoise, x, at, to, None, cond=cond, noise=noise, guide=guide)
            return x, prediction, [*state, at.i[0].item()]

    drawn = []

    def noise(like, *, step, draw):
        drawn.append((step, draw))
        return NOISE(like, step=step, draw=draw)

    path = [SCHEDULE.at(i, X) for i in (3, 2, 1, 3, 2, -1)]
    steps = list(run(Multistep(), DATA, X, path, cond=NONE, noise=noise))
    assert [step.index for step in steps] == [0, 1, 3, 4]
    assert events == ["start", (3, 2, []), (2, 1, [3]), "start", (3, 2, []), (2, -1, [3])]
    assert drawn == [(2, 2)]


def test_resampling_path() -> None:
    """Every stretch of `jump` entries is walked `repeats` times, by moves of 1 down or `jump` up."""
    for steps, up, repeats in ((20, 5, 3), (20, 4, 1), (20, 3, 4), (5, 10, 3)):
        schedule = NoiseSchedule.from_betas(make_betas("cosine", steps))
        path = entries(resampling_path(schedule, X, jump=up, repeats=repeats))
        moves = [b - a for a, b in zip(path, path[1:], strict=False)]
        assert path[0] == steps - 1 and path[-1] == -1
        assert set(moves) <= {-1, up}
        upward = [i for i, move in zip(path, moves, strict=False) if move == up]
        assert sorted(upward) == sorted([*range(0, steps - up, up)] * (repeats - 1))
    with pytest.raises(ValueError, match="repeats=0"):
        resampling_path(SCHEDULE, X, repeats=0)


def test_projections_hold_what_they_see_and_nothing_else() -> None:
    """Grey keeps the channel mean, low frequencies the block means; the rest is the sampler's."""
    known = torch.randn(X.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    seen = {
        "grey": (hold_grey(known), lambda x: x.mean(1)),
        "low": (hold_low_frequencies(known, 2), lambda x: torch.nn.functional.avg_pool2d(x, 2)),
        "mask": (hold_known(known, torch.eye(4)), lambda x: x * torch.eye(4)),
    }
    at = SCHEDULE.at(6, X)
    for name, (constraint, look) in seen.items():
        z = torch.randn(X.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        held = constraint.before(X, at, lambda like, z=z: z)
        torch.testing.assert_close(look(held), look(at.scales.alpha * known + at.scales.sigma * z))
        hidden = held - X
        torch.testing.assert_close(
            constraint.final(X) - X, constraint.final(2 * X) - 2 * X + projected(look, X)
        )
        assert look(hidden).abs().max() > 0.1, name
        twice = constraint.before(held, at, lambda like, z=z: z)
        torch.testing.assert_close(twice, held)  # a projection: what is held stays
        end = [
            step.x
            for step in run(Ddpm(), DATA, X, SCHEDULE.path(X), cond=NONE, noise=NOISE, constraint=constraint)
        ][-1]
        torch.testing.assert_close(look(end), look(known))
        assert (end - known).abs().max() > 0.1, name
    with pytest.raises(ValueError, match="factor=3"):
        hold_low_frequencies(known, 3)
    with pytest.raises(ValueError, match="mask runs from"):
        hold_known(known, torch.full((4, 4), 255.0))


def projected(look, x: torch.Tensor) -> torch.Tensor:
    """The part of x that `look` sees, laid back on x's shape."""
    if look(x).shape == x.shape:
        return look(x)
    if look(x).ndim == 3:
        return look(x)[:, None].expand_as(x)
    return torch.nn.functional.interpolate(look(x), scale_factor=2, mode="nearest")


def test_left_inexact_the_known_part_keeps_the_last_steps_noise() -> None:
    known = torch.zeros_like(X)
    path = SCHEDULE.path(X)
    for exact in (True, False):
        held = hold_known(known, torch.ones(4, 4), exact=exact)
        end = [s.x for s in run(Ddpm(), DATA, X, path, cond=NONE, noise=NOISE, constraint=held)][-1]
        assert (end == known).all() == exact


def test_resampling_lessens_the_bias_of_inpainting() -> None:
    """Two pixels in step at +-0.8: one held at +0.8, so is the other. Replacement often fails (trap 62)."""
    means = torch.tensor([-0.8, 0.8], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    mixture = Mixture(means, torch.tensor([0.05, 0.05]).double(), torch.tensor([0.5, 0.5]).double())
    count, schedule = 1500, NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced(space(40, 1000))
    x = SeededNoise(1, range(count))(torch.empty(count, 1, 1, 2, dtype=torch.float64), step=-1, draw=0)
    held = hold_known(torch.full_like(x, 0.8), torch.tensor([1.0, 0.0]))
    generator = torch.Generator().manual_seed(0)

    def noise(like, *, step, draw):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    def other(path) -> float:
        walk = run(Ddpm(), mixture, x, path, cond=NONE, noise=noise, constraint=held)
        return [step.x for step in walk][-1][:, 0, 0, 1].mean().item()

    plain, resampled = other(schedule.path(x)), other(resampling_path(schedule, x, jump=4, repeats=5))
    error = 0.8 / math.sqrt(count)
    assert plain < 0.8 - 5 * error, "replacement is biased"
    assert resampled > plain + 5 * error
    assert resampled < 0.8 + 5 * error


@pytest.mark.parametrize("i", [0, 1, 7, 19])
def test_ddim_with_all_the_noise_is_ancestral(i: int) -> None:
    """eta 1 is Ddpm's step with the posterior variance; the noise of a step goes as eta (DDIM Eq. 16)."""
    at, to = SCHEDULE.at(i, X), SCHEDULE.at(i - 1, X)

    def step(sampler, noise):
        return sampler.step(DATA, X, at, to, sampler.start(), cond=NONE, noise=noise, guide=None)[0]

    for noise in (torch.zeros_like, torch.ones_like):
        torch.testing.assert_close(step(Ddim(eta=1.0), noise), step(Ddpm(), noise))
    whole = step(Ddim(eta=1.0), torch.ones_like) - step(Ddim(eta=1.0), torch.zeros_like)
    part = step(Ddim(eta=0.3), torch.ones_like) - step(Ddim(eta=0.3), torch.zeros_like)
    torch.testing.assert_close(part, 0.3 * whole)


def test_the_guide_is_worked_out_where_it_is_asked() -> None:
    """Ddpm shifts its mean by variance * guide, at x_t (ADM's code) or at the mean (its paper)."""
    at, to = SCHEDULE.at(9, X), SCHEDULE.at(8, X)
    mean = reverse(DATA(X, at, NONE), X, at).mean
    for guide_at, place in (("x_t", X), ("mean", mean)):
        moved, prediction, _ = Ddpm(guide_at=guide_at).step(
            DATA, X, at, to, None, cond=NONE, noise=torch.zeros_like, guide=lambda x, at, cond: x**2
        )
        torch.testing.assert_close(moved, mean + at.scales.variance * place**2)
        torch.testing.assert_close(prediction.x0, DATA(X, at, NONE).x0)  # what is reported is not guided


def test_eta_outside_its_range() -> None:
    with pytest.raises(ValueError, match=r"eta=1.5"):
        Ddim(eta=1.5)

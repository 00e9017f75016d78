"""Noise schedules: properties of any of them, closed forms at two points, lookups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.diffusion.schedule import SCHEDULES, NoiseSchedule, Scales, add_noise, make_betas
from unnoise.diffusion.spacing import space

LIKE = torch.zeros(3, 2, 4, 4)
NAMES = st.sampled_from(sorted(SCHEDULES))


def linear(steps: int = 1000) -> NoiseSchedule:
    return NoiseSchedule.from_betas(make_betas("linear", steps))


@given(NAMES, st.integers(21, 3000))
@settings(max_examples=60, deadline=None)
def test_any_schedule_decreases(name: str, steps: int) -> None:
    schedule = NoiseSchedule.from_betas(make_betas(name, steps))
    assert schedule.betas.dtype == schedule.alpha_bar.dtype == torch.float64
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()
    assert ((schedule.alpha_bar > 0) & (schedule.alpha_bar < 1)).all()
    assert (schedule.levels.diff() < 0).all()
    assert (schedule.posterior_variance <= schedule.betas).all()


@given(NAMES, st.integers(21, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_respacing_keeps_alpha_bar_and_timesteps(name: str, steps: int, data: st.DataObject) -> None:
    schedule = NoiseSchedule.from_betas(make_betas(name, steps), rescale=True)
    keep = sorted(data.draw(st.sets(st.integers(0, steps - 1), min_size=1)))
    kept = schedule.respaced(keep)
    # A beta near 1 holds what is left of the signal only to 1e-16 of the whole.
    torch.testing.assert_close(kept.alpha_bar, schedule.alpha_bar[keep], rtol=1e-9, atol=1e-15)
    assert torch.equal(kept.timesteps, schedule.timesteps[keep])
    again = kept.respaced(range(len(keep)))
    torch.testing.assert_close(again.alpha_bar, kept.alpha_bar, rtol=1e-9, atol=1e-15)
    assert kept.table("inv_alpha").isfinite().all(), "what signal there is stays above 0"


CLOSED = {
    # (steps, entry) -> beta
    "linear": {(1000, 0): 1e-4, (500, 499): 0.04},
    "cosine": {
        (1000, 999): 0.999,
        (100, 49): 1 - (math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.498 / 1.008 * math.pi / 2)) ** 2,
    },
    "scaled_linear": {(1000, 0): 1e-4, (3, 1): ((0.01 + math.sqrt(0.02)) / 2) ** 2},
    "sqrt": {(1000, 0): 0.01, (3, 1): math.sqrt(0.01005)},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_closed_form_at_two_points(name: str) -> None:
    assert len(CLOSED[name]) >= 2
    for (steps, entry), beta in CLOSED[name].items():
        assert make_betas(name, steps)[entry].item() == pytest.approx(beta, rel=1e-12)


def test_ends_that_are_given() -> None:
    betas = make_betas("scaled_linear", 1000, start=0.0015, end=0.0195)
    assert betas[[0, -1]].tolist() == pytest.approx([0.0015, 0.0195], rel=1e-12)
    assert make_betas("linear", 5, start=0.1, end=0.5).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: make_betas("lienar", 10), "linear, cosine"),
        (lambda: make_betas("linear", 0), "steps=0"),
        (lambda: make_betas("linear", 10**12), "steps=1000000000000 .* use 1 to 1,000,000"),
        (lambda: make_betas("scaled_linear", 50, start=-1.0), r"the first beta=-1 is outside \(0, 1\]"),
        (lambda: make_betas("sqrt", 50, end=2.0), "the last beta=2 is outside"),
        (lambda: make_betas("linear", 12), "20 steps or more"),
        (lambda: make_betas("cosine", 10, start=0.1), "cosine"),
        (lambda: NoiseSchedule.from_betas(make_betas("linear", 5, start=0.1, end=1.5)), "beta=1.5"),
        (lambda: NoiseSchedule.from_betas(torch.tensor([0.1, float("nan")])), "outside"),
        (lambda: NoiseSchedule.from_betas(torch.zeros(0)), "at least one"),
        (lambda: linear().respaced([3, 2]), "increasing"),
        (lambda: linear().respaced([]), "at least one"),
        (lambda: linear().respaced([5, 1000]), "0..999"),
        (lambda: linear().respaced([0, 5], end=linear().alpha_bar[0].item()), "drop that entry"),
    ],
)
def test_refusals_say_the_way_out(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_lookup_is_the_table_rounded_once() -> None:
    """Scales of any entry and dtype equal the float64 formula, rounded; the ends are signal and noise."""
    schedule = linear()
    i = torch.tensor([0, 517, 999])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        at = schedule.at(i, LIKE.to(dtype))
        alpha_bar = schedule.alpha_bar[i]
        wanted = (1 / alpha_bar - 1).sqrt().to(torch.promote_types(dtype, torch.float32))
        assert torch.equal(at.scales.sigma_ve.flatten(), wanted)
        assert at.scales.sigma_ve.shape == (3, 1, 1, 1)
        assert at.t.dtype == torch.float32 and at.t.tolist() == [0, 517, 999]
        assert torch.equal(at.alpha_bar, alpha_bar)
    for entry in (-1, 0, 400, 999, 1000):
        one, many = schedule.at(entry, LIKE), schedule.at(torch.full((3,), entry), LIKE)
        assert torch.equal(one.i, many.i)
        for name in vars(one.scales):
            a, b = getattr(one.scales, name), getattr(many.scales, name)
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)), (entry, name)
        assert torch.equal(one.t.nan_to_num(7.0), many.t.nan_to_num(7.0))
    landing, noise = schedule.at(-1, LIKE).scales, schedule.at(1000, LIKE).scales
    assert (landing.alpha == 1).all() and (landing.sigma == 0).all()
    assert (noise.alpha == 0).all() and (noise.sigma == 1).all()
    for entry in (-2, 1001):
        with pytest.raises(IndexError):
            schedule.at(entry, LIKE)
        with pytest.raises(IndexError):
            schedule.at(torch.full((3,), entry), LIKE)


def test_posterior_is_bayes() -> None:
    """q(x_{i-1} | x_i, x0) from the two Gaussians q(x_{i-1} | x0) and q(x_i | x_{i-1}), worked out apart."""
    schedule = linear(50).respaced(space("10", 50), end=0.999)
    for i in range(10):
        prior, beta = schedule.levels[i], schedule.betas[i]
        precision = 1 / (1 - prior) + (1 - beta) / beta
        s = schedule.at(i, LIKE.double()).scales
        assert s.variance[0].item() == pytest.approx(1 / precision.item(), rel=1e-10)
        assert s.coef_x0[0].item() == pytest.approx((prior.sqrt() / (1 - prior) / precision).item(), rel=1e-9)
        assert s.coef_xt[0].item() == pytest.approx(((1 - beta).sqrt() / beta / precision).item(), rel=1e-9)
        assert s.log_variance[0].item() == pytest.approx(-math.log(precision), rel=1e-10)
        assert s.log_beta[0].item() == pytest.approx(math.log(beta), rel=1e-10)


def test_the_first_entry_borrows_the_second_variance() -> None:
    """Trap 18: where the posterior variance is 0 its logarithm, and fixed_large, take the next entry's."""
    schedule = linear()
    first, second = (schedule.at(i, LIKE.double()).scales for i in (0, 1))
    assert first.variance[0] == 0
    assert first.log_variance[0] == first.log_variance_large[0] == second.variance[0].log()
    assert second.log_variance_large[0] == schedule.betas[1].log()


def test_a_process_of_one_step() -> None:
    one = linear().respaced([999])
    scales = one.at(0, LIKE).scales
    assert all(value.isfinite().all() for value in vars(scales).values())
    assert (scales.coef_x0 == 1).all() and (scales.coef_xt == 0).all()


def test_zero_terminal_signal_is_kept() -> None:
    """The published linear schedule reaches beta = 1 at 20 steps; it stays legal, for v-prediction."""
    schedule = linear(20)
    assert schedule.betas[-1] == 1 and schedule.alpha_bar[-1] == 0
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    assert torch.equal(add_noise(LIKE, x, schedule.at(19, x)), x)


def test_paths() -> None:
    schedule = linear(30)
    assert [at.i[0].item() for at in schedule.path(LIKE)] == list(range(29, -2, -1))
    assert [at.i[0].item() for at in schedule.path(LIKE, start=4)] == [4, 3, 2, 1, 0, -1]
    assert [at.i[0].item() for at in schedule.ascent(LIKE)] == list(range(30))
    assert [at.i[0].item() for at in schedule.ascent(LIKE, stop=30)][-1] == 30


def test_repeat_lays_the_batch_behind_itself() -> None:
    at = linear().at(torch.tensor([5, 6, 7]), LIKE)
    twice = at.repeat(2)
    assert twice.i.tolist() == [5, 6, 7, 5, 6, 7] and twice.t.tolist() == [5, 6, 7, 5, 6, 7]
    assert torch.equal(twice.scales.alpha, torch.cat([at.scales.alpha] * 2))
    assert set(vars(twice.scales)) == set(Scales.__dataclass_fields__)

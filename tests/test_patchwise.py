"""Pictures of other sizes than those of training, as a whole and square by square."""

from dataclasses import replace

import pytest
import torch

from tests.models import tiny_model, tiny_upsampler
from unnoise.config.model import ScheduleConfig
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import Prediction, x0_from_eps
from unnoise.generate import sample
from unnoise.model import make_schedule
from unnoise.patchwise import patchwise
from unnoise.planning import plan
from unnoise.tiles import Tiling

SCHEDULE = make_schedule(replace(tiny_model().config, schedule=ScheduleConfig(steps=50)))
TILING = Tiling(size=8, stride=4)


def pointwise(x, at, cond):
    """A denoiser that sees one position at a time: squares of it are exactly the whole."""
    eps = torch.sin(3 * x) + (
        0
        if cond.concat is None
        else cond.concat[:, :1]
        if cond.concat.shape[2:] == x.shape[2:]
        else cond.concat.mean()
    )
    return Prediction(x0=x0_from_eps(x, eps, at), eps=eps, var_fraction=torch.cos(x))


@pytest.mark.parametrize("concat", [None, (2, 3, 12, 20), (2, 3, 5, 5)])
@pytest.mark.parametrize("size", [(12, 20), (8, 8), (8, 13), (19, 9)])
def test_squares_of_a_pointwise_denoiser_are_the_whole(size, concat):
    if concat is not None and concat[2:] != (5, 5):
        concat = (*concat[:2], *size)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    at = SCHEDULE.at(30, x)
    cond = Condition(concat=None if concat is None else torch.randn(concat, dtype=torch.float64))
    whole, squares = pointwise(x, at, cond), patchwise(pointwise, TILING)(x, at, cond)
    for name in ("x0", "eps", "var_fraction"):
        torch.testing.assert_close(getattr(squares, name), getattr(whole, name), rtol=1e-6, atol=1e-6)


def test_no_call_sees_more_than_a_square_and_none_is_made_for_what_is_one():
    seen = []

    def noted(x, at, cond):
        seen.append(tuple(x.shape[2:]))
        return pointwise(x, at, cond)

    x = torch.randn(1, 1, 20, 12)
    patchwise(noted, TILING)(x, SCHEDULE.at(10, x), Condition())
    assert set(seen) == {(8, 8)} and len(seen) == 4 * 2
    seen.clear()
    patchwise(noted, TILING)(x[..., :8, :8], SCHEDULE.at(10, x), Condition())
    assert seen == [(8, 8)]


def test_means_do_not_blend():
    def by_mean(x, at, cond):
        return replace(pointwise(x, at, cond), mean=x)

    x = torch.randn(1, 1, 16, 16)
    with pytest.raises(ValueError, match="leave patch out"):
        patchwise(by_mean, TILING)(x, SCHEDULE.at(10, x), Condition())


def test_other_sides_are_drawn_and_squares_hardly_differ():
    model = tiny_model()
    assert plan(model, GenerateRequest(height=16, width=24)).picture == (1, 16, 24)
    whole = sample(model, n=2, steps="5", height=16, width=24).pixels
    assert whole.shape == (2, 16, 24, 1)
    squares = sample(model, n=2, steps="5", height=16, width=24, patch=8).pixels
    assert squares.shape == whole.shape and not torch.equal(squares, whole)
    same = sample(model, n=2, steps="5", patch=8).pixels
    assert torch.equal(same, sample(model, n=2, steps="5").pixels)
    assert torch.equal(same, sample(model, n=2, steps="5", height=8).pixels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": 9}, "height=9 is no multiple of 2, as this model needs; use 8"),
        ({"width": 1}, "width=1 is no multiple of 2"),
        ({"patch": 6}, "patch=6 is no multiple of 4, as this model needs; use 4"),
        ({"height": -8}, "height=-8"),
    ],
)
def test_sides_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        plan(tiny_model(), GenerateRequest(**options))


def test_an_upsampler_keeps_its_size():
    small = torch.zeros(1, 4, 4, 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match="its size is fixed"):
        sample(tiny_upsampler(), low_res=small, height=16, steps="2")

"""Respacing: any spec gives increasing entries, ddimN takes what ADM does, errors say the way out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import grid, space


def check(kept: torch.Tensor, steps: int, count: int) -> None:
    assert kept.dtype == torch.int64 and len(kept) == count
    assert (kept.diff() > 0).all() and kept[0] >= 0 and kept[-1] < steps


@given(st.sampled_from(["", "uniform", "quad", "trailing"]), st.integers(1, 2000), st.data())
@settings(max_examples=300, deadline=None)
def test_every_count(kind: str, steps: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, steps))
    kept = space(f"{kind}{count}", steps)
    check(kept, steps, count)
    if kind == "" and count > 1:
        assert kept[0] == 0 and kept[-1] == steps - 1, "a count keeps both ends"
        assert kept.diff().max() - kept.diff().min() <= 1, "and is as even as integers allow"
    if kind == "trailing":
        assert kept[-1] == steps - 1
    if kind == "uniform":
        assert kept[0] == 0 and (count == 1 or kept.diff().max() - kept.diff().min() <= 1)


@pytest.mark.parametrize("kind", ["", "uniform", "quad", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 7, 64])
def test_every_count_of_a_short_process(kind: str, steps: int) -> None:
    for count in range(1, steps + 1):
        check(space(f"{kind}{count}", steps), steps, count)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 400))
@settings(max_examples=300, deadline=None)
def test_sections(counts: list[int], steps: int) -> None:
    sizes = [steps // len(counts) + (k < steps % len(counts)) for k in range(len(counts))]
    spec = ",".join(map(str, counts))
    if sum(counts) == 0 or any(count > size for count, size in zip(counts, sizes, strict=True)):
        with pytest.raises(ValueError, match="steps="):
            space(spec, steps)
        return
    kept = space(spec, steps)
    check(kept, steps, sum(counts))
    first = 0
    for count, size in zip(counts, sizes, strict=True):
        inside = kept[(kept >= first) & (kept < first + size)]
        assert len(inside) == count
        if count:
            assert inside[0] == first
        if count > 1:
            assert inside[-1] == first + size - 1
        first += size


@pytest.mark.parametrize("steps", [1, 2, 100, 300, 1000])
def test_ddim_accepts_the_integer_strides_and_no_other(steps: int) -> None:
    strides = {len(range(0, steps, stride)): stride for stride in range(steps - 1, 0, -1)}
    for count in (
        [*range(steps + 2)] if steps <= 300 else [*range(80), 100, 125, 167, 250, 300, 334, 500, 1000, 1001]
    ):
        if count in strides:
            kept = space(f"ddim{count}", steps)
            check(kept, steps, count)
            assert kept[0] == 0 and (count == 1 or set(kept.diff().tolist()) == {strides[count]})
        else:
            with pytest.raises(ValueError, match=f"ddim{count}: no integer stride"):
                space(f"ddim{count}", steps)


def test_ddim_of_1000_has_the_62_published_counts() -> None:
    def works(count: int) -> bool:
        try:
            return len(space(f"ddim{count}", 1000)) == count
        except ValueError:
            return False

    assert sum(map(works, range(1, 1001))) == 62
    assert not any(map(works, (37, 41, 60, 64, 75, 150)))


def test_ddim_refusal_names_counts_that_work() -> None:
    with pytest.raises(ValueError, match="ddim60") as refusal:
        space("ddim60", 1000)
    offered = [word.strip(",") for word in str(refusal.value).split() if word.startswith("ddim")]
    assert offered
    for spec in offered:
        assert len(space(spec, 1000))


def test_quad_is_the_square_of_even_steps() -> None:
    assert space("quad5", 1000).tolist() == [0, 50, 200, 450, 800]


def test_all_steps_and_plain_numbers() -> None:
    assert torch.equal(space("", 10), torch.arange(10))
    assert torch.equal(space(250, 1000), space("250", 1000))
    assert torch.equal(space("even250", 1000), space("250", 1000))
    assert space(" 4, 3 ", 20).tolist() == [0, 3, 6, 9, 10, 14, 19]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("0", "use 1..1000"),
        ("1001", "exceeds the 1000 training steps; use 1..1000"),
        ("uniform0", "use 1..1000"),
        ("quad1001", "use 1..1000"),
        ("trailing2000", "use 1..1000"),
        ("even2000", "use 1..1000"),
        ("-5", "is not a respacing"),
        ("5.5", "is not a respacing"),
        ("5,,6", "is not a respacing"),
        ("fast", "is not a respacing"),
        ("600,1", "section 1 of 2; use at most 500"),
    ],
)
def test_refusals(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        space(spec, 1000)


def schedules() -> dict[str, NoiseSchedule]:
    linear = make_betas("linear", 1000)
    return {
        "linear": NoiseSchedule.from_betas(linear),
        "cosine": NoiseSchedule.from_betas(make_betas("cosine", 4000), rescale=True),
        "respaced": NoiseSchedule.from_betas(linear).respaced(space("250", 1000)),
    }


@pytest.mark.parametrize("kind", ["logsnr", "karras"])
@pytest.mark.parametrize("count", [1, 2, 7, 20])
@pytest.mark.parametrize("name", schedules())
def test_grids_between_training_steps(kind: str, count: int, name: str) -> None:
    """Equal steps in log sigma_ve or sigma_ve^(1/7), from end to end; t is what training would say."""
    schedule = schedules()[name]
    made = grid(f"{kind}{count}", schedule)
    known, sigma_ve = ((1 / s.alpha_bar - 1).sqrt() for s in (schedule, made))
    assert made.steps == count and made.alpha_bar_end == 1
    # Betas are the table: one step of 1 - beta = 1e-10 leaves alpha_bar six digits.
    torch.testing.assert_close(sigma_ve[-1], known[-1], rtol=1e-6, atol=0)
    torch.testing.assert_close(made.timesteps[-1], schedule.timesteps[-1], rtol=1e-6, atol=0)
    even = sigma_ve.log() if kind == "logsnr" else sigma_ve ** (1 / 7)
    if count > 1:
        torch.testing.assert_close(sigma_ve[0], known[0], rtol=1e-9, atol=0)
        assert abs(made.timesteps[0]) < 1e-9
        torch.testing.assert_close(even.diff(), even.diff().mean().expand(count - 1), rtol=1e-6, atol=0)
    told = torch.from_numpy(np.interp(sigma_ve.log(), known.log(), schedule.timesteps))
    torch.testing.assert_close(made.timesteps, told, rtol=0, atol=1e-3)
    assert bool((made.timesteps.diff() > 0).all())


def test_a_grid_is_a_respacing_unless_it_is_named() -> None:
    schedule = schedules()["linear"]
    for spec in ("20", "ddim25", "90,60", 7):
        kept = schedule.respaced(space(spec, 1000))
        assert torch.equal(grid(spec, schedule).betas, kept.betas)
        assert torch.equal(grid(spec, schedule).timesteps, kept.timesteps)


def test_grids_that_cannot_be() -> None:
    schedule = schedules()["linear"]
    with pytest.raises(ValueError, match="karras0 keeps none"):
        grid("karras0", schedule)
    with pytest.raises(ValueError, match=r"logsnr1001 exceeds .* use 1\.\.1000"):
        grid("logsnr1001", schedule)
    with pytest.raises(ValueError, match="logsnr20"):
        grid("karas20", schedule)
    silent = NoiseSchedule.from_betas(torch.tensor([0.1, 0.5, 1.0]))
    with pytest.raises(ValueError, match="use trailing2"):
        grid("karras2", silent)


def test_steps_of_latent_diffusion() -> None:
    schedule = schedules()["linear"]
    walk = grid("ldm30", schedule)
    assert walk.timesteps.tolist() == [33 * k + 1 for k in range(31)]
    assert walk.alpha_bar_end == schedule.alpha_bar[0]
    assert grid("ldm1000", schedule).timesteps.tolist() == list(range(1, 1000))
    quad = grid("ldmquad500", schedule).timesteps
    assert quad[0] == 1 and bool((quad.diff() > 0).all()) and quad[-1] == int(0.8 * 1000 + 1e-9) + 1
    # u^2 is all but whole at some places: whichever side numpy's rounding takes.
    for count, steps in [(count, 1000) for count in range(1, 400)] + [(69, 100), (50, 4000)]:
        told = np.unique((np.linspace(0, np.sqrt(steps * 0.8), count) ** 2).astype(int) + 1)
        betas = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
        assert grid(f"ldmquad{count}", NoiseSchedule.from_betas(betas)).timesteps.tolist() == told.tolist()
    for spec, said in (("ldm0", "ldm0 keeps none"), ("ldmquad1001", r"ldmquad1001 exceeds .* 1\.\.1000")):
        with pytest.raises(ValueError, match=said):
            grid(spec, schedule)

"""Group adm_schedules: betas, every table on them, respacing, what is refused."""

import re
from typing import Any

import pytest
import torch

from tests.diffusion.adm import assert_covered, exists
from tests.goldens import Case, assert_close, golden, manifest
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.networks.embeddings import timestep_embedding


def full(name: str, steps: int) -> NoiseSchedule:
    return NoiseSchedule.from_betas(make_betas(name, steps))


def tables(s: NoiseSchedule) -> dict[str, torch.Tensor]:
    """This package's tables under the original's names."""
    coef_x0, coef_xt = s.posterior_coefficients
    levels = s.levels
    return {
        "betas": s.betas,
        "alphas_cumprod": s.alpha_bar,
        "alphas_cumprod_prev": levels[:-2],
        "alphas_cumprod_next": levels[2:],
        "sqrt_alphas_cumprod": s.alpha_bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - s.alpha_bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - s.alpha_bar).log(),
        "sqrt_recip_alphas_cumprod": s.table("inv_alpha"),
        "sqrt_recipm1_alphas_cumprod": s.table("sigma_ve"),
        "posterior_variance": s.posterior_variance,
        "posterior_log_variance_clipped": s.posterior_log_variance,
        "posterior_mean_coef1": coef_x0,
        "posterior_mean_coef2": coef_xt,
        "timestep_map": s.timesteps,
    }


def assert_relative(actual: torch.Tensor, recorded: torch.Tensor, tolerance: float, what: str) -> None:
    """|a - b| <= tolerance |b|, entry by entry."""
    assert actual.shape == recorded.shape and actual.dtype == torch.float64, what
    both_infinite = torch.isinf(recorded) & (actual == recorded)
    error = ((actual - recorded).abs() / recorded.abs().clamp(min=1e-300))[~both_infinite]
    error = torch.where((actual == recorded)[~both_infinite], 0.0, error)
    assert not torch.isnan(error).any(), what
    assert error.numel() == 0 or error.max() <= tolerance, f"{what}: off by {error.max():.3g}"


def tolerance(name: str) -> float:
    """golden/README.md: cosine betas 5e-12, all else 1e-12, relative."""
    return 5e-12 if name == "cosine" else 1e-12


@golden("adm_schedules", only=lambda spec: "get_named_beta_schedule" in spec["call"])
def test_tables(case: Case) -> None:
    name, steps = re.search(r"get_named_beta_schedule\('(\w+)', (\d+)\)", case.spec["call"]).groups()
    ours = tables(full(name, int(steps)))
    for key, recorded in case.outputs.items():
        assert_relative(ours[key], recorded, tolerance(name), key)


@golden("adm_schedules", only=lambda spec: "space_timesteps" in spec["call"])
def test_respacing(case: Case) -> None:
    steps, respacing = re.search(r"space_timesteps\((\d+), '([^']*)'\)", case.spec["call"]).groups()
    kept = space(respacing, int(steps))
    for key, recorded in case.outputs.items():
        if key in ("timesteps", "timestep_map"):
            assert kept.tolist() == recorded.long().tolist()
            continue
        table, name = key.rsplit("_", 1)
        ours = tables(full(name, int(steps)).respaced(kept))
        assert_relative(ours[table], recorded, tolerance(name), key)


@golden("adm_schedules", only=lambda spec: "timestep_embedding" in spec["call"])
def test_embedding(case: Case) -> None:
    for key, recorded in case.outputs.items():
        ours = timestep_embedding(case.input("timesteps"), int(key.removeprefix("dim")))
        assert_close(ours, recorded, 2e-5, key)


def test_every_case_is_understood() -> None:
    known = re.compile("get_named_beta_schedule|space_timesteps|timestep_embedding")
    assert_covered("adm_schedules", lambda spec: bool(known.search(spec["call"])))


def refusals() -> list[list[Any]]:
    """The manifest's "errors": [T, respacing, message], or [what was built, message]."""
    return manifest("adm_schedules").get("errors", []) if exists("adm_schedules") else []


@pytest.mark.golden
@pytest.mark.parametrize("entry", refusals(), ids=str)
def test_refusals(entry: list[Any]) -> None:
    if len(entry) == 3:
        steps, respacing, _ = entry
        with pytest.raises(ValueError, match=re.escape(respacing)):
            space(respacing, steps)
        return
    text, _ = entry
    single = re.fullmatch(r"SpacedDiffusion\(use_timesteps=\{(\d+)\}\) built on (\w+) T=(\d+) .*", text)
    if single:
        # A deviation by choice: the original cannot build a process of one step (it looks up a second entry);
        # here it is a process like any other, and its one step lands on x0.
        kept, name, steps = int(single[1]), single[2], int(single[3])
        one = full(name, steps).respaced([kept])
        assert one.alpha_bar.tolist() == pytest.approx(
            full(name, steps).alpha_bar[[kept]].tolist(), rel=1e-12
        )
        assert all(table.isfinite().all() for table in tables(one).values())
        return
    name, steps = re.fullmatch(r"GaussianDiffusion on (\w+) schedule with T=(\d+)", text).groups()
    with pytest.raises(ValueError, match=f"steps={steps}"):
        full(name, int(steps))

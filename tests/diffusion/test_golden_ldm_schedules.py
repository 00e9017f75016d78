"""Group ldm_schedules: betas, DDIM's steps, buffers of the diffusion model, learning rates, averages."""

import re
from typing import Any

import torch
from torch import Tensor

from tests.diffusion.adm import assert_covered
from tests.diffusion.ldm import betas_of
from tests.diffusion.test_golden_schedules import assert_relative, tolerance
from tests.goldens import Case, assert_close, golden
from unnoise.config.schema import EmaConfig, RateCycle
from unnoise.diffusion.objectives import elbo_weights
from unnoise.diffusion.schedule import NoiseSchedule
from unnoise.diffusion.spacing import grid
from unnoise.networks.embeddings import ddpm_timestep_embedding
from unnoise.train.ema import Ema
from unnoise.train.optim import cycle_factor

BETAS = re.compile(r"make_beta_schedule\('(\w+)', (\d+), linear_start=([\d.e-]+), linear_end=([\d.e-]+)")
STEPS = re.compile(r"make_ddim_timesteps\('(\w+)', (\d+), (\d+)\)")
ENDS = re.compile(r"of the linear schedule ([\d.]+)\.\.([\d.]+) T=(\d+)")
BUFFERS = re.compile(
    r"buffers, timesteps (\d+), linear ([\d.]+)\.\.([\d.]+), parameterization='(\w+)', v_posterior=([\d.]+)"
)
EMA = re.compile(r"decay=([\d.]+), use_num_upates=(True|False)")
SCHEDULERS = ("LambdaWarmUpCosineScheduler", "LambdaWarmUpCosineScheduler2", "LambdaLinearScheduler")


def is_scheduler(spec: dict[str, Any]) -> bool:
    return spec.get("class_") in SCHEDULERS


@golden("ldm_schedules", only=lambda spec: bool(BETAS.search(spec["call"])))
def test_betas(case: Case) -> None:
    name, steps, start, end = BETAS.search(case.spec["call"]).groups()
    ours = {"betas": betas_of(name, int(steps), float(start), float(end))}
    for key, recorded in case.outputs.items():
        assert_relative(ours[key], recorded, tolerance(name), key)


def once(recorded: Tensor, times: Tensor, steps: int) -> Tensor:
    """The recorded entries at the first of equal times, one beyond the schedule meaning its last: repeats
    change nothing.
    """
    times = times.clamp(max=steps - 1)
    first = torch.cat([torch.tensor([True]), times[1:] != times[:-1]])
    return recorded[first]


@golden("ldm_schedules", only=lambda spec: bool(STEPS.search(spec["call"])))
def test_ddim_steps(case: Case) -> None:
    """Its steps, but the noisiest one for a last one that is beyond the schedule."""
    method, count, steps = STEPS.search(case.spec["call"]).groups()
    start, end, _ = ENDS.search(case.spec["call"]).groups()
    training = NoiseSchedule.from_betas(betas_of("linear", int(steps), float(start), float(end)))
    walk = grid(f"{'ldmquad' if method == 'quad' else 'ldm'}{count}", training)
    times = case.output("ddim_timesteps")
    assert len(times) == case.spec["number_of_steps_returned"]
    ours = {
        "alphas": walk.alpha_bar,
        "alphas_prev": walk.levels[:-2],
    }
    for key, recorded in case.outputs.items():
        if key == "ddim_timesteps":
            kept = once(times.clamp(max=int(steps) - 1), times, int(steps))
            assert torch.equal(walk.timesteps.long(), kept)
            continue
        table, eta = key.split("_eta")
        sigmas = float(eta) * walk.posterior_variance.sqrt()
        recorded = once(recorded, times, int(steps))
        assert_relative(sigmas if table == "sigmas" else ours[table], recorded, 1e-12, key)


def test_every_count_that_crashes_the_original_walks_to_the_noisiest_step() -> None:
    """Every S where 1000 // S divides 999 (systems.md, section 5)."""
    training = NoiseSchedule.from_betas(betas_of("linear", 1000, 0.0015, 0.0195))
    crashing = [*(3, 9, 27, 36, 37), *range(101, 112), *range(251, 334), *range(501, 1001)]
    for count in range(1, 1001):
        walk = grid(f"ldm{count}", training)
        assert walk.timesteps[0] == 1 and walk.alpha_bar_end == training.alpha_bar[0]
        stride = 1000 // count
        assert (999 % stride == 0) == (count in crashing)
        assert (walk.timesteps[-1] == 999) == (count in crashing or 998 % stride == 0), count


@golden("ldm_schedules", only=lambda spec: bool(BUFFERS.search(spec["call"])))
def test_buffers(case: Case) -> None:
    steps, start, end, predicts, v = BUFFERS.search(case.spec["call"]).groups()
    s = NoiseSchedule.from_betas(betas_of("linear", int(steps), float(start), float(end)))
    coef_x0, coef_xt = s.posterior_coefficients
    variance = s.mixed_variance(float(v))
    ours = {
        "betas": s.betas,
        "alphas_cumprod": s.alpha_bar,
        "alphas_cumprod_prev": s.levels[:-2],
        "sqrt_alphas_cumprod": s.alpha_bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - s.alpha_bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - s.alpha_bar).log(),
        "sqrt_recip_alphas_cumprod": s.table("inv_alpha"),
        "sqrt_recipm1_alphas_cumprod": s.table("sigma_ve"),
        "posterior_variance": variance,
        # Clipped at 1e-20 where ours takes the next entry's (trap 41).
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": coef_x0,
        "posterior_mean_coef2": coef_xt,
        "lvlb_weights": elbo_weights(s, predicts, float(v)),
    }
    assert set(case.outputs) <= set(ours)
    for key, recorded in case.outputs.items():
        error = (ours[key] - recorded.double()).abs()
        allowed = (1e-5 if key == "lvlb_weights" else 1e-6) * recorded.double().abs()
        assert (error <= allowed).all(), f"{key}: off by {(error / recorded.abs()).max():.3g}"


@golden("ldm_schedules", only=is_scheduler)
def test_learning_rates(case: Case) -> None:
    args = case.spec["constructor_args"]
    if case.spec["class_"] == "LambdaWarmUpCosineScheduler":
        cycles = [
            RateCycle(
                steps=args["max_decay_steps"],
                warmup_steps=args["warm_up_steps"],
                start=args["lr_start"],
                peak=args["lr_max"],
                floor=args["lr_min"],
            )
        ]
    else:
        names = ("cycle_lengths", "warm_up_steps", "f_start", "f_max", "f_min")
        rows = zip(*(args[name] for name in names), strict=True)
        cycles = [
            RateCycle(steps=n, warmup_steps=w, start=start, peak=peak, floor=floor)
            for n, w, start, peak, floor in rows
        ]
    decay = "linear" if case.spec["class_"] == "LambdaLinearScheduler" else "cosine"
    steps = case.input("step").tolist()
    ours = {"factor": torch.tensor([cycle_factor(cycles, decay, n) for n in steps], dtype=torch.float64)}
    for key, recorded in case.outputs.items():
        assert_relative(ours[key], recorded, 1e-12, key)


@golden("ldm_schedules", only=lambda spec: bool(EMA.search(spec["call"])))
def test_averages(case: Case) -> None:
    decay, counted = EMA.search(case.spec["call"]).groups()
    config = EmaConfig(rates=(float(decay),), warmup=counted == "True")
    ema = Ema({"weight": case.input("initial_weight")}, config)
    seen = []
    for weight in case.input("weights"):
        ema.update([weight])
        seen.append(ema.weights()["weight"].clone())
    ours = {"shadow": torch.stack(seen)}
    for key, recorded in case.outputs.items():
        assert_close(ours[key], recorded, 1e-6, key)


@golden("ldm_schedules", only=lambda spec: "get_timestep_embedding" in spec["call"])
def test_embedding_of_the_first_stage(case: Case) -> None:
    for key, recorded in case.outputs.items():
        ours = ddpm_timestep_embedding(case.input("timesteps"), int(key.removeprefix("dim")))
        assert_close(ours, recorded, 2e-5, key)


def test_every_case_is_understood() -> None:
    calls = re.compile("|".join(p.pattern for p in (BETAS, STEPS, BUFFERS, EMA)) + "|get_timestep_embedding")
    assert_covered("ldm_schedules", lambda spec: is_scheduler(spec) or bool(calls.search(spec["call"])))

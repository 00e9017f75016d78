"""Group ldm_samplers: latent diffusion's DDIM, PLMS and ancestral loops, guided or not, masked or not."""

from typing import Any

import torch
from torch import Tensor

from tests.diffusion.ldm import Toy, schedule_of
from tests.goldens import Case, assert_close, golden
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.constrain import hold_known
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import classifier_free
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.samplers import Ddim, Ddpm, Plms
from unnoise.diffusion.schedule import NoiseSchedule
from unnoise.diffusion.spacing import grid
from unnoise.diffusion.walk import Sampler, run

KNOWN = {
    *("sampler", "S", "eta", "temperature", "unconditional_guidance_scale", "conditioning_key"),
    *("linear_start", "linear_end", "timesteps", "beta_schedule", "ddim_discretize"),
    *("parameterization", "x_inter_every"),
}


def walked(settings: dict[str, Any]) -> NoiseSchedule:
    """The steps that a loop visits: all of training's in p_sample_loop, make_ddim_timesteps' elsewhere."""
    schedule = schedule_of(settings)
    if settings["sampler"] == "ddpm":
        return schedule
    quad = settings.get("ddim_discretize", "uniform") == "quad"
    return grid(f"{'ldmquad' if quad else 'ldm'}{settings['S']}", schedule)


def sampler_of(settings: dict[str, Any]) -> Sampler:
    temperature = settings.get("temperature", 1.0)
    if settings["sampler"] == "ddpm":
        return Ddpm(temperature=temperature)
    if settings["sampler"] == "ddim":
        return Ddim(eta=settings["eta"], temperature=temperature)
    assert settings["sampler"] == "plms" and temperature == 1.0
    return Plms()


def condition(key: str | None, value: Tensor | None) -> Condition:
    if key is None or value is None:
        return Condition()
    return Condition(concat=value) if key == "concat" else Condition(context=value)


def recorded_noise(case: Case, settings: dict[str, Any]) -> dict[tuple[int, int], Tensor]:
    """(step, draw) -> noise: a step draws one for the mask, if there is one, and one for itself, PLMS's first
    step two for itself; p_sample_loop blends after its step.
    """
    draws, record, step = iter(case.input("noise")), {}, 0
    masked, twice = case.has_input("mask"), settings["sampler"] == "plms"
    for noise in draws:
        if masked:
            record[step, 1], noise = noise, next(draws)
        record[step, 0] = noise
        if twice and step == 0:
            next(draws)
        step += 1
    return record


@golden("ldm_samplers")
def test_loops(case: Case) -> None:
    settings, x = case.spec["settings"], case.input("x_T")
    assert set(settings) <= KNOWN, set(settings) - KNOWN
    schedule = walked(settings)
    network = Toy(x.shape[1])
    denoise = Denoiser(network, predicts=settings.get("parameterization", "eps"))
    key = settings["conditioning_key"]
    cond = condition(key, case.input("conditioning") if case.has_input("conditioning") else None)
    if case.has_input("unconditional_conditioning"):
        drop = {"concat" if key == "concat" else "context": case.input("unconditional_conditioning")}
        scale = settings["unconditional_guidance_scale"]
        denoise = classifier_free(denoise, lambda cond: null(cond, drop), scale)
    constraint = None
    if case.has_input("mask"):
        assert settings["sampler"] != "ddpm", "p_sample_loop blends after its steps: not understood here"
        constraint = hold_known(case.input("x0"), case.input("mask"), exact=False)
    walk = run(
        sampler_of(settings),
        denoise,
        x,
        schedule.path(x),
        cond=cond,
        noise=RecordedNoise(recorded_noise(case, settings)),
        constraint=constraint,
    )
    steps = list(walk)
    every = settings.get("x_inter_every", 1)
    chosen = [s for s in steps if (schedule.steps - 1 - s.index) % every == 0 or s is steps[0]]
    ours = {
        "final": steps[-1].x,
        "x_inter": torch.stack([x, *(s.x for s in chosen)]),
        "pred_x0": torch.stack([x, *(s.prediction.x0 for s in chosen)]),
        "model_t": torch.stack(network.seen),
        "ddim_timesteps": schedule.timesteps.long(),
        "ddim_alphas": schedule.alpha_bar,
        "ddim_alphas_prev": schedule.levels[:-2],
        "ddim_sigmas": settings["eta"] * schedule.posterior_variance.sqrt(),
    }
    for name, recorded in case.outputs.items():
        exact = name.startswith("ddim_") or name == "model_t"
        assert_close(ours[name], recorded, 1e-6 if exact else 5e-5, name)

"""Group ldm_p_losses: losses of latent-diffusion's two diffusion classes, posterior, a step."""

import re
from typing import Any

import torch
from torch import Tensor

from tests.diffusion.adm import assert_covered
from tests.diffusion.ldm import Toy, schedule_of
from tests.goldens import Case, assert_close, golden, manifest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.likelihood import prior_bits
from unnoise.diffusion.objectives import Simple
from unnoise.diffusion.prediction import posterior_mean, x0_from_eps
from unnoise.diffusion.samplers import Ddpm
from unnoise.diffusion.schedule import add_noise
from unnoise.diffusion.transforms import clip_x0

DEFAULT = {"beta_schedule": "linear", "timesteps": 1000, "linear_start": 0.0015, "linear_end": 0.0195}
"""Of the cases that state none (README of the golden data)."""
STEP = re.compile(
    r"p_sample\(x_t, context, t, clip_denoised=(True|False), .*temperature=([\d.]+)\), "
    r"parameterization '(\w+)'"
)


def shared(name: str) -> Tensor:
    """An array of the case "inputs", which all others use."""
    spec = next(spec for spec in manifest("ldm_p_losses")["cases"] if spec["id"] == "inputs")
    return Case("ldm_p_losses", spec).input(name)


def condition(key: str | None) -> Condition:
    assert key in (None, "crossattn")
    return Condition(context=shared("context")) if key else Condition()


def parts(settings: dict[str, Any], logvar: Tensor | None, cond: Condition) -> dict[str, Tensor]:
    """Our objective's answer; its parts alone too, which the settings may weigh with 0."""
    x0, eps = shared("x_start"), shared("noise")
    at = schedule_of(settings).at(shared("t"), x0)
    denoiser = Denoiser(
        Toy(x0.shape[1]), predicts=settings["parameterization"], v_posterior=settings["v_posterior"]
    )

    def losses(simple: float, elbo: float) -> dict[str, Tensor]:
        objective = Simple(error=settings["loss_type"], simple_weight=simple, elbo_weight=elbo)
        return objective(denoiser, x0, at, eps=eps, cond=cond, logvar=logvar)

    weights = settings["l_simple_weight"], settings["original_elbo_weight"]
    said = losses(*weights)
    error = said.get("mse", said.get("mae"))
    return {
        "loss": said["loss"].mean(),
        "error": error.mean(),
        "simple": losses(1.0, 0.0)["loss"].mean(),
        "elbo": losses(1.0, 1.0)["elbo"].mean(),
    }


@golden("ldm_p_losses", only=lambda spec: "p_losses" in spec["call"])
def test_losses(case: Case) -> None:
    settings = case.spec["settings"]
    logvar = torch.full((settings["timesteps"],), settings["logvar_init"], requires_grad=True)
    t = shared("t")
    latent = parts(settings, logvar[t], condition(settings["conditioning_key"]))
    plain = parts(settings, None, Condition())
    (gradient,) = torch.autograd.grad(latent["loss"], logvar)
    ours = {
        "loss": latent["loss"],
        "ld_val_loss_simple": latent["error"],
        "ld_val_loss_gamma": latent["simple"],
        "ld_logvar": logvar.mean(),
        "ld_val_loss_vlb": latent["elbo"],
        "ld_val_loss": latent["loss"],
        "grad_logvar_at_t": gradient[t],
        "ddpm_loss": plain["loss"],
        "ddpm_val_loss_simple": plain["error"],
        "ddpm_val_loss_vlb": plain["elbo"],
        "ddpm_val_loss": plain["loss"],
    }
    for key, recorded in case.outputs.items():
        error = (ours[key].detach().double() - recorded.double()).abs()
        assert (error <= 1e-5 * recorded.double().abs()).all(), f"{key}: off by {error.max():.3g}"


@golden("ldm_p_losses", only=lambda spec: "q_sample" in spec["call"])
def test_forward(case: Case) -> None:
    schedule, x0, eps = schedule_of(DEFAULT), shared("x_start"), shared("noise")
    at = schedule.at(shared("t"), x0)
    x = add_noise(x0, eps, at)
    ours = {
        "x_t": x,
        "posterior_mean": posterior_mean(x0, x, at),
        "posterior_variance": at.scales.variance,
        # Clipped at 1e-20 where ours takes the next entry's (trap 41).
        "posterior_log_variance_clipped": at.scales.variance.clamp(min=1e-20).log(),
        "x0_from_noise": x0_from_eps(x, eps, at),
        "prior_bpd": prior_bits(x0, schedule),
    }
    for key, recorded in case.outputs.items():
        assert_close(ours[key], recorded, 1e-5, key)


@golden("ldm_p_losses", only=lambda spec: bool(STEP.search(spec["call"])))
def test_one_step(case: Case) -> None:
    clipped, temperature, predicts = STEP.search(case.spec["call"]).groups()
    x, t = case.input("x_t"), shared("t")
    schedule = schedule_of(DEFAULT)
    denoise = Denoiser(Toy(x.shape[1]), predicts=predicts)
    with torch.no_grad():
        moved, prediction, _ = Ddpm(temperature=float(temperature)).step(
            clip_x0(denoise) if clipped == "True" else denoise,
            x,
            schedule.at(t, x),
            schedule.at(t - 1, x),
            None,
            cond=condition("crossattn"),
            noise=lambda like: case.input("noise"),
            guide=None,
        )
    ours = {"sample": moved, "x0": prediction.x0}
    for key, recorded in case.outputs.items():
        assert_close(ours[key], recorded, 1e-5, key)


def test_every_case_is_understood() -> None:
    calls = re.compile(f"p_losses|q_sample|{STEP.pattern}")
    assert_covered("ldm_p_losses", lambda spec: bool(calls.search(spec["call"])) or not spec["outputs"])

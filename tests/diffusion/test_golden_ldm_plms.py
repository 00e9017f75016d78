"""Group ldm_samplers, the cases of PLMS: latent diffusion's loops, guided or not, with or without a mask."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.goldens import Case, assert_close, golden
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.constrain import hold_known
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import classifier_free
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.samplers import Plms
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.walk import run

BETAS = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine", "sqrt": "sqrt"}
PREDICTS = {"eps": "eps", "x0": "x0", "v": "v"}


class Toy(nn.Module):
    """The manifest's toy_unet; `seen` holds the first two t of every call."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        self.seen.append(t[:2].double())
        s = t.view(-1, 1, 1, 1) / 1000
        k = (1 - s) ** 4
        m = torch.tanh(4 * s) * x + 0.3 * k * torch.tanh(0.8 * x.flip(-1) + 0.5 * s) - 0.05 * k
        if cond.concat is not None:
            m = m + 0.25 * k * torch.tanh(cond.concat[:, : self.channels])
        if cond.context is not None:
            m = m + 0.3 * k * torch.tanh(3 * cond.context.mean((1, 2)).view(-1, 1, 1, 1))
        return m


def sub_schedule(settings: dict[str, Any]) -> tuple[NoiseSchedule, Tensor]:
    """The steps that LDM's make_ddim_timesteps keeps, landing at alpha_bar[0] (traps 36, 37, 61)."""
    steps, count = settings["timesteps"], settings["S"]
    name = BETAS[settings["beta_schedule"]]
    ends = {} if name == "cosine" else {"start": settings["linear_start"], "end": settings["linear_end"]}
    schedule = NoiseSchedule.from_betas(make_betas(name, steps, **ends))
    if settings.get("ddim_discretize", "uniform") == "quad":
        places = torch.linspace(0, (0.8 * steps) ** 0.5, count, dtype=torch.float64)
        keep = (places**2).long() + 1
    else:
        keep = torch.arange(0, steps, steps // count) + 1
    return schedule.respaced(keep, end=schedule.alpha_bar[0].item()), keep


def condition(key: str | None, value: Tensor | None) -> Condition:
    if key is None or value is None:
        return Condition()
    return Condition(concat=value) if key == "concat" else Condition(context=value)


@golden(
    "ldm_samplers", defer={"LDM's other loops: step 4": lambda spec: spec["settings"]["sampler"] != "plms"}
)
def test_plms(case: Case) -> None:
    settings, x = case.spec["settings"], case.input("x_T")
    schedule, keep = sub_schedule(settings)
    network = Toy(x.shape[1])
    denoise = Denoiser(network, predicts=PREDICTS[settings.get("parameterization", "eps")])
    key = settings["conditioning_key"]
    cond = condition(key, case.input("conditioning") if case.has_input("conditioning") else None)
    if case.has_input("unconditional_conditioning"):
        nothing = case.input("unconditional_conditioning")
        drop = {"concat" if key == "concat" else "context": nothing}
        denoise = classifier_free(
            denoise, lambda cond: null(cond, drop), settings["unconditional_guidance_scale"]
        )
    constraint, record = None, {}
    if case.has_input("mask"):
        constraint = hold_known(case.input("x0"), case.input("mask"), exact=False)
        # A step draws one noise for the mask and one for itself, the first step two for itself.
        record = {(k, 1): case.input("noise")[2 * k + (k > 0)] for k in range(schedule.steps)}
    walk = run(
        Plms(), denoise, x, schedule.path(x), cond=cond, noise=RecordedNoise(record), constraint=constraint
    )
    steps = list(walk)
    every = settings.get("x_inter_every", 1)
    chosen = [s for s in steps if (schedule.steps - 1 - s.index) % every == 0 or s is steps[0]]
    ours = {
        "final": steps[-1].x,
        "x_inter": torch.stack([x, *(s.x for s in chosen)]),
        "pred_x0": torch.stack([x, *(s.prediction.x0 for s in chosen)]),
        "model_t": torch.stack(network.seen),
        "ddim_timesteps": keep,
        "ddim_alphas": schedule.alpha_bar,
        "ddim_alphas_prev": schedule.levels[:-2],
        "ddim_sigmas": torch.zeros(schedule.steps),
    }
    for name, recorded in case.outputs.items():
        exact = name.startswith("ddim_") or name == "model_t"
        assert_close(ours[name], recorded, 1e-6 if exact else 5e-5, name)

"""The same walks by k-diffusion and by diffusers, where they are installed: equal within 1e-4 in float32.

All see one network that predicts eps at the same noise levels. Peers count sigma = sigma_ve and scale x by
1/alpha, which is undone before comparing.
"""

import importlib.util
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.noise import RecordedNoise, SeededNoise
from unnoise.diffusion.samplers import Ddim, Dpmpp2M, Dpmpp3M, Euler, Heun, Plms, UniPc
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import grid
from unnoise.diffusion.walk import run

pytestmark = pytest.mark.slow
TRAINING = NoiseSchedule.from_betas(make_betas("scaled_linear", 1000, start=0.00085, end=0.012))
GRIDS = ["12", "trailing12", "logsnr12", "karras12"]


class Toy(nn.Module):
    """Some smooth network that says eps, in float32."""

    def forward(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        s = t.view(-1, 1, 1, 1) / 1000
        return torch.tanh(3 * s + 0.1) * x + 0.3 * (1 - s) * torch.tanh(0.8 * x.flip(-1) + s)


def levels(schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """sigma_ve from the noisiest to the landing at 0, float64, and t of all but the landing."""
    sigmas = (1 / schedule.levels[:-1] - 1).sqrt().flip(0)
    return sigmas, schedule.timesteps.flip(0)


def ours(sampler: Any, schedule: NoiseSchedule, x: Tensor, noise: Any) -> Tensor:
    *_, end = run(sampler, Denoiser(Toy()), x, schedule.path(x), cond=Condition(), noise=noise)
    return end.x


def start() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def close(a: Tensor, b: Tensor) -> None:
    scale = max(1.0, b.abs().max().item())
    assert (a - b).abs().max() <= 1e-4 * scale, ((a - b).abs().max(), scale)


def k_diffusion() -> Any:
    """k_diffusion.sampling alone: the package imports all of its training program."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or not all(map(importlib.util.find_spec, ("torchdiffeq", "tqdm", "scipy"))):
        pytest.skip("k-diffusion, torchdiffeq, tqdm or scipy is not installed")
    utils = types.ModuleType("_k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    package = types.ModuleType("_k_diffusion")
    package.__path__, package.utils = list(spec.submodule_search_locations), utils
    stubs = {"_k_diffusion": package, "_k_diffusion.utils": utils}
    if "torchsde" not in sys.modules:
        stubs["torchsde"] = types.ModuleType("torchsde")  # for Brownian trees, which are not used
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stubs.items():
            patch.setitem(sys.modules, name, module)
        sampling = importlib.import_module("_k_diffusion.sampling")
        sys.modules.pop("_k_diffusion.sampling")
    return sampling


CASES: dict[str, tuple[Any, str, dict[str, float]]] = {
    "euler": (Euler(), "sample_euler", {}),
    "ddim as ancestral euler": (Ddim(eta=0.7), "sample_euler_ancestral", {"eta": 0.7}),
    "heun": (Heun(), "sample_heun", {}),
    "2m": (Dpmpp2M(), "sample_dpmpp_2m", {}),
    "2m-sde": (Dpmpp2M(eta=1), "sample_dpmpp_2m_sde", {"eta": 1.0}),
    "2m-sde half": (Dpmpp2M(eta=0.5), "sample_dpmpp_2m_sde", {"eta": 0.5}),
    "3m": (Dpmpp3M(), "sample_dpmpp_3m_sde", {"eta": 0.0}),
    "3m-sde": (Dpmpp3M(eta=1), "sample_dpmpp_3m_sde", {"eta": 1.0}),
    "3m-sde half": (Dpmpp3M(eta=0.5), "sample_dpmpp_3m_sde", {"eta": 0.5}),
}


@pytest.mark.parametrize("spec", GRIDS)
@pytest.mark.parametrize("name", CASES)
def test_k_diffusion(name: str, spec: str) -> None:
    sampler, function, options = CASES[name]
    peer = getattr(k_diffusion(), function)
    schedule, x = grid(spec, TRAINING), start()
    sigmas, times = levels(schedule)
    sigmas32, seeded, drawn = sigmas.float(), SeededNoise(0, (0, 1)), {}
    for k in range(schedule.steps):
        drawn[k, 0] = seeded(x, step=k, draw=0)

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        t = times[(sigmas32 - sigma[0]).abs().argmin()].float()
        eps = Toy()(x / (sigma**2 + 1).sqrt().view(-1, 1, 1, 1), t.expand(len(x)), Condition())
        return x - sigma.view(-1, 1, 1, 1) * eps

    if "eta" in options:
        step = {sigma.item(): k for k, sigma in enumerate(sigmas32)}
        options = options | {"noise_sampler": lambda sigma, _: drawn[step[sigma.item()], 0]}
    first = schedule.alpha_bar[-1].rsqrt().float()
    theirs = peer(model, x * first, sigmas32, disable=True, **options)
    close(ours(sampler, schedule, x, RecordedNoise(drawn)), theirs)


@pytest.mark.parametrize(("name", "spec"), [("karras", "karras12"), ("exponential", "logsnr12")])
def test_grids_of_k_diffusion(name: str, spec: str) -> None:
    sigmas = (1 / TRAINING.alpha_bar - 1).sqrt()
    theirs = getattr(k_diffusion(), f"get_sigmas_{name}")(12, sigmas[0].item(), sigmas[-1].item())
    torch.testing.assert_close(levels(grid(spec, TRAINING))[0].float(), theirs, rtol=1e-5, atol=0)


def scheduled(kind: str, **options: Any) -> Any:
    if importlib.util.find_spec("diffusers") is None:
        pytest.skip("diffusers is not installed")
    import diffusers

    training = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return getattr(diffusers, kind)(num_train_timesteps=1000, **training, **options)


DIFFUSERS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "euler": (Euler(), "EulerDiscreteScheduler", {}),
    "heun": (Heun(), "HeunDiscreteScheduler", {}),
    "2m": (Dpmpp2M(), "DPMSolverMultistepScheduler", {"lower_order_final": False}),
    "2m-sde": (
        Dpmpp2M(eta=1),
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "lower_order_final": False},
    ),
    "unipc-2": (UniPc(), "UniPCMultistepScheduler", {"solver_order": 2}),
    "unipc-3": (UniPc(solver_order=3), "UniPCMultistepScheduler", {"solver_order": 3}),
}


@pytest.mark.parametrize("spec", ["trailing20", "karras20"])
@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers(name: str, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their scheduler steps over our noise levels, told the same t, landing at 0."""
    sampler, kind, options = DIFFUSERS[name]
    peer = scheduled(kind, timestep_spacing="trailing", **options)
    schedule, x = grid(spec, TRAINING), start()
    peer.set_timesteps(20)
    sigmas, times = levels(schedule)
    if kind == "HeunDiscreteScheduler":  # every level but the ends stands there twice
        peer.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]]).float()
        peer.timesteps = torch.cat([times[:1], times[1:].repeat_interleave(2)]).float()
    else:
        peer.sigmas, peer.timesteps = sigmas.float(), times.float()
    scaled = kind in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")
    theirs = x * schedule.alpha_bar[-1].rsqrt().float() if scaled else x
    # Whichever t is asked for, their next step is the next in the row.
    peer.set_begin_index(0)
    seeded, drawn = SeededNoise(0, (0, 1)), {}
    for k in range(schedule.steps):
        drawn[k, 0] = seeded(x, step=k, draw=0)
    with torch.no_grad():
        for k, t in enumerate(peer.timesteps):
            told = peer.scale_model_input(theirs, t)
            eps = Toy()(told, t.expand(len(x)), Condition())
            extra = {"variance_noise": drawn[k, 0]} if "sde" in name else {}
            theirs = peer.step(eps, t, theirs, **extra).prev_sample
    close(ours(sampler, schedule, x, RecordedNoise(drawn)), theirs)


def test_diffusers_plms() -> None:
    """PNDMScheduler without its Runge-Kutta start is LDM's PLMS on leading steps, landing at alpha_bar[0]."""
    peer, x = scheduled("PNDMScheduler", skip_prk_steps=True, steps_offset=1), start()
    peer.set_timesteps(20)
    schedule = TRAINING.respaced(torch.arange(0, 1000, 50) + 1, end=TRAINING.alpha_bar[0].item())
    theirs = x
    with torch.no_grad():
        for t in peer.timesteps:
            theirs = peer.step(Toy()(theirs, t.float().expand(2), Condition()), t, theirs).prev_sample
    close(ours(Plms(), schedule, x, RecordedNoise({})), theirs)

"""guided-diffusion's settings, as the manifests of tests/golden write them, in this package's words."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.goldens import directory, manifest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.prediction import Denoise
from unnoise.diffusion.schedule import At, NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.transforms import clip_x0

PREDICTS = {"PREVIOUS_X": "mean", "START_X": "x0", "EPSILON": "eps"}
VARIANCES = {name.upper(): name for name in ("learned", "fixed_small", "fixed_large", "learned_range")}


def schedule_of(spec: dict[str, Any]) -> NoiseSchedule:
    """The process of a case's "diffusion" entry."""
    steps = spec["diffusion_steps"]
    schedule = NoiseSchedule.from_betas(
        make_betas(spec["noise_schedule"], steps), rescale=spec["rescale_timesteps"]
    )
    respacing = str(spec["timestep_respacing"])
    return schedule if respacing.startswith("none") else schedule.respaced(space(respacing, steps))


def exists(group: str) -> bool:
    return (directory() / f"{group}.json").exists()


def assert_covered(group: str, known: Callable[[dict[str, Any]], bool]) -> None:
    """Every case of the group is read by some test: nothing is skipped because its call is worded anew."""
    if exists(group):
        assert [spec["id"] for spec in manifest(group)["cases"] if not known(spec)] == []


class Toy(nn.Module):
    """The manifests' toy_model; `seen` holds every t it was told."""

    def __init__(self, variance: str) -> None:
        super().__init__()
        self.variance = variance
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        assert t.dtype == torch.float32 and t.shape == x.shape[:1]
        self.seen.append(t)
        s = t.view(-1, 1, 1, 1) / 1000
        k = (1 - s) ** 4
        m = torch.tanh(4 * s) * x + 0.3 * k * torch.tanh(0.8 * x.flip(-1) + 0.5 * s) - 0.05 * k
        if cond.label is not None:
            m = m + 0.02 * k * cond.label.float().view(-1, 1, 1, 1)
        v = torch.tanh(0.6 * x - 0.4 * s + 0.2)
        if self.variance == "LEARNED":
            v = -3 + 0.5 * v
        return torch.cat([m, v], 1) if self.variance.startswith("LEARNED") else m


class Replay(nn.Module):
    """A network that answers a fixed tensor."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        return self.answer


def denoiser_of(spec: dict[str, Any], network: nn.Module | None = None) -> Denoiser:
    variance = spec["model_var_type"]
    return Denoiser(
        network or Toy(variance), predicts=PREDICTS[spec["model_mean_type"]], variance=VARIANCES[variance]
    )


def maybe_clip(denoise: Denoise, clip: bool) -> Denoise:
    return clip_x0(denoise) if clip else denoise


def toy_guide(seen: list[Tensor] | None = None) -> Callable[[Tensor, At, Condition], Tensor]:
    """The manifests' toy_cond_fn."""

    def guide(x: Tensor, at: At, cond: Condition) -> Tensor:
        if seen is not None:
            seen.append(at.t)
        y, t = cond.label.float().view(-1, 1, 1, 1), at.t.view(-1, 1, 1, 1)
        return 0.3 * (0.1 * y - x) * (1 + t / 1000)

    return guide

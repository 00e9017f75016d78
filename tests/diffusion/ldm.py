"""latent-diffusion's settings, as the manifests of tests/golden write them, in this package's words."""

from typing import Any

import torch
from torch import Tensor, nn

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.schedule import NoiseSchedule, make_betas

BETAS = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine", "sqrt": "sqrt"}


class Toy(nn.Module):
    """The manifests' toy_unet; `seen` holds the first two t of every call."""

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
        if cond.label is not None:
            m = m + 0.02 * k * cond.label.float().view(-1, 1, 1, 1)
        return m


def betas_of(name: str, steps: int, start: float, end: float) -> Tensor:
    """make_beta_schedule's (trap 36)."""
    ends = {} if name == "cosine" else {"start": start, "end": end}
    return make_betas(BETAS[name], steps, **ends)


def schedule_of(settings: dict[str, Any]) -> NoiseSchedule:
    """The training process of a case's settings."""
    return NoiseSchedule.from_betas(
        betas_of(
            settings.get("beta_schedule", "linear"),
            settings["timesteps"],
            settings["linear_start"],
            settings["linear_end"],
        )
    )

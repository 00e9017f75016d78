"""Between two pictures: in the noise that they are drawn from, or half-way there.

In x_T: Song, Meng, Ermon 2021 (DDIM), arXiv:2010.02502, appendix D.5. In x_t: Ho, Jain, Abbeel 2020 (DDPM),
arXiv:2006.11239, section 4.3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedule import At, add_noise

PARALLEL = 1e-4
"""Sine of the angle below which two directions count as one line."""


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """From a to b on the sphere: sin((1 - s) w)/sin(w) a + sin(s w)/sin(w) b, w the angle (DDIM D.5).

    a, b: (B, C, H, W), each picture with an angle of its own; share s: 0 is a, 1 is b, one for all or (B,).
    Of noise it is noise again: independent unit normals stay unit normal. Parallel or opposite ones, which no
    single way joins, are mixed in a straight line.
    """
    shape = (-1,) + (1,) * (a.ndim - 1)
    # In float64, and on the CPU, as not every device knows it: a cosine near 1 has few digits of the angle.
    rows, others = a.detach().cpu().double().flatten(1), b.detach().cpu().double().flatten(1)
    lengths = rows.norm(dim=1) * others.norm(dim=1)
    cosine = ((rows * others).sum(1) / lengths.clamp(min=torch.finfo(torch.float64).tiny)).clamp(-1, 1)
    angle, sine = cosine.arccos(), (1 - cosine**2).sqrt()
    s = torch.as_tensor(share, dtype=torch.float64, device="cpu").expand(len(a))
    straight = (sine < PARALLEL) | (lengths == 0)
    safe = torch.where(straight, 1.0, sine)
    of_a = torch.where(straight, 1 - s, ((1 - s) * angle).sin() / safe).to(a.dtype)
    of_b = torch.where(straight, s, (s * angle).sin() / safe).to(a.dtype)
    return of_a.to(a.device).view(shape) * a + of_b.to(a.device).view(shape) * b


@dataclass(frozen=True, eq=False)
class SlerpNoise:
    """Every draw between those of two runs: at the ends a sampler that adds noise meets what each run met."""

    a: Noise
    b: Noise
    share: float
    """0 is a, 1 is b."""

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """Unit noise like `like`."""
        return slerp(self.a(like, step=step, draw=draw), self.b(like, step=step, draw=draw), self.share)


def mix_noised(
    x0: Tensor, other: Tensor, at: At, share: float | Tensor, *, eps: Tensor, eps_other: Tensor
) -> Tensor:
    """(1 - s) x_t + s x'_t, both noised to `at`, from where a sampler walks down (DDPM section 4.3).

    x0, other, eps, eps_other: (B, C, H, W); share s as for `slerp`. The noisier `at`, the further the results
    may be from both. Keep both eps while s moves, so that only s changes the picture.
    """
    s = torch.as_tensor(share, dtype=x0.dtype, device=x0.device).expand(len(x0))
    s = s.view((-1,) + (1,) * (x0.ndim - 1))
    return (1 - s) * add_noise(x0, eps, at) + s * add_noise(other, eps_other, at)

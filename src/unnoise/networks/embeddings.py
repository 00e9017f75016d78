"""How a network is told the time."""

import math

import torch
from torch import Tensor


def timestep_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """[cos(t f_i), sin(t f_i)], f_i = max_period^(-i / half), i < half = width // 2: IDDPM's and ADM's.

    t: (B,), whole or fractional. Returns (B, width) float32; an odd width ends in a column of zeros.
    """
    half = width // 2
    frequencies = torch.exp(
        -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    )
    angles = t.float()[:, None] * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return torch.nn.functional.pad(embedding, (0, width % 2))


def ddpm_timestep_embedding(t: Tensor, width: int) -> Tensor:
    """[sin(t f_i), cos(t f_i)], f_i = 10000^(-i / (half - 1)), i < half = width // 2: DDPM's and DDIM's.

    t: (B,), whole or fractional; width at least 4. Returns (B, width) float32; an odd width ends in a column
    of zeros.
    """
    half = width // 2
    # The constant first, as the published code rounds it: at t near 1000 the order of the two shows.
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10_000) / (half - 1))
    angles = t.float()[:, None] * torch.exp(exponents)
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(embedding, (0, width % 2))

"""Group normalisation with what follows it: modulation by an embedding (AdaGN) and SiLU (arXiv 1803.08494, 2105.05233).

Normalisation and activation are what lies between a U-Net and the speed of its convolutions, so there are two ways to
the same numbers, and `tests/networks/test_norm.py` compares them:

- PyTorch's own kernel, which is fast on NCHW;
- `_channels_last`, for torch.compile on a CPU: statistics as sums a channel and one fused pass. PyTorch's kernel takes
  2 to 10 times as long on channels-last (docs/speed.md), the layout in which convolutions are fastest.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_count(channels: int) -> int:
    """Groups of a norm: 32 where that divides (ADM), else the largest divisor that leaves 4 channels a group.

    Small groups let the norm erase what an additive embedding says; one channel a group erases all of it.
    """
    if channels % 32 == 0:
        return 32
    return max(n for n in range(1, min(32, max(1, channels // 4)) + 1) if channels % n == 0)


class GroupNorm(nn.GroupNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over groups of channels, statistics in float32."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(group_count(channels), channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and type."""
        if _prefers_channels_last(x):
            scale, shift = _channels_last(self, x, None, None)
            return _rows_to_image((_rows(x) * scale + shift).to(x.dtype), x)
        return _native(self, x)


def norm_silu(norm: GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """silu(norm(x) * (1 + scale) + shift). x: (B, C, H, W); scale, shift: (B, C) or neither. Shape and type of x."""
    if _prefers_channels_last(x):
        a, d = _channels_last(norm, x, scale, shift)
        return _rows_to_image(F.silu(_rows(x) * a + d).to(x.dtype), x)
    y = _native(norm, x)
    if scale is not None and shift is not None:
        y = torch.addcmul(shift.to(x.dtype)[:, :, None, None], y, (1 + scale).to(x.dtype)[:, :, None, None])
    return F.silu(y)


def _native(norm: GroupNorm, x: Tensor) -> Tensor:
    """PyTorch's kernel. It takes float32 weights beside reduced activations on a CPU only."""
    weight, bias = norm.weight, norm.bias
    if x.is_cuda or x.device.type == "mps" or weight.dtype != torch.float32:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return F.group_norm(x, norm.num_groups, weight, bias, norm.eps)


def _prefers_channels_last(x: Tensor) -> bool:
    return torch.compiler.is_compiling() and x.device.type == "cpu"


def _channels_last(
    norm: GroupNorm, x: Tensor, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """a, d of norm(x) * (1 + scale) + shift = a x + d, each (B, 1, C) float32.

    Averages over the channels of a group are products with a block-diagonal matrix, not a reshape: every per-channel
    number is then materialised (B, C), and the loops over pixels have no gather in them and are vectorised.
    """
    rows = _rows(x)
    block = _averages(norm.num_groups, norm.num_channels, x.device)
    mean = rows.mean(1) @ block
    var = (rows - mean[:, None]).square().mean(1) @ block
    a = (var + norm.eps).rsqrt() * norm.weight.float()
    d = norm.bias.float() - mean * a
    if scale is not None and shift is not None:
        a, d = a * (1 + scale), d * (1 + scale) + shift
    return a[:, None], d[:, None]


def _averages(groups: int, channels: int, device: torch.device) -> Tensor:
    """(C, C): row i averages over the group of channel i."""
    group = torch.arange(channels, device=device) // (channels // groups)
    return (group[:, None] == group).float() * (groups / channels)


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C) float32; a view where x is channels-last float32."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).float()


def _rows_to_image(rows: Tensor, like: Tensor) -> Tensor:
    b, c, h, w = like.shape
    return rows.view(b, h, w, c).permute(0, 3, 1, 2)

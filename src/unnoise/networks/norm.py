"""Group normalisation with what follows it: modulation by an embedding (AdaGN) and SiLU.

Wu & He 2018 (arXiv 1803.08494); Dhariwal & Nichol 2021 (arXiv 2105.05233). Two ways to the same numbers:
compiled kernels for channels-last tensors on a CPU or a GPU, PyTorch's operators for all else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.kernels.group_norm import group_norm_silu, is_usable, takes


def best_layout(x: Tensor) -> torch.memory_format:
    """The memory layout in which blocks of x's device and type are fastest (docs/speed.md).

    Convolutions are fastest channels-last. PyTorch's own group norm is slow there, and on a CPU loses three
    digits when a mean is 100 times the spread: only a compiled one makes that layout worth having.
    """
    return torch.channels_last if takes(x.device.type, x.dtype) else torch.contiguous_format


def group_count(channels: int, least: int | None = None) -> int:
    """Groups of a norm: 32 where that divides (ADM), else the largest divisor that leaves 4 channels a group.

    Small groups let the norm erase what an additive embedding says, and how strong a colour is; one channel
    a group erases all of it. With `least` every group has so many channels or more: 32 groups at most, and
    one where there are fewer channels.
    """
    if least is None and channels % 32 == 0:
        return 32
    most = min(32, max(1, channels // (least or 4)))
    return max(n for n in range(1, most + 1) if channels % n == 0)


def regroup(network: nn.Module, least: int | None) -> None:
    """Give every norm in a network groups of at least so many channels; None leaves them. Their weights have
    the same shapes in any groups.
    """
    for norm in network.modules() if least is not None else ():
        if isinstance(norm, GroupNorm):
            norm.num_groups = group_count(norm.num_channels, least)


class GroupNorm(nn.GroupNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over groups of channels, statistics in float32."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(group_count(channels), channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and type."""
        return _compiled(self, x, None, None, silu=False) if is_usable(x) else _native(self, x)


def norm_silu(norm: GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """silu(norm(x) * (1 + scale) + shift), of the shape and type of x. scale, shift: (B, C), or neither."""
    if is_usable(x):
        return _compiled(norm, x, scale, shift, silu=True)
    y = _native(norm, x)
    if scale is not None and shift is not None:
        y = torch.addcmul(shift.to(x.dtype)[:, :, None, None], y, (1 + scale).to(x.dtype)[:, :, None, None])
    return F.silu(y)


def _native(norm: GroupNorm, x: Tensor) -> Tensor:
    """PyTorch's operator; only the CPU's takes float32 weights beside reduced activations."""
    weight, bias = norm.weight, norm.bias
    if x.device.type != "cpu" or weight.dtype != torch.float32:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    # In the contiguous layout, whose statistics are the accurate ones on a CPU and the only ones elsewhere.
    return torch.group_norm(x.contiguous(), norm.num_groups, weight, bias, norm.eps)


def _compiled(
    norm: GroupNorm, x: Tensor, scale: Tensor | None, shift: Tensor | None, *, silu: bool
) -> Tensor:
    weight, bias = norm.weight.float().expand(len(x), -1), norm.bias.float().expand(len(x), -1)
    if scale is not None and shift is not None:
        weight, bias = weight * (1 + scale), torch.addcmul(shift, bias, 1 + scale)
    return group_norm_silu(x, weight, bias, norm.num_groups, norm.eps, silu)[0]

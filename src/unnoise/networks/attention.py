"""Self-attention over the positions of a feature map."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.layers import PointwiseConv1d, residual, zeroed
from unnoise.networks.norm import GroupNorm


def split_heads(qkv: Tensor, heads: int, order: Literal["legacy", "new"]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of (B, N, 3C), each (B, heads, N, C / heads) with contiguous channels.

    The channels of qkv are [head][q, k, v][channel] in the legacy order and [q, k, v][head][channel] in the
    new one: the same shapes, different results.
    """
    b, n, width = qkv.shape
    channels = width // (3 * heads)
    if order == "legacy":
        q, k, v = qkv.view(b, n, heads, 3, channels).unbind(3)
    else:
        q, k, v = qkv.view(b, n, 3, heads, channels).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


EXPLICIT_UP_TO = 256
"""Positions up to which `attend` spells the attention out: its map is then small beside the activations."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(c)) v, each (B, heads, N, c).

    On a CPU in bfloat16 three matrix products are twice as fast, forward and backward, as the fused operator
    (docs/speed.md); elsewhere the fused one is as fast and keeps no N x N map.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= EXPLICIT_UP_TO:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        return scores.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class SelfAttention(nn.Module):
    """x + proj(softmax(q k^T / sqrt(c)) v) over all positions, c channels a head (ADM).

    The original scales q and k each by c^-1/4 and takes the softmax in float32: the same numbers as the fused
    call here.
    """

    def __init__(
        self, channels: int, heads: int, order: Literal["legacy", "new"], rescale: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.order, self.rescale = heads, order, rescale
        self.norm = GroupNorm(channels)
        self.qkv = PointwiseConv1d(channels, 3 * channels)
        self.proj_out = zeroed(PointwiseConv1d(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        b, c, h, w = x.shape
        # Positions before channels: a non-contiguous head dimension falls to the slow path of the CPU kernel.
        rows = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = split_heads(self.qkv(rows), self.heads, self.order)
        mixed = attend(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return residual(x, self.proj_out(mixed).transpose(1, 2).reshape(b, c, h, w), self.rescale)

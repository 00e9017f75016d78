"""Self-attention over the positions of a feature map."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.layers import Conv2d, PointwiseConv1d, residual, zeroed
from unnoise.networks.norm import GroupNorm, best_layout


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


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(c)) v; q: (B, heads, N, c), k and v: (B, heads, L, c) -> the shape of q.

    mask: (B, L) bool, True where a key counts. Where none counts the answer is 0.

    On a CPU in bfloat16 three matrix products are twice as fast, forward and backward, as the fused operator
    (docs/speed.md); elsewhere the fused one is as fast and keeps no N x N map.
    """
    seen = None if mask is None else mask[:, None, None, :]
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= EXPLICIT_UP_TO:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        mixed = scores.softmax(dim=-1) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, seen)
    # Over no key at all a softmax has no value, and kernels differ in what they say.
    return mixed if seen is None else torch.where(seen.any(-1, keepdim=True), mixed, 0.0)


class LinearAttention(nn.Module):
    """project((softmax_positions(k) v^T)^T q): linear in the positions (Katharopoulos et al. 2020).

    Without norm and residual sum, as latent diffusion has it. arXiv 2006.16236.
    """

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = Conv2d(channels, 3 * heads * head_channels, 1, bias=False)
        self.to_out = Conv2d(heads * head_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        q, k, v = self.to_qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        kept = k.softmax(dim=-1) @ v.transpose(2, 3)  # (B, heads, key channel, value channel)
        mixed = (kept.transpose(2, 3) @ q).flatten(1, 2).unflatten(2, x.shape[2:])
        return self.to_out(mixed.contiguous(memory_format=best_layout(x)))


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

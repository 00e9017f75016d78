"""Transformer blocks that read a context by cross-attention (Rombach et al. 2022, arXiv 2112.10752, 3.3).

Parameter names and shapes are those of the published latent diffusion models.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.attention import attend
from unnoise.networks.layers import Conv2d, LayerNorm, Linear, zeroed
from unnoise.networks.norm import GroupNorm

EPS = 1e-6
"""Of the norm before the blocks; those of the U-Net around it have 1e-5."""


class CrossAttention(nn.Module):
    """project(softmax(q k^T / sqrt(c)) v), q of x and k, v of the context, c channels a head."""

    def __init__(self, width: int, context_width: int, heads: int, head_channels: int) -> None:
        super().__init__()
        inner = heads * head_channels
        self.heads = heads
        self.to_q = Linear(width, inner, bias=False)
        self.to_k = Linear(context_width, inner, bias=False)
        self.to_v = Linear(context_width, inner, bias=False)
        self.to_out = nn.ModuleList([Linear(inner, width)])  # a list: published as to_out.0

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, width), context: (B, L, context_width), mask: (B, L) bool, True where a token counts.

        Returns (B, N, width); a row that is given no token at all reads zeros.
        """
        q, k, v = (
            layer(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, rows in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        mixed = attend(q, k, v, mask).transpose(1, 2).flatten(2)
        return self.to_out[0](mixed)


class GatedGelu(nn.Module):
    """value * gelu(gate), both linear in x (GEGLU: Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, inner)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Position by position: four times as wide through a gate, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The identity stands where the published files have a dropout, which was never on.
        self.net = nn.Sequential(GatedGelu(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """x + self-attention, + cross-attention, + feed-forward, each of the norm of what it adds to."""

    def __init__(self, width: int, heads: int, head_channels: int, context_width: int | None) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads, head_channels)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, context_width or width, heads, head_channels)
        self.norm1, self.norm2, self.norm3 = LayerNorm(width), LayerNorm(width), LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, N, width) -> the same shape; without a context the second attention reads x as well."""
        rows = self.norm1(x)
        x = x + self.attn1(rows, rows)
        rows = self.norm2(x)
        x = x + self.attn2(rows, rows if context is None else context, mask)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """x + project(blocks(project(norm(x)))) over the positions of a feature map."""

    def __init__(
        self, channels: int, heads: int, head_channels: int, *, depth: int, context_width: int | None
    ) -> None:
        super().__init__()
        inner = heads * head_channels
        self.norm = GroupNorm(channels, EPS)
        self.proj_in = Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(inner, heads, head_channels, context_width) for _ in range(depth)]
        )
        self.proj_out = zeroed(Conv2d(inner, channels, 1))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W), context: (B, L, context_width) or None as built -> the shape of x."""
        context = None if context is None else context.to(x.dtype)
        rows = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        for block in self.transformer_blocks:
            rows = block(rows, context, mask)
        rows = rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return torch.add(x, self.proj_out(rows))

"""The noisy classifier: the encoder half of the U-Net and a pool (Dhariwal & Nichol 2021, arXiv 2105.05233).

Parameter names and shapes are those of the published files (section 4 and appendix H of the paper).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.attention import attend, split_heads
from unnoise.networks.embeddings import timestep_embedding
from unnoise.networks.layers import Conv2d, Linear, PointwiseConv1d, zeroed
from unnoise.networks.norm import GroupNorm, best_layout, norm_silu
from unnoise.networks.settings import EncoderUNetSettings, UNetSettings
from unnoise.networks.unet import apply_block, encoder_blocks, middle_layers

HIDDEN = 2048
"""Width of the hidden layer of the spatial pools, a constant in the original."""


class AttentionPool(nn.Module):
    """What the mean of all positions reads from them by attention, projected to the logits (CLIP's pool).

    Heads in the new order whatever the body's order is: the published weights are so.
    """

    def __init__(self, side: int, channels: int, head_channels: int, outputs: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.positional_embedding = nn.Parameter(torch.randn(channels, side**2 + 1) / channels**0.5)
        self.qkv_proj = PointwiseConv1d(channels, 3 * channels)
        self.c_proj = PointwiseConv1d(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, side, side) -> (B, outputs)."""
        rows = x.flatten(2).transpose(1, 2)
        rows = torch.cat([rows.mean(1, keepdim=True), rows], dim=1)  # the mean has the first position
        rows = rows + self.positional_embedding.T.to(rows.dtype)
        q, k, v = split_heads(self.qkv_proj(rows), self.heads, "new")
        first = attend(q[:, :, :1], k, v)  # (B, heads, 1, c): nothing else is read of the answer
        logits: Tensor = self.c_proj(first.transpose(1, 2).flatten(2))
        return logits[:, 0]


class EncoderUNet(nn.Module):
    """Logits of the classes of noisy pictures: EncoderUNet(x_t, t)."""

    def __init__(self, settings: EncoderUNetSettings) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations before the pool; None takes that of x."""
        body = _body(settings)
        emb = 4 * settings.width
        self.time_embed = nn.Sequential(Linear(settings.width, emb), nn.SiLU(), Linear(emb, emb))
        self.input_blocks, kept = encoder_blocks(body)
        self.middle_block = middle_layers(body, kept[-1])
        self.out = _pool(settings, kept)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, C, H, W), t: (B,) as the schedule tells it -> (B, classes) of the type of x.

        The attention pool knows only pictures of the side that it was built for.
        """
        self._check_input(x)
        dtype = x.dtype
        emb = self.time_embed(timestep_embedding(t, self.settings.width))
        h = x.to(self.compute_dtype or dtype)
        if self.settings.patch > 1:
            h = F.pixel_unshuffle(h, self.settings.patch)
        h = h.contiguous(memory_format=best_layout(h))
        means = []
        for block in [*self.input_blocks, self.middle_block]:
            h = apply_block(block, h, emb, self.settings.checkpoint)
            means.append(h.to(dtype).mean((2, 3)))
        return self._read(h.to(dtype), means)

    def _read(self, h: Tensor, means: list[Tensor]) -> Tensor:
        """The logits of the last activations (B, C, H, W), or of every block's channel means (B, C_i)."""
        pool = self.settings.pool
        if pool == "spatial":
            return self.out(torch.cat(means, dim=1))
        if pool == "spatial_v2":
            first, norm, _, last = self.out
            hidden = first(torch.cat(means, dim=1))[:, :, None, None]
            return last(norm_silu(norm, hidden)[:, :, 0, 0])
        h = norm_silu(self.out[0], h)
        if pool == "attention":
            return self.out[2](h)
        return self.out[3](h.mean((2, 3), keepdim=True)).flatten(1)

    def _check_input(self, x: Tensor) -> None:
        settings = self.settings
        if x.shape[1] != settings.in_channels:
            raise ValueError(
                f"pictures of {x.shape[1]} channels; this classifier sees {settings.in_channels}, as many as "
                "the model that it guides must draw"
            )
        for side in x.shape[2:]:
            settings.check_side(side)
        if settings.pool == "attention" and tuple(x.shape[2:]) != (settings.image_size,) * 2:
            raise ValueError(
                f"pictures of {x.shape[3]}x{x.shape[2]}; this classifier was built for "
                f"{settings.image_size}x{settings.image_size}: use a model of that size, or another pool"
            )


def _body(settings: EncoderUNetSettings) -> UNetSettings:
    """The U-Net whose encoder this is."""
    return UNetSettings(
        in_channels=settings.in_channels,
        out_channels=settings.in_channels,
        width=settings.width,
        depth=settings.depth,
        channel_mult=settings.channel_mult,
        patch=settings.patch,
        attention=settings.attention,
        heads=settings.heads,
        head_channels=settings.head_channels,
        attention_order=settings.attention_order,
        updown_blocks=settings.updown_blocks,
        conv_resample=settings.conv_resample,
        adagn=settings.adagn,
        dropout=settings.dropout,
    )


def _pool(settings: EncoderUNetSettings, kept: list[int]) -> nn.Sequential:
    """From the activations, or from the means of every block, to the logits; indices as published."""
    channels, classes = kept[-1], settings.classes
    assert classes is not None and settings.image_size is not None, "settings.check() has seen to it"
    if settings.pool == "adaptive":
        last = zeroed(Conv2d(channels, classes, 1))
        return nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.AdaptiveAvgPool2d(1), last, nn.Flatten())
    if settings.pool == "attention":
        assert settings.head_channels is not None
        side = settings.image_size // settings.size_factor
        pool = AttentionPool(side, channels, settings.head_channels, classes)
        return nn.Sequential(GroupNorm(channels), nn.SiLU(), pool)
    first, last = Linear(sum(kept) + channels, HIDDEN), Linear(HIDDEN, classes)
    if settings.pool == "spatial":
        return nn.Sequential(first, nn.ReLU(), last)
    return nn.Sequential(first, GroupNorm(HIDDEN), nn.SiLU(), last)

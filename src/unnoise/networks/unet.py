"""The ADM U-Net with every axis of its ablation (Dhariwal & Nichol 2021, arXiv 2105.05233, section 3).

Parameter names and shapes are those of the published files, so loading them is strict and needs no mapping.
Four things follow other sources: `rescale_residual` scales attention sums too (Song et al. 2021),
`concat_level` adds an embedding of the noise of an upsampler's condition (Ho et al. 2021, arXiv 2106.15282),
`transformer_depth` makes it the U-Net of Latent Diffusion (Rombach et al. 2022, arXiv 2112.10752), and
`pooled_context` adds the tokens' mean to the embedding of t (after Nichol et al. 2021, arXiv 2112.10741).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.networks.attention import SelfAttention
from unnoise.networks.embeddings import timestep_embedding
from unnoise.networks.inputs import check_context, check_label, check_level, joined
from unnoise.networks.layers import Conv2d, LayerNorm, Linear, residual, zeroed
from unnoise.networks.norm import GroupNorm, best_layout, norm_silu, regroup
from unnoise.networks.settings import UNetSettings, check_norms, check_shared
from unnoise.networks.transformer import SpatialTransformer

LEVELS = 1000
"""A level of 1 is embedded as the time 1000 would be."""


class Downsample(nn.Module):
    """Half the size: a stride-2 convolution with symmetric padding, or the mean of 2x2 without one."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1) if convolve else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Twice the size by nearest neighbour, then a convolution if `convolve`."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1) if convolve else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return x if self.conv is None else self.conv(x)


class ResBlock(nn.Module):
    """skip(x) + conv(dropout(silu(film(norm(h), emb)))), h = conv(silu(norm(x))); both resampled if asked."""

    def __init__(self, settings: UNetSettings, channels_in: int, channels: int, resample: str = "") -> None:
        super().__init__()
        self.adagn, self.rescale, self.dropout = settings.adagn, settings.rescale_residual, settings.dropout
        self.resample = {
            "": None,
            "up": Upsample(channels_in, False),
            "down": Downsample(channels_in, False),
        }[resample]
        self.in_layers = nn.Sequential(
            GroupNorm(channels_in), nn.SiLU(), Conv2d(channels_in, channels, 3, padding=1)
        )
        embedded = 2 * channels if settings.adagn else channels
        self.emb_layers = nn.Sequential(nn.SiLU(), Linear(4 * settings.width, embedded))
        self.out_layers = nn.Sequential(
            GroupNorm(channels),
            nn.SiLU(),
            nn.Dropout(settings.dropout),
            zeroed(Conv2d(channels, channels, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if channels_in == channels else Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x: (B, channels_in, H, W), emb: (B, 4 width) float32 -> (B, channels, H', W')."""
        norm, _, conv = self.in_layers
        h = norm_silu(norm, x)
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = conv(h)
        emb = self.emb_layers(emb)
        norm, _, dropout, conv = self.out_layers
        if self.adagn:
            h = norm_silu(norm, h, *emb.chunk(2, dim=1))
        else:
            h = norm_silu(norm, h + emb.to(h.dtype)[:, :, None, None])
        return residual(self.skip_connection(x), conv(dropout(h)), self.rescale)


class UNet(nn.Module):
    """eps (and variance) = UNet(x, t, cond).

    Reads `cond.label` (B,) int64 when built with classes; appends `cond.concat` (B, C', H', W') to x if
    given, resampled to the size of x: the low-resolution picture of an upsampler. Reads `cond.level` (B,)
    when built with `concat_level`, `cond.context` (B, L, context_width) and, if given, `cond.context_mask`
    (B, L) bool when built with `context_width`.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.size_factor = settings.size_factor
        """Both sides of a picture must be a multiple of this."""
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations between the first and the last block; None takes that of x."""
        emb = 4 * settings.width
        self.time_embed = nn.Sequential(Linear(settings.width, emb), nn.SiLU(), Linear(emb, emb))
        if settings.classes is not None:
            self.label_emb = nn.Embedding(settings.classes, emb)
        if settings.concat_level:
            self.level_embed = nn.Sequential(Linear(settings.width, emb), nn.SiLU(), Linear(emb, emb))
        if settings.pooled_context:
            assert settings.context_width is not None, "_check has seen to it"
            self.context_embed = nn.Sequential(
                LayerNorm(settings.context_width),
                Linear(settings.context_width, emb),
                nn.SiLU(),
                Linear(emb, emb),
            )
        self.input_blocks, kept = encoder_blocks(settings)
        self.middle_block = middle_layers(settings, kept[-1])
        self.output_blocks = _decoder(settings, kept)
        first = kept[0]
        self.out = nn.Sequential(
            GroupNorm(first),
            nn.SiLU(),
            zeroed(Conv2d(first, settings.out_channels * settings.patch**2, 3, padding=1)),
        )
        regroup(self, settings.norm_channels)
        self.to(memory_format=torch.channels_last)  # or every step would re-order the weights of every layer

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x: (B, C, H, W), t: (B,) as the schedule tells it -> (B, out_channels, H, W) of the type of x."""
        norm, _, conv = self.out
        h = conv(norm_silu(norm, self.features(x, t, cond)))
        return F.pixel_shuffle(h, self.settings.patch) if self.settings.patch > 1 else h

    def features(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """What the last layers read: (B, width of the first level, H / patch, W / patch), the type of x."""
        dtype = x.dtype
        emb = self.embed(t, *(None, None) if cond is None else (cond.label, cond.level))
        told = (None, None) if cond is None else (cond.context, cond.context_mask)
        check_context(self.settings, *told)
        if self.settings.pooled_context:
            emb = emb + self.context_embed(pooled(*told))
        h = joined(self.settings, x, None if cond is None else cond.concat).to(self.compute_dtype or dtype)
        if self.settings.patch > 1:
            h = F.pixel_unshuffle(h, self.settings.patch)
        h = h.contiguous(memory_format=best_layout(h))
        kept = []
        for block in self.input_blocks:
            h = apply_block(block, h, emb, self.settings.checkpoint, *told)
            kept.append(h)
        h = apply_block(self.middle_block, h, emb, self.settings.checkpoint, *told)
        for block in self.output_blocks:
            h = apply_block(block, torch.cat([h, kept.pop()], dim=1), emb, self.settings.checkpoint, *told)
        return h.to(dtype)

    def embed(self, t: Tensor, label: Tensor | None, level: Tensor | None) -> Tensor:
        """What every block is told of time, class and level: (B, 4 width) float32, whatever the activations
        are.
        """
        check_label(self.settings, label)
        check_level(self.settings, level)
        emb = self.time_embed(timestep_embedding(t, self.settings.width))
        if label is not None:
            emb = emb + self.label_emb(label)
        if level is not None:
            emb = emb + self.level_embed(timestep_embedding(LEVELS * level, self.settings.width))
        return emb


def pooled(context: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of the tokens (B, L, D), of those that `mask` (B, L) lets count, 0 of none: (B, D) float32."""
    context = context.float()
    if mask is None:
        return context.mean(1)
    return (context * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def apply_block(
    block: nn.Module,
    h: Tensor,
    emb: Tensor,
    recompute: bool,
    context: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The layers of one block in turn; `recompute` repeats them in the backward pass to save memory."""
    assert isinstance(block, nn.ModuleList)
    for layer in block:
        inputs: tuple[Tensor | None, ...] = (h,)
        if isinstance(layer, ResBlock):
            inputs = (h, emb)
        elif isinstance(layer, SpatialTransformer):
            inputs = (h, context, mask)
        heavy = isinstance(layer, ResBlock | SelfAttention | SpatialTransformer)
        if recompute and torch.is_grad_enabled() and heavy:
            h = checkpoint(layer, *inputs, use_reentrant=False)
        else:
            h = layer(*inputs)
    return h


def encoder_blocks(settings: UNetSettings) -> tuple[nn.ModuleList, list[int]]:
    """The down-going blocks and the channels that each leaves for the decoder."""
    widths = [int(m * settings.width) for m in settings.channel_mult]
    channels, factor = widths[0], settings.patch
    first = Conv2d(settings.in_channels * settings.patch**2, channels, 3, padding=1)
    blocks = nn.ModuleList([nn.ModuleList([first])])
    kept = [channels]
    for level, width in enumerate(widths):
        for _ in range(settings.depth):
            layers = nn.ModuleList([ResBlock(settings, channels, width)])
            channels = width
            if factor in settings.attention:
                layers.append(_attention(settings, channels, settings.heads))
            blocks.append(layers)
            kept.append(channels)
        if level < len(widths) - 1:
            down: nn.Module
            if settings.updown_blocks:
                down = ResBlock(settings, channels, channels, "down")
            else:
                down = Downsample(channels, settings.conv_resample)
            blocks.append(nn.ModuleList([down]))
            kept.append(channels)
            factor *= 2
    return blocks, kept


def middle_layers(settings: UNetSettings, channels: int) -> nn.ModuleList:
    """The block at the bottom: residual, attention, residual."""
    return nn.ModuleList(
        [
            ResBlock(settings, channels, channels),
            _attention(settings, channels, settings.heads),
            ResBlock(settings, channels, channels),
        ]
    )


def _decoder(settings: UNetSettings, kept: list[int]) -> nn.ModuleList:
    """The up-going blocks, each fed what one encoder block left."""
    kept = list(kept)
    blocks = nn.ModuleList()
    channels, factor = kept[-1], settings.patch * 2 ** (len(settings.channel_mult) - 1)
    for level, mult in reversed(list(enumerate(settings.channel_mult))):
        for i in range(settings.depth + 1):
            layers = nn.ModuleList([ResBlock(settings, channels + kept.pop(), int(mult * settings.width))])
            channels = int(mult * settings.width)
            if factor in settings.attention:
                layers.append(_attention(settings, channels, settings.heads_up or settings.heads))
            if level and i == settings.depth:
                if settings.updown_blocks:
                    layers.append(ResBlock(settings, channels, channels, "up"))
                else:
                    layers.append(Upsample(channels, settings.conv_resample))
                factor //= 2
            blocks.append(layers)
    return blocks


def _attention(settings: UNetSettings, channels: int, heads: int) -> SelfAttention | SpatialTransformer:
    """Heads of a transformer may leave channels over, as in latent diffusion: its projections see to that."""
    size = settings.head_channels
    uneven = bool(settings.transformer_depth) and not size and heads <= channels
    if channels % (size or heads) and not uneven:
        what = f"head_channels={size}" if size else f"heads={heads}"
        raise ValueError(
            f"{what} does not divide the {channels} channels of an attention block; choose a divisor"
        )
    heads = channels // size if size else heads
    if settings.transformer_depth:
        depth, width = settings.transformer_depth, settings.context_width
        return SpatialTransformer(channels, heads, channels // heads, depth=depth, context_width=width)
    return SelfAttention(channels, heads, settings.attention_order, settings.rescale_residual)


def _check(settings: UNetSettings) -> None:
    for name in ("in_channels", "out_channels", "width", "depth", "patch", "heads"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)} must be at least 1")
    for name in ("head_channels", "heads_up"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1; leave it out for the default")
    check_shared(settings)
    check_norms(settings.norm_channels)
    _check_transformer(settings)
    if not settings.channel_mult or any(int(m * settings.width) < 1 for m in settings.channel_mult):
        raise ValueError(
            f"channel_mult={settings.channel_mult} with width={settings.width} must name at least one level, "
            "each of one channel or more"
        )


def _check_transformer(settings: UNetSettings) -> None:
    depth, width = settings.transformer_depth, settings.context_width
    if depth < 0 or (width is not None and width < 1):
        raise ValueError(
            f"transformer_depth={depth}, context_width={width} make no transformer; use 0 or more blocks and "
            "a width of 1 or more, or none"
        )
    if settings.pooled_context and width is None:
        raise ValueError(
            "pooled_context=True has no tokens to pool; build the network with context_width=..."
        )
    if width is not None and not depth:
        raise ValueError(
            f"context_width={width}, but with transformer_depth=0 nothing reads a context; use 1 block or "
            "more, or leave the width out"
        )
    if depth and settings.rescale_residual:
        raise ValueError(
            "rescale_residual=True does not scale the sums of transformer blocks; use one of the two, "
            "rescale_residual=False or transformer_depth=0"
        )
    if depth and settings.attention_order == "new":
        raise ValueError(
            "attention_order=new has no meaning with transformer_depth, whose q, k and v are apart; leave it"
        )

"""The U-Net of DDPM and DDIM (Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Song et al. 2020).

Parameter names and shapes are those of the files that were converted from DDPM's TensorFlow weights to
PyTorch. Against ADM's: sine before cosine in the time embedding, 1e-6 in the norms, one head of attention,
down-sampling that pads below and right alone (TensorFlow's SAME).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.networks.attention import attend
from unnoise.networks.embeddings import ddpm_timestep_embedding
from unnoise.networks.inputs import check_label, joined
from unnoise.networks.layers import Conv2d, Linear, zeroed
from unnoise.networks.norm import GroupNorm, best_layout, norm_silu
from unnoise.networks.settings import DdpmUNetSettings, check_shared

EPS = 1e-6
"""Of every norm: TensorFlow's default."""


class Downsample(nn.Module):
    """Half the size: a stride-2 convolution over the picture with a row below and a column right of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size by nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResBlock(nn.Module):
    """skip(x) + conv(dropout(silu(norm(h + project(silu(emb)))))), h = conv(silu(norm(x)))."""

    def __init__(self, channels_in: int, channels: int, *, emb: int | None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = GroupNorm(channels_in, EPS)
        self.conv1 = Conv2d(channels_in, channels, 3, padding=1)
        self.temb_proj = None if emb is None else Linear(emb, channels)
        self.norm2 = GroupNorm(channels, EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)
        self.nin_shortcut = None if channels_in == channels else Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """x: (B, channels_in, H, W), emb: (B, emb) float32 or None as built -> (B, channels, H, W)."""
        h = self.conv1(norm_silu(self.norm1, x))
        if self.temb_proj is not None:
            h = h + self.temb_proj(F.silu(emb)).to(h.dtype)[:, :, None, None]
        h = self.conv2(self.dropout(norm_silu(self.norm2, h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """x + proj_out(softmax(q k^T / sqrt(C)) v) over all positions: one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, EPS)
        self.q = Conv2d(channels, channels, 1)
        self.k = Conv2d(channels, channels, 1)
        self.v = Conv2d(channels, channels, 1)
        self.proj_out = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        mixed = attend(q.contiguous(), k.contiguous(), v.contiguous())[:, 0]  # (B, H W, C)
        return x + self.proj_out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))


class DdpmUNet(nn.Module):
    """eps (and variance) = DdpmUNet(x, t, cond).

    Reads `cond.label` (B,) int64 when built with classes; appends `cond.concat` to x if given, like `UNet`.
    """

    def __init__(self, settings: DdpmUNetSettings) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.size_factor = settings.size_factor
        """Both sides of a picture must be a multiple of this."""
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations between the first and the last block; None takes that of x."""
        width, emb = settings.width, 4 * settings.width
        self.temb = nn.ModuleDict({"dense": nn.ModuleList([Linear(width, emb), Linear(emb, emb)])})
        if settings.classes is not None:
            self.label_emb = nn.Embedding(settings.classes, emb)
        self.conv_in = Conv2d(settings.in_channels, width, 3, padding=1)
        self.down, kept = _encoder(settings)
        bottom = kept[-1]
        self.mid = nn.ModuleDict(
            {
                "block_1": _block(settings, bottom, bottom),
                "attn_1": AttnBlock(bottom),
                "block_2": _block(settings, bottom, bottom),
            }
        )
        self.up = _decoder(settings, kept)
        first = _widths(settings)[0]
        self.norm_out = GroupNorm(first, EPS)
        self.conv_out = Conv2d(first, settings.out_channels, 3, padding=1)
        _initialise(self)
        self.to(memory_format=torch.channels_last)  # or every step would re-order the weights of every layer

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x: (B, C, H, W), t: (B,) as the schedule tells it -> (B, out_channels, H, W) of the type of x."""
        dtype = x.dtype
        emb = self.embed(t, None if cond is None else cond.label)
        h = joined(self.settings, x, None if cond is None else cond.concat).to(self.compute_dtype or dtype)
        h = self.conv_in(h.contiguous(memory_format=best_layout(h)))
        kept = [h]
        for level in self.down:
            for k, block in enumerate(level["block"]):
                h = self._through(block, h, emb)
                if len(level["attn"]):
                    h = self._through(level["attn"][k], h)
                kept.append(h)
            if "downsample" in level:
                h = level["downsample"](h)
                kept.append(h)
        h = self._through(self.mid["block_1"], h, emb)
        h = self._through(self.mid["attn_1"], h)
        h = self._through(self.mid["block_2"], h, emb)
        for level in reversed(self.up):
            for k, block in enumerate(level["block"]):
                h = self._through(block, torch.cat([h, kept.pop()], dim=1), emb)
                if len(level["attn"]):
                    h = self._through(level["attn"][k], h)
            if "upsample" in level:
                h = level["upsample"](h)
        return self.conv_out(norm_silu(self.norm_out, h.to(dtype)))

    def embed(self, t: Tensor, label: Tensor | None) -> Tensor:
        """What every block is told of time and class: (B, 4 width) float32, whatever the activations are."""
        check_label(self.settings, label)
        first, second = self.temb["dense"]
        emb = second(F.silu(first(ddpm_timestep_embedding(t, self.settings.width))))
        return emb if label is None else emb + self.label_emb(label)

    def _through(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        """A layer's answer; with `checkpoint` it is worked out again in the backward pass to save memory."""
        if self.settings.checkpoint and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


def _widths(settings: DdpmUNetSettings) -> list[int]:
    return [int(mult * settings.width) for mult in settings.channel_mult]


def _block(settings: DdpmUNetSettings, channels_in: int, channels: int) -> ResBlock:
    return ResBlock(channels_in, channels, emb=4 * settings.width, dropout=settings.dropout)


def _encoder(settings: DdpmUNetSettings) -> tuple[nn.ModuleList, list[int]]:
    """The down-going levels and the channels that each block leaves for the decoder."""
    levels, channels, kept = nn.ModuleList(), settings.width, [settings.width]
    widths = _widths(settings)
    for number, width in enumerate(widths):
        blocks, attention = nn.ModuleList(), nn.ModuleList()
        for _ in range(settings.depth):
            blocks.append(_block(settings, channels, width))
            channels = width
            if 2**number in settings.attention:
                attention.append(AttnBlock(width))
            kept.append(width)
        level = nn.ModuleDict({"block": blocks, "attn": attention})
        if number < len(widths) - 1:
            level["downsample"] = Downsample(width)
            kept.append(width)
        levels.append(level)
    return levels, kept


def _decoder(settings: DdpmUNetSettings, kept: list[int]) -> nn.ModuleList:
    """The up-going levels, the finest first, each block fed what one of the encoder left."""
    kept, levels, channels = list(kept), [], kept[-1]
    for number, width in reversed(list(enumerate(_widths(settings)))):
        blocks, attention = nn.ModuleList(), nn.ModuleList()
        for _ in range(settings.depth + 1):
            blocks.append(_block(settings, channels + kept.pop(), width))
            channels = width
            if 2**number in settings.attention:
                attention.append(AttnBlock(width))
        level = nn.ModuleDict({"block": blocks, "attn": attention})
        if number:
            level["upsample"] = Upsample(width)
        levels.append(level)
    return nn.ModuleList(reversed(levels))


def _initialise(network: DdpmUNet) -> None:
    """DDPM's start: weights uniform with variance 2 / (inputs + outputs), no biases, residual branches 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResBlock):
            zeroed(module.conv2)
        elif isinstance(module, AttnBlock):
            zeroed(module.proj_out)
    zeroed(network.conv_out)


def _check(settings: DdpmUNetSettings) -> None:
    for name, least in (("in_channels", 1), ("out_channels", 1), ("width", 4), ("depth", 1)):
        value = getattr(settings, name)
        if value is None or value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
    check_shared(settings)
    if not settings.channel_mult or min(_widths(settings)) < 1:
        raise ValueError(
            f"channel_mult={settings.channel_mult} with width={settings.width} must name at least one level, "
            "each of one channel or more"
        )

"""BigGAN's discriminator, compact; the class is a projection (Miyato & Koyama 2018, arXiv 1802.05637)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.gan_settings import ProjectionSettings
from unnoise.networks.pooled_attention import PooledAttention
from unnoise.networks.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear, orthogonal


class FirstBlock(nn.Module):
    """pool(conv(relu(conv(x)))) + skip(pool(x)): pixels are not activated."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(channels_in, channels_out, 3)
        self.conv2 = SpectralConv2d(channels_out, channels_out, 3)
        self.skip = SpectralConv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        return F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2) + self.skip(F.avg_pool2d(x, 2))


class DiscriminatorBlock(nn.Module):
    """pool(conv(relu(conv(relu(x))))) + pool(skip(x))."""

    def __init__(self, channels_in: int, channels_out: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = SpectralConv2d(channels_in, channels_out, 3)
        self.conv2 = SpectralConv2d(channels_out, channels_out, 3)
        same = channels_in == channels_out and not pool
        self.skip = None if same else SpectralConv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), or half of the sides."""
        h = self.conv2(F.relu(self.conv1(F.relu(x)))) + (x if self.skip is None else self.skip(x))
        return F.avg_pool2d(h, 2) if self.pool else h


class ProjectionDiscriminator(nn.Module):
    """D(x, y) = w . h(x) + e_y . h(x) + b, h activations summed over the picture: above 0 it looks real."""

    def __init__(self, settings: ProjectionSettings) -> None:
        super().__init__()
        settings.check()
        assert settings.in_channels
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations; None is that of the images."""
        widths = [int(mult * settings.width) for mult in settings.channel_mult]
        self.levels, self.attention = nn.ModuleList(), nn.ModuleDict()
        for level, width in enumerate(widths):
            before, pool = widths[max(0, level - 1)], level < len(widths) - 1
            blocks: list[nn.Module] = [
                DiscriminatorBlock(before, width, pool=pool)
                if level
                else FirstBlock(settings.in_channels * settings.patch**2, width)
            ]
            blocks += [DiscriminatorBlock(width, width, pool=False) for _ in range(settings.depth - 1)]
            if pool and 2 ** (level + 1) in settings.attention:
                self.attention[str(level)] = PooledAttention(width)
            self.levels.append(nn.Sequential(*blocks))
        self.score = SpectralLinear(widths[-1], 1)
        self.embed = SpectralEmbedding(settings.classes, widths[-1]) if settings.classes else None
        orthogonal(self)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, in_channels, side, side) and (B,) int64 -> (B,) float32."""
        if (label is None) != (self.embed is None):
            raise ValueError(
                "this discriminator has no classes; leave label out, or build it with classes=..."
                if self.embed is None
                else f"this discriminator is told a class; give label, (B,) of "
                f"0..{(self.settings.classes or 1) - 1}"
            )
        x = F.pixel_unshuffle(images.to(self.compute_dtype or images.dtype), self.settings.patch)
        x = x.contiguous(memory_format=torch.channels_last)
        for number, level in enumerate(self.levels):
            x = level(x)
            if str(number) in self.attention:
                x = self.attention[str(number)](x)
        h = F.relu(x).float().sum((2, 3))
        score = self.score(h).squeeze(1)
        return score if self.embed is None else score + (self.embed(label) * h).sum(1)

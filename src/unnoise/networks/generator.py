"""BigGAN's generator, compact (Brock, Donahue, Simonyan 2019, arXiv 1809.11096, appendix B)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.gan_settings import GeneratorSettings
from unnoise.networks.pooled_attention import PooledAttention
from unnoise.networks.spectral import SpectralConv2d, SpectralLinear, orthogonal

_EPS = 1e-5


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(var + eps), a channel at a time: of the batch in training, else of the buffers.

    The buffers are standing statistics, measured when pictures are to be drawn (see `standing`); training
    neither reads nor moves them.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and type."""
        if self.training:
            return F.batch_norm(x, None, None, training=True, eps=_EPS)
        return F.batch_norm(x, self.mean, self.var, training=False, eps=_EPS)


class ConditionalNorm(nn.Module):
    """Batch normalisation, then a gain 1 + A c and a bias B c of the condition (B, width)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.gain = SpectralLinear(width, channels, bias=False)
        self.bias = SpectralLinear(width, channels, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and type."""
        gain, bias = (1 + self.gain(cond)).to(x.dtype), self.bias(cond).to(x.dtype)
        return torch.addcmul(bias[:, :, None, None], self.norm(x), gain[:, :, None, None])


class GeneratorBlock(nn.Module):
    """conv(relu(norm(conv(up(relu(norm(x)))))) + skip(up(x)), all told the condition."""

    def __init__(self, channels_in: int, channels_out: int, width: int, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.norm1, self.norm2 = ConditionalNorm(channels_in, width), ConditionalNorm(channels_out, width)
        self.conv1 = SpectralConv2d(channels_in, channels_out, 3)
        self.conv2 = SpectralConv2d(channels_out, channels_out, 3)
        same = channels_in == channels_out and scale == 1
        self.skip = None if same else SpectralConv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, scale * H, scale * W)."""
        h = self.conv1(_enlarged(F.relu(self.norm1(x, cond)), self.scale))
        h = self.conv2(F.relu(self.norm2(h, cond)))
        # A 1x1 convolution before nearest-neighbour enlargement is the same as one after it, and cheaper.
        return h + (x if self.skip is None else _enlarged(self.skip(x), self.scale))


class Generator(nn.Module):
    """z (B, latent) and classes (B,) -> images (B, C, side, side) in [-1, 1]."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        settings.check()
        assert settings.image_size and settings.out_channels
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations; None is that of z."""
        widths = [int(mult * settings.width) for mult in settings.channel_mult]
        told = settings.chunk + (settings.class_width if settings.classes else 0)
        self.shared = nn.Embedding(settings.classes, settings.class_width) if settings.classes else None
        self.bottom = settings.image_size // settings.size_factor
        self.linear = SpectralLinear(settings.chunk, widths[-1] * self.bottom**2)
        self.levels, self.attention = nn.ModuleList(), nn.ModuleDict()
        for level in range(len(widths) - 1, 0, -1):
            blocks = [GeneratorBlock(widths[level], widths[level - 1], told, scale=2)]
            blocks += [
                GeneratorBlock(widths[level - 1], widths[level - 1], told, scale=1)
                for _ in range(settings.depth - 1)
            ]
            if 2 ** (level - 1) in settings.attention:
                self.attention[str(len(self.levels))] = PooledAttention(widths[level - 1])
            self.levels.append(nn.ModuleList(blocks))
        self.norm = BatchNorm(widths[0])
        self.gain, self.bias = nn.Parameter(torch.ones(widths[0])), nn.Parameter(torch.zeros(widths[0]))
        self.last = SpectralConv2d(widths[0], settings.out_channels * settings.patch**2, 3)
        orthogonal(self)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, latent) and (B,) int64 -> (B, out_channels, side, side) float32."""
        self._check(z, label)
        first, *chunks = z.split(self.settings.chunk, dim=1)
        known = None if self.shared is None else self.shared(label)
        x = self.linear(first.to(self.compute_dtype or z.dtype))
        x = x.unflatten(1, (-1, self.bottom, self.bottom)).contiguous(memory_format=torch.channels_last)
        for number, (blocks, chunk) in enumerate(zip(self.levels, chunks, strict=True)):
            cond = chunk if known is None else torch.cat([known.to(chunk.dtype), chunk], dim=1)
            for block in blocks:
                x = block(x, cond)
            if str(number) in self.attention:
                x = self.attention[str(number)](x)
        gain, bias = self.gain.to(x.dtype)[:, None, None], self.bias.to(x.dtype)[:, None, None]
        x = self.last(F.relu(torch.addcmul(bias, self.norm(x), gain)))
        return torch.tanh(F.pixel_shuffle(x, self.settings.patch).float())

    def _check(self, z: Tensor, label: Tensor | None) -> None:
        if z.shape[1] != self.settings.latent:
            raise ValueError(
                f"z of {z.shape[1]} numbers given to a generator of {self.settings.latent}; give (B, "
                f"{self.settings.latent})"
            )
        if (label is None) != (self.settings.classes is None):
            raise ValueError(
                "this generator has no classes; leave label out, or build it with classes=..."
                if self.settings.classes is None
                else f"this generator is told a class; give label, (B,) of 0..{self.settings.classes - 1}"
            )


class Standing:
    """Collects standing statistics of a generator's norms: over many batches, rather than of one's own.

    Inside `with`, passes in training mode are counted; `found` then has the buffers of evaluation mode.
    Moments are added up in float64.
    """

    def __init__(self, generator: Generator) -> None:
        self.norms = {
            name: module for name, module in generator.named_modules() if isinstance(module, BatchNorm)
        }
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def __enter__(self) -> "Standing":
        self._hooks = [
            module.register_forward_pre_hook(lambda _, inputs, name=name: self._add(name, inputs[0]))
            for name, module in self.norms.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def found(self) -> Mapping[str, Tensor]:
        """Buffer -> value, float32: the mean of the batches' means and the variance over all of them."""
        assert self.count, "no batch was seen"
        buffers: dict[str, Tensor] = {}
        for name, sums in self.sums.items():
            mean, square = sums / self.count
            buffers[f"{name}.mean"] = mean.float()
            buffers[f"{name}.var"] = (square - mean.square()).clamp_min(0).float()
        return buffers

    def _add(self, name: str, x: Tensor) -> None:
        values = x.detach().transpose(0, 1).flatten(1).double()
        moments = torch.stack([values.mean(1), values.square().mean(1)])
        self.sums[name] = self.sums[name] + moments if name in self.sums else moments
        self.count = self.count + 1 if name == next(iter(self.norms)) else self.count


def _enlarged(x: Tensor, scale: int) -> Tensor:
    return x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="nearest")

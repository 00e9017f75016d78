"""A compact convolutional classifier for small pictures, whose pooled channels serve as features.

Residual blocks without normalisation layers: weights are standardised instead and activations rescaled
(Brock, De, Smith 2021, "Characterizing signal propagation", arXiv 2101.08692), so a picture's answer depends
on that picture alone, in training too, and nothing but convolutions and ReLUs is left to compute.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.layers import Linear
from unnoise.networks.settings import ClassifierSettings

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""1 / the standard deviation of relu(z), z standard normal."""
SMALLEST = 8
"""Pixels of the smallest side that is accepted."""
SPATIAL_SIDE, SPATIAL_CHANNELS = 7, 8
"""The spatial tap: the first channels of the middle level, averaged to this many places a side."""


@dataclass(frozen=True, eq=False)
class ClassifierTaps:
    """What the network yields for B pictures, float32."""

    logits: Tensor
    """(B, classes)."""
    pool: Tensor
    """(B, features): channels averaged over the picture."""
    spatial: Tensor
    """(B, 8 * 7 * 7): where things are, in C, H, W order."""


class StandardConv(nn.Module):
    """A convolution that keeps the variance: weights gain (w - mean) / sqrt(fan_in var) an output channel."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        # The scale changes nothing but how far a step of the optimiser turns the weights.
        scale = (channels_in * kernel * kernel) ** -0.5
        self.weight = nn.Parameter(scale * torch.randn(channels_out, channels_in, kernel, kernel))
        self.gain = nn.Parameter(torch.ones(channels_out))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.stride, self.padding = stride, (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W'), of the type of x."""
        flat = self.weight.flatten(1)
        variance, mean = torch.var_mean(flat, dim=1, correction=0, keepdim=True)
        scale = self.gain[:, None] * torch.rsqrt(variance * flat.shape[1] + 1e-6)
        weight = ((flat - mean) * scale).view_as(self.weight)
        # In the layout of the activations, or the convolution reorders it at every call.
        weight = weight.to(x.dtype, memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias.to(x.dtype), self.stride, self.padding)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))); the identity at first, as the last gain starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = StandardConv(channels, channels, 3)
        self.conv2 = StandardConv(channels, channels, 3)
        nn.init.zeros_(self.conv2.gain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.conv2(relu(self.conv1(relu(x))))


class Classifier(nn.Module):
    """Logits of pictures (B, 1 or 3, H, W) in [-1, 1]; a grey picture is seen as RGB of equal channels."""

    def __init__(self, settings: ClassifierSettings) -> None:
        super().__init__()
        settings.check()
        if not settings.classes:
            raise ValueError("classifier.network.classes is not set; take it from the data (config.resolve)")
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations; None is that of the pictures."""
        self.stem = StandardConv(3, settings.widths[0], 4, stride=2)
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(settings.depth))) for width in settings.widths
        )
        pairs = zip(settings.widths[:-1], settings.widths[1:], strict=True)
        self.downs = nn.ModuleList(StandardConv(a, b, 3, stride=2) for a, b in pairs)
        self.last = StandardConv(settings.widths[-1], settings.features, 1)
        self.head = Linear(settings.features, settings.classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) float32."""
        return self._walk(images)[0]

    def taps(self, images: Tensor) -> ClassifierTaps:
        """Logits and features."""
        logits, pool, middle = self._walk(images)
        places = F.adaptive_avg_pool2d(middle[:, :SPATIAL_CHANNELS].float(), SPATIAL_SIDE)
        return ClassifierTaps(logits=logits, pool=pool, spatial=places.flatten(1))

    def levels_of(self, images: Tensor) -> list[Tensor]:
        """Activations after every level, each half the size of the one before, in float32."""
        _check(images)
        x = images.to(self.compute_dtype or images.dtype).expand(-1, 3, -1, -1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        found = []
        for number, level in enumerate(self.levels):
            if number:
                x = self.downs[number - 1](relu(x))
            x = level(x)
            found.append(relu(x).float())
        return found

    def _walk(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, pooled features, the middle level's activations."""
        _check(images)
        x = images.to(self.compute_dtype or images.dtype).expand(-1, 3, -1, -1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        middle = x
        for number, level in enumerate(self.levels):
            if number:
                x = self.downs[number - 1](relu(x))
            x = level(x)
            if number == len(self.levels) // 2:
                middle = relu(x)
        pool = relu(self.last(relu(x))).float().mean((2, 3))
        return self.head(pool), pool, middle


def relu(x: Tensor) -> Tensor:
    """max(x, 0) times `RELU_GAIN`: unit variance in, unit variance out."""
    return F.relu(x) * RELU_GAIN


def _check(images: Tensor) -> None:
    _, channels, height, width = images.shape
    if channels not in (1, 3):
        raise ValueError(f"pictures of {channels} channels; this classifier sees grey (1) or RGB (3)")
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"pictures of {width}x{height} are too small to classify; use {SMALLEST} pixels or more"
        )

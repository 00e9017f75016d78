"""The networks that turn a condition into what a U-Net reads, by the kind that their settings name.

Rombach et al. 2022 (arXiv 2112.10752), section 3.3. Parameter names are those of the published files without
their `cond_stage_model.`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.conditioner_settings import (
    ClassEmbedderSettings,
    ConditionerSettings,
    FeaturesSettings,
    PatchesSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.networks.layers import Conv2d, Linear
from unnoise.networks.text_encoder import TextEncoder


class ClassEmbedder(nn.Module):
    """context = ClassEmbedder(label): one token."""

    def __init__(self, settings: ClassEmbedderSettings) -> None:
        super().__init__()
        settings.check()
        assert settings.classes is not None, "settings.check() has seen to it"
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Has no effect: nothing is computed here."""
        self.embedding = nn.Embedding(settings.classes, settings.width)

    def forward(self, label: Tensor) -> Tensor:
        """label: (B,) int64 -> (B, 1, width)."""
        return self.embedding(label)[:, None]


class SpatialRescaler(nn.Module):
    """concat = SpatialRescaler(map)."""

    def __init__(self, settings: SpatialRescalerSettings) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Type of the answer; None takes that of the map."""
        channels, left = settings.in_channels, settings.out_channels
        assert channels is not None, "settings.check() has seen to it"
        self.channel_mapper = None if left is None else Conv2d(channels, left, 1, bias=settings.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H', W'), H' = H * factor^stages."""
        if x.shape[1] != self.settings.in_channels:
            raise ValueError(
                f"a map of {x.shape[1]} channels given to an encoder of "
                f"in_channels={self.settings.in_channels}; change one of them"
            )
        x = x.to(self.compute_dtype or x.dtype)
        for _ in range(self.settings.stages):
            x = F.interpolate(x, scale_factor=self.settings.factor, mode=self.settings.method)
        return x if self.channel_mapper is None else self.channel_mapper(x)


class Features(nn.Module):
    """context = W features + b."""

    def __init__(self, settings: FeaturesSettings) -> None:
        super().__init__()
        settings.check()
        assert settings.features is not None, "settings.check() has seen to it"
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Has no effect: the answer is of the type of the weights."""
        self.project = Linear(settings.features, settings.width)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, features) -> (B, L, width)."""
        return self.project(features.to(self.project.weight.dtype))


class Patches(nn.Module):
    """context = W mean over a square + b + embedding of its place."""

    def __init__(self, settings: PatchesSettings) -> None:
        super().__init__()
        settings.check()
        assert settings.in_channels is not None, "settings.check() has seen to it"
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Has no effect: the answer is of the type of the weights."""
        self.project = Linear(settings.in_channels, settings.width)
        self.place = nn.Parameter(0.02 * torch.randn(settings.side**2, settings.width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, side^2, width), row by row."""
        squares = F.adaptive_avg_pool2d(x.to(self.place.dtype), self.settings.side)
        return self.project(squares.flatten(2).transpose(1, 2)) + self.place


Conditioner = TextEncoder | ClassEmbedder | SpatialRescaler | Features | Patches


def build_conditioner(settings: ConditionerSettings) -> Conditioner:
    """The encoder of complete settings with fresh weights."""
    if isinstance(settings, TextEncoderSettings):
        return TextEncoder(settings)
    if isinstance(settings, ClassEmbedderSettings):
        return ClassEmbedder(settings)
    if isinstance(settings, FeaturesSettings):
        return Features(settings)
    if isinstance(settings, PatchesSettings):
        return Patches(settings)
    return SpatialRescaler(settings)

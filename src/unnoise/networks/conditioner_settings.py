"""What the encoders of conditions are built from: frozen dataclasses, free of torch."""

from dataclasses import dataclass
from typing import Literal

from unnoise.networks.settings import NetworkSettings


@dataclass(frozen=True, kw_only=True)
class TextEncoderSettings:
    """The transformer over tokens of Latent Diffusion (arXiv 2112.10752, appendix E.2.1)."""

    kind: Literal["tokens"] = "tokens"
    width: int = 512
    """Channels of a token, inside and out: the U-Net's `context_width`."""
    depth: int = 16
    """Blocks of self-attention and feed-forward."""
    vocabulary: int | None = None
    """Different tokens; None until the data are known."""
    length: int = 77
    """Tokens at most."""
    heads: int = 8
    head_channels: int = 64
    """Channels a head, whatever the width is."""
    logits: bool = True
    """Hold the last layer of the published files, which nothing reads; it is as large as the vocabulary."""
    checkpoint: bool = False
    """Recompute activations in the backward pass to save memory."""

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        _at_least_one(self, "width", "depth", "vocabulary", "length", "heads", "head_channels")


@dataclass(frozen=True, kw_only=True)
class ClassEmbedderSettings:
    """One token a class, read by cross-attention."""

    kind: Literal["class"] = "class"
    width: int = 512
    """Channels of the token: the U-Net's `context_width`."""
    classes: int | None = None
    """Rows, the null class included; None until the data are known."""

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        _at_least_one(self, "width", "classes")


@dataclass(frozen=True, kw_only=True)
class SpatialRescalerSettings:
    """A map, made smaller and of fewer channels, to be laid beside the latents."""

    kind: Literal["spatial"] = "spatial"
    in_channels: int | None = None
    """Channels of the map, such as one a class of a semantic map; None until the data are known."""
    out_channels: int | None = 3
    """Channels that are left; None keeps them all, without a convolution."""
    stages: int = 2
    """How often the map is resampled."""
    factor: float = 0.5
    """Of its sides, each time."""
    method: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    """How, without antialiasing."""
    bias: bool = False
    """Of the convolution."""

    @property
    def left(self) -> int:
        """Channels of what it gives. Of complete settings."""
        channels = self.in_channels if self.out_channels is None else self.out_channels
        assert channels is not None, "settings are complete"
        return channels

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        _at_least_one(self, "in_channels", *(["out_channels"] if self.out_channels is not None else []))
        if self.stages < 0 or not self.factor > 0:
            raise ValueError(
                f"stages={self.stages}, factor={self.factor} resample nothing; use 0 or more stages and a "
                "factor above 0"
            )


@dataclass(frozen=True, kw_only=True)
class FeaturesSettings:
    """Features that a frozen network made of a text, brought to the width of the context."""

    kind: Literal["features"] = "features"
    width: int = 512
    """Channels of a token: the U-Net's `context_width`."""
    features: int | None = None
    """Channels of the features; None until the network that makes them is known."""

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        _at_least_one(self, "width", "features")


@dataclass(frozen=True, kw_only=True)
class PatchesSettings:
    """A map cut into squares, each a token that cross-attention reads. Not latent-diffusion's."""

    kind: Literal["patches"] = "patches"
    width: int = 512
    """Channels of a token: the U-Net's `context_width`."""
    in_channels: int | None = None
    """Channels of the map; None until the data are known."""
    side: int = 8
    """Tokens in each direction."""

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        _at_least_one(self, "width", "in_channels", "side")


ConditionerSettings = (
    TextEncoderSettings | ClassEmbedderSettings | SpatialRescalerSettings | FeaturesSettings | PatchesSettings
)
"""Of every encoder of a condition; `kind` says which."""


@dataclass(frozen=True, kw_only=True)
class ConditionedSettings:
    """A network that draws and the encoders of what it is told."""

    network: NetworkSettings
    encoders: tuple[tuple[str, ConditionerSettings], ...]
    """What each reads, by its name among the parts of a condition; several may read one."""


def _at_least_one(settings: ConditionerSettings, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is None or value < 1:
            raise ValueError(
                f"{name}={value} makes no encoder of kind {settings.kind}; use 1 or more"
                + (" (training takes it from the data)" if value is None else "")
            )

"""What first stages and their discriminators are built from: frozen dataclasses, free of torch."""

from dataclasses import dataclass
from typing import Literal

from unnoise.networks.settings import check_multiple, check_norms

Attention = Literal["vanilla", "linear", "none"]


@dataclass(frozen=True, kw_only=True)
class _Autoencoder:
    """What encoders and decoders of both kinds have."""

    in_channels: int | None = None
    """Channels of a picture; None until the data are known."""
    latent_channels: int = 3
    inner_channels: int | None = None
    """Channels between the encoder and the 1x1 convolution to the latents; None takes `latent_channels`."""
    width: int = 128
    """Channels before `channel_mult`."""
    depth: int = 2
    """Residual blocks per resolution in the encoder; the decoder has one more."""
    channel_mult: tuple[float, ...] = (1, 2, 4)
    """Width of each level; its length is the number of levels, each half the size of the one before."""
    attention: tuple[int, ...] = ()
    """Down-sampling factors with attention, of one head (latent-diffusion's files give pixels)."""
    attention_type: Attention = "vanilla"
    """Over all pairs of positions, linear in the positions, or none: that of the bottom too."""
    shortcut: bool = False
    """The mean colours of the pixels that a latent stands for are added to the first latent channels, and the
    decoder's pictures to those channels enlarged, so that the network learns the rest (residual autoencoding,
    Chen et al. 2024, arXiv 2410.10733). Not latent diffusion's; of use where training takes minutes, in which
    rare colours are not learned otherwise."""
    norm_channels: int | None = None
    """Channels of a group of every norm, at least; None: 32 groups wherever that divides the channels, as
    published. A narrow network then has one or two channels a group, which erases colours."""
    dropout: float = 0.0
    checkpoint: bool = False
    """Recompute activations in the backward pass to save memory."""

    @property
    def size_factor(self) -> int:
        """Pixels a latent position stands for in each direction; both sides must be a multiple of it."""
        return 2 ** (len(self.channel_mult) - 1)

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the down-samplings do not divide; the error names those that fit."""
        check_multiple(side, self.size_factor)

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class KlSettings(_Autoencoder):
    """The autoencoder with Gaussian latents of Latent Diffusion (Rombach et al. 2022, arXiv 2112.10752)."""

    kind: Literal["kl"] = "kl"


@dataclass(frozen=True, kw_only=True)
class VqSettings(_Autoencoder):
    """The autoencoder whose latents are codes of a codebook (Esser et al. 2021, arXiv 2012.09841)."""

    kind: Literal["vq"] = "vq"
    codes: int = 8192
    """Entries of the codebook."""
    beta: float = 0.25
    """Share of one of the codebook's two losses."""
    beta_on: Literal["commitment", "codebook"] = "commitment"
    """Which: that of the encoder, as van den Oord et al. 2017 (arXiv 1711.00937) say, or that of the codes,
    as the published models were trained."""

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        super().check()
        for name, least in (("codes", 2), ("beta", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} makes no codebook; use {least} or more")


FirstStageSettings = KlSettings | VqSettings
"""Of every first stage; `kind` says which, and the first is meant where it is left out."""


def _check(settings: _Autoencoder) -> None:
    numbers = [
        (name, getattr(settings, name)) for name in ("in_channels", "latent_channels", "width", "depth")
    ]
    numbers.append(("inner_channels", settings.inner_channels or settings.latent_channels))
    for name, value in numbers:
        if value is None or value < 1:
            raise ValueError(f"the first stage's {name}={value} makes no network; use 1 or more")
    widths = [int(mult * settings.width) for mult in settings.channel_mult]
    if not widths or min(widths) < 1:
        raise ValueError(
            f"the first stage's channel_mult={settings.channel_mult} with width={settings.width} must "
            "name at least one level, each of one channel or more"
        )
    check_norms(settings.norm_channels)
    if settings.shortcut and settings.latent_channels < (settings.in_channels or 1):
        raise ValueError(
            f"the first stage's shortcut has no place for {settings.in_channels} colours in "
            f"latent_channels={settings.latent_channels}; use as many or more, or shortcut=false"
        )
    levels = [2**number for number in range(len(widths))]
    for factor in settings.attention:
        if factor not in levels:
            raise ValueError(
                f"the first stage's attention={settings.attention} names {factor}, but its levels are at "
                f"{', '.join(map(str, levels))}; leave it out"
            )
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"the first stage's dropout={settings.dropout:g} is no share; use 0 or less than 1")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """PatchGAN (Isola et al. 2017, arXiv 1611.07004): real or not, patch by patch."""

    width: int = 64
    """Channels of the first layer."""
    layers: int = 3
    """Layers that halve the size; more see larger patches."""
    norm: Literal["batch", "actnorm"] = "batch"
    """Of the layers between: over the batch, or by what the first batch sets (Glow, arXiv 1807.03039)."""

    def check(self) -> None:
        """Refuse numbers that make no network."""
        for name in ("width", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"the discriminator's {name}={getattr(self, name)} must be at least 1")

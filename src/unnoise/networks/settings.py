"""What a network is built from: frozen dataclasses, free of torch, shared by config files and networks."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class UNetSettings:
    """The ADM U-Net and every axis of its ablation (Dhariwal & Nichol 2021, section 3; arXiv 2105.05233)."""

    kind: Literal["adm"] = "adm"
    in_channels: int | None = None
    """Channels of the noisy picture plus those concatenated to it; None until the data are known."""
    out_channels: int | None = None
    """Twice the picture's channels when the variance is learned; None until the data are known."""
    width: int = 128
    """Channels before `channel_mult`; the paper's "channels"."""
    depth: int = 2
    """Residual blocks per resolution in the encoder; the decoder has one more."""
    channel_mult: tuple[float, ...] = (1, 2, 3, 4)
    """Width of each level; its length is the number of levels, each half the size of the one before."""
    patch: int = 1
    """Side of the squares of pixels that the network sees as one position (Luhman & Luhman 2022, arXiv
    2207.04316); 2 is four times cheaper a level and costs little below 10 minutes of training. Not ADM's."""
    attention: tuple[int, ...] = (2, 4, 8)
    """Down-sampling factors with self-attention (ADM's flags give pixels: image_size // pixels)."""
    heads: int = 4
    head_channels: int | None = None
    """Channels a head; overrides `heads`."""
    heads_up: int | None = None
    """Heads in the decoder when they differ."""
    attention_order: Literal["legacy", "new"] = "legacy"
    """Channels of qkv grouped [head][qkv] (legacy) or [qkv][head] (new): equal shapes, different results."""
    transformer_depth: int = 0
    """Blocks of self-attention, cross-attention and feed-forward where there is attention (latent diffusion);
    0 has self-attention alone."""
    context_width: int | None = None
    """Width of the tokens that the cross-attention reads; None without any."""
    pooled_context: bool = False
    """Also add the mean of the tokens to the embedding of t, so that every block hears them, not those with
    attention alone; as GLIDE does with its last token (arXiv 2112.10741, 2.3). Not latent diffusion's."""
    updown_blocks: bool = False
    """Up- and down-sample inside residual blocks ("BigGAN up/downsample") instead of by convolutions."""
    conv_resample: bool = True
    """Without `updown_blocks`: resample with a convolution, else by average pooling and nearest neighbour."""
    adagn: bool = True
    """Adaptive group normalisation (scale and shift); False adds the embedding."""
    rescale_residual: bool = False
    """Multiply each residual sum by 1/sqrt(2)."""
    norm_channels: int | None = None
    """Channels of a group of every norm, at least; None: 32 groups wherever that divides the channels, as
    published. A narrow network then has one or two channels a group, which erases colours."""
    dropout: float = 0.0
    classes: int | None = None
    """Rows of the class embedding, the null class included; None without classes (or data not yet known)."""
    concat_level: bool = False
    """Told how noisy the concatenated picture is, by an embedding like that of t. Not ADM's."""
    checkpoint: bool = False
    """Recompute activations in the backward pass to save memory."""

    @property
    def size_factor(self) -> int:
        """Both sides of a picture must be a multiple of this."""
        return self.patch * 2 ** (len(self.channel_mult) - 1)

    @property
    def levels(self) -> tuple[int, ...]:
        """The down-sampling factor of each level."""
        return tuple(self.patch * 2**number for number in range(len(self.channel_mult)))

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the down-samplings do not divide; the error names those that fit."""
        check_multiple(side, self.size_factor)


@dataclass(frozen=True, kw_only=True)
class DdpmUNetSettings:
    """The U-Net of DDPM and DDIM (Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B)."""

    kind: Literal["ddpm"] = "ddpm"
    in_channels: int | None = None
    """Channels of the noisy picture plus those concatenated to it; None until the data are known."""
    out_channels: int | None = None
    """Twice the picture's channels when the variance is learned; None until the data are known."""
    width: int = 128
    """Channels before `channel_mult`."""
    depth: int = 2
    """Residual blocks per resolution in the encoder; the decoder has one more."""
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    """Width of each level; its length is the number of levels, each half the size of the one before."""
    attention: tuple[int, ...] = (2,)
    """Down-sampling factors with self-attention, of one head; the block at the bottom always has it."""
    dropout: float = 0.0
    classes: int | None = None
    """Rows of the class embedding, the null class included; None without classes. Not DDPM's."""
    checkpoint: bool = False
    """Recompute activations in the backward pass to save memory."""

    @property
    def size_factor(self) -> int:
        """Both sides of a picture must be a multiple of this."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def levels(self) -> tuple[int, ...]:
        """The down-sampling factor of each level."""
        return tuple(2**number for number in range(len(self.channel_mult)))

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the down-samplings do not divide; the error names those that fit."""
        check_multiple(side, self.size_factor)


NetworkSettings = UNetSettings | DdpmUNetSettings
"""Of every network that draws; `kind` says which, and the first is meant where it is left out."""


@dataclass(frozen=True, kw_only=True)
class EncoderUNetSettings:
    """The noisy classifier: the encoder half of the ADM U-Net and a pool (arXiv 2105.05233, section 4)."""

    image_size: int | None = None
    """Side in pixels; None until the data are known."""
    in_channels: int | None = None
    """Channels of a picture; None until the data are known."""
    classes: int | None = None
    """Logits; None until the data are known."""
    pool: Literal["attention", "adaptive", "spatial", "spatial_v2"] = "attention"
    """How the logits are read: by attention from the mean, from the mean over the last activations, or from
    the means over every block's through a hidden layer (v2: with a norm)."""
    width: int = 128
    """Channels before `channel_mult`."""
    depth: int = 2
    """Residual blocks per resolution."""
    channel_mult: tuple[float, ...] = (1, 2, 3, 4)
    """Width of each level; its length is the number of levels, each half the size of the one before."""
    patch: int = 1
    """Side of the squares of pixels that the network sees as one position, as `UNetSettings.patch`."""
    attention: tuple[int, ...] = (2, 4, 8)
    """Down-sampling factors with self-attention."""
    heads: int = 4
    head_channels: int | None = 64
    """Channels a head, also of the attention pool; overrides `heads`."""
    attention_order: Literal["legacy", "new"] = "legacy"
    """Of the body; the attention pool's is always the new one, as in the published files."""
    updown_blocks: bool = True
    """Down-sample inside residual blocks instead of by convolutions."""
    conv_resample: bool = True
    """Without `updown_blocks`: down-sample with a convolution, else by average pooling."""
    adagn: bool = True
    """Adaptive group normalisation (scale and shift); False adds the embedding."""
    dropout: float = 0.0
    checkpoint: bool = False
    """Recompute activations in the backward pass to save memory."""

    @property
    def size_factor(self) -> int:
        """Both sides of a picture must be a multiple of this."""
        return self.patch * 2 ** (len(self.channel_mult) - 1)

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the down-samplings do not divide; the error names those that fit."""
        check_multiple(side, self.size_factor)

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        for name in ("image_size", "in_channels", "classes", "width", "depth", "patch", "heads"):
            value = getattr(self, name)
            if value is None or value < 1:
                raise ValueError(f"the classifier's {name}={value} makes no network; use 1 or more")
        if self.head_channels is not None and self.head_channels < 1:
            raise ValueError(
                f"the classifier's head_channels={self.head_channels} makes no network; use 1 or more"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"the classifier's dropout={self.dropout:g} is no share; use 0 or more, below 1")
        widths = [int(mult * self.width) for mult in self.channel_mult]
        if not widths or min(widths) < 1:
            raise ValueError(
                f"the classifier's channel_mult={self.channel_mult} with width={self.width} must name at "
                "least one level, each of one channel or more"
            )
        if self.pool == "attention":
            self.check_side(self.image_size or 0)
            if not self.head_channels or widths[-1] % self.head_channels:
                raise ValueError(
                    f"head_channels={self.head_channels} does not divide the {widths[-1]} channels of the "
                    "attention pool; choose a divisor, or another pool"
                )


def check_multiple(side: int, factor: int) -> None:
    """Refuse a side (pixels) that is no multiple of a network's down-sampling."""
    if factor < 1:
        raise ValueError(f"a down-sampling of {factor} makes no network; use a patch of 1 or more")
    if side % factor or not side:
        below = side // factor * factor
        fitting = f"{below} or {below + factor}" if below else f"{factor}"
        raise ValueError(
            f"a side of {side} pixels is no multiple of {factor}, this network's down-sampling; use {fitting}"
        )


def check_shared(settings: UNetSettings | DdpmUNetSettings) -> None:
    """Refuse classes and a dropout that make no network, of every kind that draws."""
    if settings.classes is not None and settings.classes < 1:
        raise ValueError(f"classes={settings.classes} must be at least 1; leave it out for none")
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"dropout={settings.dropout:g} is no share of activations; use 0 or more, below 1")


def check_norms(channels: int | None) -> None:
    """Refuse a number of channels a group that makes no norm."""
    if channels is not None and channels < 1:
        raise ValueError(f"norm_channels={channels} makes no groups; use 1 or more, 8 for narrow networks")


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """A compact convolutional network for small pictures, of any side from 8 pixels, grey or RGB."""

    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each level, whose sides are a half, a quarter, ... of the picture's."""
    depth: int = 1
    """Residual blocks a level."""
    features: int = 192
    """Channels that are averaged over the picture before the linear layer."""
    classes: int | None = None
    """None until the data are known."""

    def check(self) -> None:
        """Refuse numbers that make no network."""
        rules = [
            ("widths", list(self.widths), bool(self.widths) and min(self.widths) >= 1),
            ("depth", self.depth, self.depth >= 0),
            ("features", self.features, self.features >= 1),
        ]
        for name, value, fine in rules:
            if not fine:
                least = "0" if name == "depth" else "1"
                raise ValueError(f"classifier.network.{name}={value} makes no network; use {least} or more")

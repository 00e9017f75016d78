"""What a network is built from: frozen dataclasses, free of torch, shared by config files and networks."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class UNetSettings:
    """The ADM U-Net and every axis of its ablation (Dhariwal & Nichol 2021, section 3; arXiv 2105.05233)."""

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
    updown_blocks: bool = False
    """Up- and down-sample inside residual blocks ("BigGAN up/downsample") instead of by convolutions."""
    conv_resample: bool = True
    """Without `updown_blocks`: resample with a convolution, else by average pooling and nearest neighbour."""
    adagn: bool = True
    """Adaptive group normalisation (scale and shift); False adds the embedding."""
    rescale_residual: bool = False
    """Multiply each residual sum by 1/sqrt(2)."""
    dropout: float = 0.0
    classes: int | None = None
    """Rows of the class embedding, the null class included; None without classes (or data not yet known)."""
    checkpoint: bool = False
    """Recompute activations in the backward pass to save memory."""

    @property
    def size_factor(self) -> int:
        """Both sides of a picture must be a multiple of this."""
        return self.patch * 2 ** (len(self.channel_mult) - 1)

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the down-samplings do not divide; the error names those that fit."""
        factor = self.size_factor
        if side % factor or not side:
            below = side // factor * factor
            fitting = f"{below} or {below + factor}" if below else f"{factor}"
            raise ValueError(
                f"a side of {side} pixels is no multiple of {factor}, this network's down-sampling; "
                f"use {fitting}"
            )


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

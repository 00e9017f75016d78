"""The first stages of Latent Diffusion (Rombach et al. 2022, arXiv 2112.10752, section 3.1 and appendix E).

Encoder and decoder are those of VQGAN (Esser et al. 2021, arXiv 2012.09841): the blocks of DDPM's U-Net
without its time embedding and its skip connections. Parameter names and shapes are those of the published
files without their `first_stage_model.`, so loading them is strict and needs no mapping.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.networks.attention import LinearAttention
from unnoise.networks.first_stage_settings import FirstStageSettings, KlSettings, VqSettings
from unnoise.networks.layers import Conv2d
from unnoise.networks.norm import GroupNorm, best_layout, norm_silu, regroup
from unnoise.networks.posterior import Posterior
from unnoise.networks.quantize import Quantised, VectorQuantizer
from unnoise.networks.unet_ddpm import EPS, AttnBlock, Downsample, ResBlock, Upsample

ATTENTION = {
    "vanilla": AttnBlock,
    "linear": lambda channels: LinearAttention(channels, 1, channels),
    "none": lambda channels: nn.Identity(),
}


class Encoder(nn.Module):
    """Pictures -> maps of `outputs` channels, 2^(levels - 1) times smaller."""

    def __init__(self, settings: FirstStageSettings, outputs: int) -> None:
        super().__init__()
        self.checkpoint = settings.checkpoint
        widths = _widths(settings)
        self.conv_in = Conv2d(settings.in_channels, settings.width, 3, padding=1)
        self.down, channels = nn.ModuleList(), settings.width
        for number, width in enumerate(widths):
            level = _level(settings, number, channels, width, settings.depth)
            channels = width
            if number < len(widths) - 1:
                level["downsample"] = Downsample(width)
            self.down.append(level)
        self.mid = _mid(settings, channels)
        self.norm_out = GroupNorm(channels, EPS)
        self.conv_out = Conv2d(channels, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, outputs, H / f, W / f), of the type of x."""
        h = self.conv_in(x)
        for level in self.down:
            h = _through_level(level, h, self.checkpoint)
            if "downsample" in level:
                h = level["downsample"](h)
        h = _through_mid(self.mid, h, self.checkpoint)
        return self.conv_out(norm_silu(self.norm_out, h))


class Decoder(nn.Module):
    """Maps of `inputs` channels -> pictures 2^(levels - 1) times larger, in float32."""

    def __init__(self, settings: FirstStageSettings, inputs: int) -> None:
        super().__init__()
        self.checkpoint = settings.checkpoint
        widths = _widths(settings)
        channels = widths[-1]
        self.conv_in = Conv2d(inputs, channels, 3, padding=1)
        self.mid = _mid(settings, channels)
        levels = []
        for number, width in reversed(list(enumerate(widths))):
            level = _level(settings, number, channels, width, settings.depth + 1)
            channels = width
            if number:
                level["upsample"] = Upsample(width)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = GroupNorm(channels, EPS)
        self.conv_out = Conv2d(channels, settings.in_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, in_channels, f h, f w), not confined to [-1, 1]."""
        h = _through_mid(self.mid, self.conv_in(z), self.checkpoint)
        for level in reversed(self.up):
            h = _through_level(level, h, self.checkpoint)
            if "upsample" in level:
                h = level["upsample"](h)
        # The last sum decides grey levels: bfloat16 has too few of them near -1 and 1.
        return self.conv_out(_at_least_float32(norm_silu(self.norm_out, h)))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight at which the adversarial loss is balanced against the others."""
        return self.conv_out.weight


class KlAutoencoder(nn.Module):
    """A first stage with Gaussian latents."""

    def __init__(self, settings: KlSettings) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        self.factor, self.channels = settings.size_factor, settings.latent_channels
        """Pixels a latent position stands for in each direction; channels of latents."""
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations of encoder and decoder; None takes that of the pictures."""
        inner = settings.inner_channels or settings.latent_channels
        self.encoder = Encoder(settings, 2 * inner)
        self.decoder = Decoder(settings, inner)
        self.quant_conv = Conv2d(2 * inner, 2 * settings.latent_channels, 1)
        self.post_quant_conv = Conv2d(settings.latent_channels, inner, 1)
        regroup(self, settings.norm_channels)
        if settings.shortcut:
            _begin_with_colours(self)
        self.to(memory_format=torch.channels_last)  # or every step would re-order the weights of every layer

    def encode(self, images: Tensor) -> Tensor:
        """Moments (B, 2 channels, H / f, W / f), read by `Posterior.of`.

        images: (B, in_channels, H, W) in [-1, 1].
        """
        return _with_colours(self, self.quant_conv(_encoded(self, images)), images)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, in_channels, f h, f w) of latents (B, channels, h, w)."""
        return _decoded(self, latents)

    def forward(self, images: Tensor, z: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Reconstructions of latents drawn with unit noise z (B, channels, H / f, W / f); their Gaussian.

        noise (B,): more of it, in deviations of the latents (`Posterior.sample`).
        """
        posterior = Posterior.of(self.encode(images))
        return self.decode(posterior.sample(z, noise)), posterior


class VqAutoencoder(nn.Module):
    """A first stage with a codebook.

    Its latents are those before the codebook, which `decode` passes them through: where a diffusion model
    errs a little, the nearest code often corrects it.
    """

    def __init__(self, settings: VqSettings) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        self.factor, self.channels = settings.size_factor, settings.latent_channels
        """Pixels a latent position stands for in each direction; channels of latents."""
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations of encoder and decoder; None takes that of the pictures."""
        inner = settings.inner_channels or settings.latent_channels
        self.encoder = Encoder(settings, inner)
        self.decoder = Decoder(settings, inner)
        self.quantize = VectorQuantizer(
            settings.codes, settings.latent_channels, settings.beta, settings.beta_on
        )
        self.quant_conv = Conv2d(inner, settings.latent_channels, 1)
        self.post_quant_conv = Conv2d(settings.latent_channels, inner, 1)
        regroup(self, settings.norm_channels)
        if settings.shortcut:
            _begin_with_colours(self)
        self.to(memory_format=torch.channels_last)  # or every step would re-order the weights of every layer

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, channels, H / f, W / f) before the codebook.

        images: (B, in_channels, H, W) in [-1, 1].
        """
        return _with_colours(self, self.quant_conv(_encoded(self, images)), images)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, in_channels, f h, f w) of the codes nearest to latents (B, channels, h, w)."""
        _check_latents(self, latents)
        return _decoded(self, self.quantize.lookup(self.quantize.nearest(latents)))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pictures of latents (B, channels, h, w) as they are, such as codes already found."""
        return _decoded(self, codes)

    def forward(self, images: Tensor) -> tuple[Tensor, Quantised]:
        """Reconstructions, and what the codebook made of the latents."""
        quantised = self.quantize(self.encode(images))
        return _decoded(self, quantised.latents), quantised


FirstStageNetwork = KlAutoencoder | VqAutoencoder


def build_first_stage(settings: FirstStageSettings) -> FirstStageNetwork:
    """The network of complete settings with fresh weights."""
    return VqAutoencoder(settings) if isinstance(settings, VqSettings) else KlAutoencoder(settings)


def encoding_weights(network: FirstStageNetwork) -> frozenset[str]:
    """Names of the weights that decide which latents there are: the encoder's, and a codebook."""
    parts = ("encoder.", "quant_conv.", "quantize.")
    return frozenset(name for name in network.state_dict() if name.startswith(parts))


def _encoded(network: FirstStageNetwork, images: Tensor) -> Tensor:
    """What the encoder says, float32: the latents' last digits decide codes and noise."""
    if images.shape[1] != network.settings.in_channels:
        raise ValueError(
            f"pictures of {images.shape[1]} channels given to a first stage of "
            f"in_channels={network.settings.in_channels}; change one of them"
        )
    for side in images.shape[2:]:
        network.settings.check_side(side)
    return _at_least_float32(network.encoder(_prepared(network, images)))


def _check_latents(network: FirstStageNetwork, latents: Tensor) -> None:
    if latents.shape[1] != network.channels:
        raise ValueError(
            f"latents of {latents.shape[1]} channels given to a first stage of "
            f"latent_channels={network.channels}; change one of them"
        )


def _decoded(network: FirstStageNetwork, latents: Tensor) -> Tensor:
    _check_latents(network, latents)
    pictures: Tensor = network.decoder(_prepared(network, network.post_quant_conv(latents)))
    if not network.settings.shortcut:
        return pictures
    colours = latents[:, : pictures.shape[1]].to(pictures.dtype)
    return pictures + F.interpolate(colours, scale_factor=network.factor, mode="nearest")


BEGUN_LOGVAR = -6.0
"""Of the latents of a shortcut, before training: noise that leaves colours to be seen."""


@torch.no_grad()
def _begin_with_colours(network: FirstStageNetwork) -> None:
    """Let encoder and decoder add nothing yet to what the shortcut carries; other channels are as ever."""
    moments = network.quant_conv
    for weight in (moments.weight, moments.bias):
        weight[: network.settings.in_channels] = 0
    nn.init.zeros_(network.decoder.conv_out.weight)
    nn.init.zeros_(network.decoder.conv_out.bias)
    if isinstance(network, KlAutoencoder):
        moments.weight[network.channels :] = 0
        moments.bias[network.channels :] = BEGUN_LOGVAR


def _with_colours(network: FirstStageNetwork, latents: Tensor, images: Tensor) -> Tensor:
    """Latents, or their moments, with the mean colours added to their first channels by a `shortcut`."""
    if not network.settings.shortcut:
        return latents
    colours = F.avg_pool2d(images, network.factor).to(latents.dtype)
    return latents + F.pad(colours, (0, 0, 0, 0, 0, latents.shape[1] - colours.shape[1]))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _prepared(network: FirstStageNetwork, x: Tensor) -> Tensor:
    x = x.to(network.compute_dtype or x.dtype)
    return x.contiguous(memory_format=best_layout(x))


def _widths(settings: FirstStageSettings) -> list[int]:
    return [int(mult * settings.width) for mult in settings.channel_mult]


def _level(settings: FirstStageSettings, number: int, channels: int, width: int, depth: int) -> nn.ModuleDict:
    """The blocks of one resolution, which take `channels` and give `width`."""
    blocks, attention = nn.ModuleList(), nn.ModuleList()
    for _ in range(depth):
        blocks.append(ResBlock(channels, width, emb=None, dropout=settings.dropout))
        channels = width
        if 2**number in settings.attention:
            attention.append(ATTENTION[settings.attention_type](width))
    return nn.ModuleDict({"block": blocks, "attn": attention})


def _mid(settings: FirstStageSettings, channels: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "block_1": ResBlock(channels, channels, emb=None, dropout=settings.dropout),
            "attn_1": ATTENTION[settings.attention_type](channels),
            "block_2": ResBlock(channels, channels, emb=None, dropout=settings.dropout),
        }
    )


def _through_level(level: nn.ModuleDict, h: Tensor, again: bool) -> Tensor:
    for number, block in enumerate(level["block"]):
        h = _through(block, h, again)
        if len(level["attn"]):
            h = _through(level["attn"][number], h, again)
    return h


def _through_mid(mid: nn.ModuleDict, h: Tensor, again: bool) -> Tensor:
    for name in ("block_1", "attn_1", "block_2"):
        h = _through(mid[name], h, again)
    return h


def _through(layer: nn.Module, h: Tensor, again: bool) -> Tensor:
    """A layer's answer; `again` works it out once more in the backward pass to save memory."""
    if again and torch.is_grad_enabled():
        return checkpoint(layer, h, use_reentrant=False)
    return layer(h)

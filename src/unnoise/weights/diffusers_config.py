"""What the settings of a model are called in diffusers' UNet2DModel and DDPMScheduler, in both directions.

UNet2DModel is DDPM's U-Net or ADM's, by its options; what is neither, or has no counterpart, is refused.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from unnoise.config.load import to_dict
from unnoise.config.model import ModelConfig, ScheduleConfig
from unnoise.networks.build import build_network
from unnoise.networks.settings import DdpmUNetSettings, NetworkSettings, UNetSettings

PREDICTS: dict[Any, str] = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SCHEDULES: dict[Any, str] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
}
VARIANCES = ("fixed_small", "fixed_large", "learned_range")


@dataclass(frozen=True, kw_only=True)
class UNet2D:
    """Options of UNet2DModel with its defaults. Where a type allows one value, no network has another."""

    sample_size: int | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: int | None = None
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"], ...] = (
        "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
    )  # fmt: skip
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    up_block_types: tuple[Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"], ...] = (
        "AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D",
    )  # fmt: skip
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: float = 0.0
    act_fn: Literal["silu", "swish"] = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: Literal[True] = True
    class_embed_type: None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Options of a scheduler that say how a model was trained; those that say how to draw are a request's."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: None = None
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] = "fixed_small"
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    rescale_betas_zero_snr: Literal[False] = False


def model_config(unet: UNet2D, scheduler: Scheduler, where: str) -> ModelConfig:
    """The settings of a model that diffusers describes so; ValueError names what has no counterpart here."""
    if unet.sample_size is None or unet.sample_size < 1:
        raise ValueError(f"{where}: sample_size={unet.sample_size}; set it to the pictures' side in pixels")
    network = _network(unet, where)
    network.check_side(unet.sample_size)
    name = next(ours for ours, theirs in SCHEDULES.items() if theirs == scheduler.beta_schedule)
    ends = {} if name == "cosine" else {"beta_start": scheduler.beta_start, "beta_end": scheduler.beta_end}
    variance: Any = scheduler.variance_type.removesuffix("_log")
    return ModelConfig(
        network=network,
        schedule=ScheduleConfig(name=name, steps=scheduler.num_train_timesteps, **ends),
        predicts=next(ours for ours, theirs in PREDICTS.items() if theirs == scheduler.prediction_type),
        variance=variance,
        image_size=unet.sample_size,
        channels=unet.in_channels,
    )


def _network(unet: UNet2D, where: str) -> NetworkSettings:
    """DDPM's or ADM's U-Net, whichever the options describe."""
    widths, levels = unet.block_out_channels, len(unet.block_out_channels)
    if not levels == len(unet.down_block_types) == len(unet.up_block_types) or not levels:
        raise ValueError(
            f"{where}: block_out_channels and block types must name the same levels, one or more"
        )
    if min(*widths, 1 if unet.attention_head_dim is None else unet.attention_head_dim) < 1:
        raise ValueError(f"{where}: block_out_channels and attention_head_dim must be 1 or more")
    attends = [kind == "AttnDownBlock2D" for kind in unet.down_block_types]
    if attends != [kind == "AttnUpBlock2D" for kind in reversed(unet.up_block_types)]:
        raise ValueError(f"{where}: attention on the way down and up differs; no network here has that")
    updown = _resamples_in_blocks(unet, where)
    shared: dict[str, Any] = {
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "width": widths[0],
        "depth": unet.layers_per_block,
        "channel_mult": tuple(_multiple(each, widths[0]) for each in widths),
        "attention": tuple(2**level for level in range(levels) if attends[level]),
        "dropout": unet.dropout,
        "classes": unet.num_class_embeds,
    }
    if unet.flip_sin_to_cos:
        network: NetworkSettings = UNetSettings(
            **shared,
            heads=1,
            head_channels=unet.attention_head_dim,
            attention_order="new",
            updown_blocks=updown,
            adagn=unet.resnet_time_scale_shift == "scale_shift",
        )
    else:
        network = DdpmUNetSettings(**shared)
    _check_same(unet, network, where)
    return network


def _check_same(unet: UNet2D, network: NetworkSettings, where: str) -> None:
    """Refuse options that differ from those by which diffusers would be told of this network."""
    groups = _groups(network)
    if groups != {unet.norm_num_groups}:
        raise ValueError(
            f"{where}: norm_num_groups={unet.norm_num_groups}; the norms of a network of these widths have "
            f"{' or '.join(map(str, sorted(groups)))} groups here"
        )
    wanted = unet_options(network, unet.sample_size)
    kind = "ADM's" if isinstance(network, UNetSettings) else "DDPM's"
    silent = ["sample_size", "num_train_timesteps", "act_fn", "down_block_types", "up_block_types"]
    if isinstance(network, UNetSettings) and network.updown_blocks:
        silent.append("downsample_padding")  # of a convolution that is not there
    for name, types in (("downsample_type", unet.down_block_types), ("upsample_type", unet.up_block_types)):
        if not any(kind.startswith("Attn") for kind in types[:-1]):
            silent.append(name)  # of the levels with attention
    if unet.time_embedding_dim == 4 * network.width:
        silent.append("time_embedding_dim")
    if wanted.attn_norm_num_groups is None and unet.attn_norm_num_groups == unet.norm_num_groups:
        silent.append("attn_norm_num_groups")
    said, meant = to_dict(unet), to_dict(wanted)
    for name, value in said.items():
        if name not in silent and value != meant[name]:
            raise ValueError(
                f"{where}: {name}={value!r} is not that of {kind} U-Net ({meant[name]!r}), which its other "
                "options describe; no network here is built so"
            )


def _resamples_in_blocks(unet: UNet2D, where: str) -> bool:
    """Whether residual blocks resample; the last level's type says nothing, as nothing follows it."""
    ways = set()
    for kind in (*unet.down_block_types[:-1], *unet.up_block_types[:-1]):
        if kind.startswith("Attn"):
            ways.add((unet.downsample_type if "Down" in kind else unet.upsample_type) == "resnet")
        else:
            ways.add(kind.startswith("Resnet"))
    if len(ways) > 1:
        raise ValueError(
            f"{where}: some levels resample by convolutions, some in blocks; no network here does"
        )
    return True in ways


def _multiple(channels: int, width: int) -> float:
    """The multiplier of the width that gives these channels, rounded down."""
    mult = channels / width
    return mult if int(mult * width) == channels else math.nextafter(mult, math.inf)


def unet_options(network: NetworkSettings, side: int | None) -> UNet2D:
    """The options by which UNet2DModel is this network; ValueError says why it cannot be."""
    groups = _groups(network)
    widths = tuple(int(mult * network.width) for mult in network.channel_mult)
    attends = [2**level in network.attention for level in range(len(widths))]
    if widths[0] != network.width:
        raise _cannot(f"the first level has {widths[0]} channels and the time embedding {network.width}")
    if len(groups) > 1:
        raise _cannot(f"the norms have groups of several counts ({', '.join(map(str, sorted(groups)))})")
    if isinstance(network, UNetSettings) and network.transformer_depth:
        raise _cannot("its attention has transformer blocks")
    adm = isinstance(network, UNetSettings)
    updown = isinstance(network, UNetSettings) and network.updown_blocks
    adagn = isinstance(network, UNetSettings) and network.adagn
    down: Any = "ResnetDownsampleBlock2D" if updown else "DownBlock2D"
    up: Any = "ResnetUpsampleBlock2D" if updown else "UpBlock2D"
    return UNet2D(
        sample_size=side,
        in_channels=network.in_channels or 0,
        out_channels=network.out_channels or 0,
        freq_shift=0 if adm else 1,
        flip_sin_to_cos=adm,
        down_block_types=tuple("AttnDownBlock2D" if here else down for here in attends),
        up_block_types=tuple("AttnUpBlock2D" if here else up for here in reversed(attends)),
        block_out_channels=widths,
        layers_per_block=network.depth,
        downsample_padding=1 if adm else 0,
        downsample_type="resnet" if updown else "conv",
        upsample_type="resnet" if updown else "conv",
        dropout=network.dropout,
        attention_head_dim=_head_channels(network, widths) if isinstance(network, UNetSettings) else None,
        norm_num_groups=min(groups),
        # With scale and shift, diffusers leaves the norm of the middle attention out unless it is counted.
        attn_norm_num_groups=min(groups) if adagn else None,
        norm_eps=1e-5 if adm else 1e-6,
        resnet_time_scale_shift="scale_shift" if adagn else "default",
        num_class_embeds=network.classes,
    )


def _groups(network: NetworkSettings) -> set[int]:
    """Groups of the norms."""
    with torch.device("meta"):
        built = build_network(network)
    return {norm.num_groups for norm in built.modules() if isinstance(norm, nn.GroupNorm)}


def _head_channels(network: UNetSettings, widths: tuple[int, ...]) -> int | None:
    """Channels of a head, which must be the same everywhere; None for one head everywhere."""
    if network.patch > 1:
        raise _cannot(f"patch={network.patch}")
    if network.rescale_residual:
        raise _cannot("rescale_residual=true")
    if network.concat_level:
        raise _cannot("it is told how noisy the small picture is")
    if not (network.conv_resample or network.updown_blocks):
        raise _cannot("conv_resample=false")
    if network.head_channels:
        return network.head_channels
    heads = {network.heads, network.heads_up or network.heads}
    if heads == {1}:
        return None
    channels = {widths[-1], *(w for level, w in enumerate(widths) if 2**level in network.attention)}
    sizes = {width // count for width in channels for count in heads}
    if len(sizes) > 1:
        raise _cannot(
            f"its {' and '.join(map(str, sorted(heads)))} heads have {', '.join(map(str, sorted(sizes)))} "
            "channels, by level"
        )
    return sizes.pop()


def scheduler_options(config: ModelConfig) -> Scheduler:
    """The options of the DDPMScheduler that a model was trained for; ValueError says why there are none."""
    schedule = config.schedule
    if config.low_res:
        raise _cannot("it enlarges a small picture, which the pipelines have no place for")
    if schedule.rescale_timesteps and schedule.steps != 1000:
        raise _cannot(f"it is told t * 1000 / {schedule.steps} (rescale_timesteps)")
    if schedule.name not in SCHEDULES:
        raise _cannot(f"schedule {schedule.name}")
    if config.predicts not in PREDICTS:
        raise _cannot(f"predicts={config.predicts}")
    if config.variance not in VARIANCES:
        raise _cannot(
            f"variance={config.variance}, which is taken for a variance there, for its logarithm here"
        )
    if config.v_posterior:
        raise _cannot(f"v_posterior={config.v_posterior:g}, a variance between two of its kinds")
    scale = 1000 / schedule.steps if schedule.name == "linear" else 1.0
    variance: Any = config.variance
    prediction: Any = PREDICTS[config.predicts]
    betas: Any = SCHEDULES[schedule.name]
    return Scheduler(
        num_train_timesteps=schedule.steps,
        beta_start=1e-4 * scale if schedule.beta_start is None else schedule.beta_start,
        beta_end=0.02 * scale if schedule.beta_end is None else schedule.beta_end,
        beta_schedule=betas,
        variance_type=variance,
        prediction_type=prediction,
    )


def _cannot(why: str) -> ValueError:
    return ValueError(
        f"diffusers' UNet2DModel cannot express this model: {why}; convert it to one file of ours"
    )

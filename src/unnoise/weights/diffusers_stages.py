"""First stages in diffusers' layout: AutoencoderKL and VQModel, a folder of config.json and weights."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import from_dict
from unnoise.config.schema import AutoencoderConfig
from unnoise.first_stage import FirstStage
from unnoise.modelfile import put_weights, read_weights
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.first_stage_settings import FirstStageSettings, KlSettings, VqSettings
from unnoise.networks.norm import group_count
from unnoise.tensorfile import write_tensors
from unnoise.weights.torchfile import read_state

CLASSES = ("AutoencoderKL", "VQModel")
WEIGHTS = "diffusion_pytorch_model"
VERSION = "0.30.0"
"""Of diffusers, whose options are written."""
PLAIN = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
ATTENDING = {"down_block_types": "AttnDownEncoderBlock2D", "up_block_types": "AttnUpDecoderBlock2D"}
RESNET = {
    "norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut",
}  # fmt: skip
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Parts of attention in files of diffusers before 0.15."""


@dataclass(frozen=True, kw_only=True)
class Stage2D:
    """The options of AutoencoderKL and VQModel that decide what they compute."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | None = 32
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    num_vq_embeddings: int = 256
    vq_embed_dim: int | None = None
    norm_type: str = "group"
    lookup_from_codebook: bool = False


def describes_first_stage(folder: Path) -> bool:
    """Whether a folder is a first stage of diffusers': its config.json names one of the two classes."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("_class_name") in CLASSES


def load_stage(folder: Path) -> FirstStage:
    """The first stage of a folder of diffusers', on the CPU; ValueError where it is another network."""
    path = folder / "config.json"
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kind = raw["_class_name"]
    options = from_dict(
        Stage2D, {key: value for key, value in raw.items() if not key.startswith("_")}, where=str(path)
    )
    settings = _settings(options, kind, str(path))
    for ending in (".safetensors", ".bin"):
        file = folder / f"{WEIGHTS}{ending}"
        if file.is_file():
            break
    else:
        raise ValueError(f"{folder} holds no {WEIGHTS}.safetensors; copy the whole folder")
    state = read_weights(file) if file.suffix == ".safetensors" else read_state(file)
    with torch.device("meta"):
        network = build_first_stage(settings)
    put_weights(network, _renamed_back(state, settings, network.state_dict(), file), file)
    config = AutoencoderConfig(network=settings, image_size=options.sample_size)
    return FirstStage(network, config, scale=(float(options.scaling_factor),))


def save_stage(folder: Path, stage: FirstStage) -> None:
    """Write a first stage in diffusers' layout; ValueError, nothing written, where it cannot express it."""
    options = _options(stage)
    names = dict(_names(stage.config.network))
    state = {}
    for key, value in stage.network.state_dict().items():
        there = _there(key, names)
        state[there] = value[:, :, 0, 0] if _is_attention(there) and value.ndim == 4 else value
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        content = json.dumps(options, indent=2) + "\n"
        (aside / "config.json").write_text(content, encoding="utf-8")
        write_tensors(aside / f"{WEIGHTS}.safetensors", state, {"format": "pt"})
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _settings(options: Stage2D, kind: str, where: str) -> FirstStageSettings:
    """Our settings; ValueError names the option that has no counterpart."""
    widths = options.block_out_channels
    levels = len(widths)
    wanted = {
        "act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True, "shift_factor": None,
        "latents_mean": None, "latents_std": None, "norm_type": "group", "lookup_from_codebook": False,
        "out_channels": options.in_channels, "norm_num_groups": _groups(widths, where),
    }  # fmt: skip
    for name, value in wanted.items():
        if getattr(options, name) != value:
            raise ValueError(
                f"{where}: {name}={getattr(options, name)} has no counterpart here; only {value}"
            )
    attention = tuple(2**k for k in range(levels) if options.down_block_types[k] != PLAIN["down_block_types"])
    if (options.down_block_types, options.up_block_types) != _blocks(levels, attention):
        raise ValueError(f"{where}: blocks {', '.join(options.down_block_types)} have no counterpart here")
    if attention and not options.mid_block_add_attention:
        raise ValueError(f"{where}: attention in blocks but not in the middle has no counterpart here")
    shared: dict[str, Any] = {
        "in_channels": options.in_channels,
        "width": widths[0],
        "depth": options.layers_per_block,
        "channel_mult": tuple(width / widths[0] for width in widths),
        "attention": attention,
        "attention_type": "vanilla" if options.mid_block_add_attention else "none",
    }
    if kind == "AutoencoderKL":
        return KlSettings(latent_channels=options.latent_channels, **shared)
    channels = options.vq_embed_dim or options.latent_channels
    inner = options.latent_channels if options.latent_channels != channels else None
    return VqSettings(
        latent_channels=channels, inner_channels=inner, codes=options.num_vq_embeddings, **shared
    )


def _options(stage: FirstStage) -> dict[str, Any]:
    """diffusers' options of a first stage."""
    settings, why = stage.config.network, ""
    widths = [int(mult * settings.width) for mult in settings.channel_mult]
    if settings.attention_type == "linear":
        why = "attention_type=linear"
    elif settings.attention_type == "none" and settings.attention:
        why = "attention places without attention"
    elif widths[0] != settings.width:
        why = f"a first level of another width than the first layer's (channel_mult={settings.channel_mult})"
    elif settings.shortcut:
        why = "a shortcut"
    elif len(stage.scale) > 1:
        why = "a scale for each channel"
    elif isinstance(settings, KlSettings) and settings.inner_channels not in (None, settings.latent_channels):
        why = f"inner_channels={settings.inner_channels}"
    if why:
        raise ValueError(f"diffusers has no first stage with {why}; keep the file of unnoise")
    down, up = _blocks(len(widths), settings.attention)
    shared = {
        "_diffusers_version": VERSION,
        "in_channels": settings.in_channels,
        "out_channels": settings.in_channels,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": widths,
        "layers_per_block": settings.depth,
        "act_fn": "silu",
        "norm_num_groups": _groups(widths, "this first stage", settings.norm_channels),
        "sample_size": stage.config.image_size or 32,
        "scaling_factor": stage.scale[0],
        "mid_block_add_attention": settings.attention_type != "none",
    }
    if isinstance(settings, KlSettings):
        return {"_class_name": "AutoencoderKL", **shared, "latent_channels": settings.latent_channels}
    return {
        "_class_name": "VQModel",
        **shared,
        "latent_channels": settings.inner_channels or settings.latent_channels,
        "vq_embed_dim": settings.latent_channels,
        "num_vq_embeddings": settings.codes,
    }


def _groups(widths: Any, where: str, least: int | None = None) -> int:
    counts = {group_count(width, least) for width in widths}
    if len(counts) > 1:
        raise ValueError(
            f"{where}: widths {list(widths)} have norms of several group counts; diffusers has one"
        )
    return counts.pop()


def _blocks(levels: int, attention: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the blocks downwards, and upwards from the bottom."""
    down, up = (
        tuple((ATTENDING if 2**k in attention else PLAIN)[name] for k in range(levels)) for name in PLAIN
    )
    return down, up[::-1]


def _names(settings: FirstStageSettings) -> Iterator[tuple[str, str]]:
    """Prefix here, prefix there, of every block."""
    levels = len(settings.channel_mult)
    for half, own, other, depth in (("encoder", "down", "down_blocks", 0), ("decoder", "up", "up_blocks", 1)):
        for end in ("conv_in", "conv_out"):
            yield f"{half}.{end}", f"{half}.{end}"
        yield f"{half}.norm_out", f"{half}.conv_norm_out"
        yield f"{half}.mid.block_1", f"{half}.mid_block.resnets.0"
        yield f"{half}.mid.block_2", f"{half}.mid_block.resnets.1"
        yield f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0"
        for k in range(levels):
            place = levels - 1 - k if half == "decoder" else k
            for j in range(settings.depth + depth):
                yield f"{half}.{own}.{k}.block.{j}", f"{half}.{other}.{place}.resnets.{j}"
                yield f"{half}.{own}.{k}.attn.{j}", f"{half}.{other}.{place}.attentions.{j}"
            yield f"{half}.{own}.{k}.downsample.conv", f"{half}.{other}.{place}.downsamplers.0.conv"
            yield f"{half}.{own}.{k}.upsample.conv", f"{half}.{other}.{place}.upsamplers.0.conv"


def _there(key: str, names: Mapping[str, str]) -> str:
    """diffusers' name of a tensor."""
    body, _, end = key.rpartition(".")
    if body in names:
        return f"{names[body]}.{end}"
    block, _, part = body.rpartition(".")
    if block in names:
        parts = ATTENTION if _is_attention(names[block]) else RESNET
        return f"{names[block]}.{parts[part]}.{end}"
    return key  # quantize, quant_conv, post_quant_conv


def _is_attention(there: str) -> bool:
    return ".attentions." in f"{there}."


def _renamed_back(
    state: Mapping[str, Tensor], settings: FirstStageSettings, like: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Weights by our names and in our shapes; ValueError where the network has no use for some."""
    rest = {_renewed(key): value for key, value in state.items()}
    names, found = dict(_names(settings)), {}
    for key, own in like.items():
        value = rest.pop(_there(key, names), None)
        if value is None:
            raise ValueError(f"{path} lacks {_there(key, names)}; copy the whole folder")
        found[key] = value.float().reshape(own.shape) if value.numel() == own.numel() else value
    if rest:
        raise ValueError(f"{path} holds {len(rest)} weights without a place here, first {sorted(rest)[0]}")
    return found


def _renewed(key: str) -> str:
    for old, new in OLD.items():
        key = key.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return key

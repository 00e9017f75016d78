"""The same weights by their names here and in diffusers' UNet2DModel."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unnoise.networks.settings import DdpmUNetSettings, NetworkSettings, UNetSettings

RESNET = {
    "adm": {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    },
    "ddpm": {
        "norm1": "norm1",
        "conv1": "conv1",
        "temb_proj": "time_emb_proj",
        "norm2": "norm2",
        "conv2": "conv2",
        "nin_shortcut": "conv_shortcut",
    },
}
"""Parts of a residual block."""
QKV = ("to_q", "to_k", "to_v")
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Parts of attention in files of diffusers before 0.15."""

Part = tuple[str, str, str]
"""Name here, name there, and what it is: "plain" (a weight and a bias), "resnet" or "attention"."""


def to_diffusers(state: Mapping[str, Tensor], settings: NetworkSettings) -> dict[str, Tensor]:
    """Weights by diffusers' names and in its shapes."""
    renamed: dict[str, Tensor] = {}
    for here, there, what in _parts(settings):
        for end in ("weight", "bias"):
            if what == "attention":
                for name, value in _split(state, f"{here}.", end, settings).items():
                    renamed[f"{there}.{name}.{end}"] = value
                continue
            for own, other in _names(settings, what).items():
                if (key := _joined(here, own, end)) in state:
                    renamed[_joined(there, other, end)] = state[key]
    return renamed


def from_diffusers(state: Mapping[str, Tensor], settings: NetworkSettings, path: Path) -> dict[str, Tensor]:
    """Weights by our names and in our shapes; ValueError where the network has no use for some."""
    rest = {_renewed(key): value for key, value in state.items()}
    renamed: dict[str, Tensor] = {}
    try:
        for here, there, what in _parts(settings):
            for end in ("weight", "bias"):
                if what == "attention":
                    renamed |= _merged(rest, here, f"{there}.", end, settings)
                    continue
                for own, other in _names(settings, what).items():
                    if (key := _joined(there, other, end)) in rest:
                        renamed[_joined(here, own, end)] = rest.pop(key)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path}: weights and config.json do not fit ({' '.join(str(error).split())[:100]})"
        ) from None
    if rest:
        raise ValueError(
            f"{path} has {len(rest)} weights of which config.json says nothing, such as {next(iter(rest))}"
        )
    return renamed


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def _renewed(key: str) -> str:
    return ".".join(OLD.get(part, part) if "attentions" in key else part for part in key.split("."))


def _names(settings: NetworkSettings, what: str) -> dict[str, str]:
    return RESNET[settings.kind] if what == "resnet" else {"": ""}


def _split(state: Mapping[str, Tensor], here: str, end: str, settings: NetworkSettings) -> dict[str, Tensor]:
    """The `end`s of an attention block as diffusers has them: a matrix each for q, k and v."""
    flat = {"group_norm": state[f"{here}norm.{end}"], "to_out.0": state[f"{here}proj_out.{end}"]}
    if isinstance(settings, DdpmUNetSettings):
        parts = [state[f"{here}{name}.{end}"] for name in "qkv"]
    else:
        qkv = state[f"{here}qkv.{end}"]
        channels = len(qkv) // 3
        dims = _qkv_dims(settings, channels)
        axis = dims.index(3)
        parts = [part.reshape(channels, *qkv.shape[1:]) for part in qkv.unflatten(0, dims).unbind(axis)]
    flat |= dict(zip(QKV, parts, strict=True))
    return {name: value.reshape(value.shape[:2]) for name, value in flat.items()}


def _merged(
    rest: dict[str, Tensor], here: str, there: str, end: str, settings: NetworkSettings
) -> dict[str, Tensor]:
    """The `end`s of an attention block as the network here has them; they are taken out of `rest`."""
    parts = [rest.pop(f"{there}{name}.{end}") for name in QKV]
    found = {"norm": rest.pop(f"{there}group_norm.{end}"), "proj_out": rest.pop(f"{there}to_out.0.{end}")}
    ones = (1, 1) if isinstance(settings, DdpmUNetSettings) else (1,)
    if isinstance(settings, DdpmUNetSettings):
        found |= dict(zip("qkv", parts, strict=True))
    else:
        dims = _qkv_dims(settings, len(parts[0]))
        axis = dims.index(3)
        heads = [part.unflatten(0, dims[:axis] + dims[axis + 1 :]) for part in parts]
        found["qkv"] = torch.stack(heads, axis).flatten(0, 2)
    return {
        f"{here}.{name}.{end}": value.reshape(*value.shape, *ones) if value.ndim == 2 else value
        for name, value in found.items()
    }


def _qkv_dims(settings: UNetSettings, channels: int) -> tuple[int, int, int]:
    """How the rows of qkv are laid out: heads, q k v, channels of a head, in their order."""
    size = settings.head_channels or channels // settings.heads
    heads = channels // size
    return (heads, 3, size) if settings.attention_order == "legacy" else (3, heads, size)


def _parts(settings: NetworkSettings) -> Iterator[Part]:
    """Everything that has weights."""
    yield from _ddpm_parts(settings) if isinstance(settings, DdpmUNetSettings) else _adm_parts(settings)
    if settings.classes is not None:
        yield "label_emb", "class_embedding", "plain"


def _ddpm_parts(settings: DdpmUNetSettings) -> Iterator[Part]:
    for k in range(2):
        yield f"temb.dense.{k}", f"time_embedding.linear_{k + 1}", "plain"
    yield "conv_in", "conv_in", "plain"
    last = len(settings.channel_mult) - 1
    for level in range(last + 1):
        sides = (
            (f"down.{level}", f"down_blocks.{level}", settings.depth),
            (f"up.{level}", f"up_blocks.{last - level}", settings.depth + 1),
        )
        for here, there, depth in sides:
            for k in range(depth):
                yield f"{here}.block.{k}", f"{there}.resnets.{k}", "resnet"
                if 2**level in settings.attention:
                    yield f"{here}.attn.{k}", f"{there}.attentions.{k}", "attention"
        if level < last:
            yield f"down.{level}.downsample.conv", f"down_blocks.{level}.downsamplers.0.conv", "plain"
        if level:
            yield f"up.{level}.upsample.conv", f"up_blocks.{last - level}.upsamplers.0.conv", "plain"
    yield from _middle(("mid.block_1", "mid.attn_1", "mid.block_2"))
    yield "norm_out", "conv_norm_out", "plain"
    yield "conv_out", "conv_out", "plain"


def _adm_parts(settings: UNetSettings) -> Iterator[Part]:
    for k in range(2):
        yield f"time_embed.{2 * k}", f"time_embedding.linear_{k + 1}", "plain"
    yield "input_blocks.0.0", "conv_in", "plain"
    last, number = len(settings.channel_mult) - 1, 1
    for level in range(last + 1):
        there = f"down_blocks.{level}"
        for k in range(settings.depth):
            yield f"input_blocks.{number}.0", f"{there}.resnets.{k}", "resnet"
            if 2**level in settings.attention:
                yield f"input_blocks.{number}.1", f"{there}.attentions.{k}", "attention"
            number += 1
        if level < last:
            yield _resampler(settings, f"input_blocks.{number}.0", "op", f"{there}.downsamplers.0")
            number += 1
    yield from _middle(("middle_block.0", "middle_block.1", "middle_block.2"))
    number = 0
    for level in reversed(range(last + 1)):
        there = f"up_blocks.{last - level}"
        for k in range(settings.depth + 1):
            yield f"output_blocks.{number}.0", f"{there}.resnets.{k}", "resnet"
            attends = 2**level in settings.attention
            if attends:
                yield f"output_blocks.{number}.1", f"{there}.attentions.{k}", "attention"
            if level and k == settings.depth:
                here = f"output_blocks.{number}.{1 + attends}"
                yield _resampler(settings, here, "conv", f"{there}.upsamplers.0")
            number += 1
    yield "out.0", "conv_norm_out", "plain"
    yield "out.2", "conv_out", "plain"


def _resampler(settings: UNetSettings, here: str, conv: str, there: str) -> Part:
    return (here, there, "resnet") if settings.updown_blocks else (f"{here}.{conv}", f"{there}.conv", "plain")


def _middle(names: tuple[str, str, str]) -> Iterator[Part]:
    yield names[0], "mid_block.resnets.0", "resnet"
    yield names[1], "mid_block.attentions.0", "attention"
    yield names[2], "mid_block.resnets.1", "resnet"

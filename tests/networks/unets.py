"""U-Nets for tests: the settings that guided-diffusion's arguments mean, a condition, a small network."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unnoise.networks.build import build_network
from unnoise.networks.settings import EncoderUNetSettings, NetworkSettings, UNetSettings


@dataclass(frozen=True, eq=False)
class Cond:
    """What a network reads of a Condition."""

    label: Tensor | None = None
    concat: Tensor | None = None
    level: Tensor | None = None
    context: Tensor | None = None
    context_mask: Tensor | None = None


def settings_of(args: dict[str, Any], *, super_res: bool = False) -> UNetSettings:
    """Our names for the arguments of guided-diffusion's UNetModel; -1 there means None here."""

    def given(name: str) -> int | None:
        value = args.get(name, -1)
        return None if value in (-1, None) else value

    return UNetSettings(
        in_channels=args["in_channels"] * (2 if super_res else 1),
        out_channels=args["out_channels"],
        width=args["model_channels"],
        depth=args["num_res_blocks"],
        channel_mult=tuple(args.get("channel_mult", (1, 2, 4, 8))),
        attention=tuple(args["attention_resolutions"]),
        heads=given("num_heads") or 1,
        head_channels=given("num_head_channels"),
        heads_up=given("num_heads_upsample"),
        attention_order="new" if args.get("use_new_attention_order") else "legacy",
        updown_blocks=bool(args.get("resblock_updown", False)),
        conv_resample=bool(args.get("conv_resample", True)),
        adagn=bool(args.get("use_scale_shift_norm", False)),
        dropout=float(args.get("dropout", 0.0)),
        classes=args.get("num_classes"),
        checkpoint=bool(args.get("use_checkpoint", False)),
    )


def ldm_settings_of(args: dict[str, Any]) -> UNetSettings:
    """Our names for the arguments of latent-diffusion's UNetModel, which adds to guided-diffusion's."""
    transformer = bool(args.get("use_spatial_transformer", False))
    settings = replace(
        settings_of(args),
        transformer_depth=args.get("transformer_depth", 1) if transformer else 0,
        context_width=_width(args.get("context_dim")),
    )
    if transformer or not args.get("legacy", True):
        # There the decoder's own number of heads is ignored (trap 45).
        settings = replace(settings, heads_up=None)
    if transformer:
        settings = replace(settings, attention_order="legacy")  # the order of qkv has no meaning there
    return settings


def _width(given: int | list[int] | None) -> int | None:
    """A context's width, which the original takes as a list of one too."""
    return given[0] if isinstance(given, list) else given


def encoder_settings_of(args: dict[str, Any]) -> EncoderUNetSettings:
    """Our names for the arguments of guided-diffusion's EncoderUNetModel."""
    body = settings_of(args)
    shared = set(EncoderUNetSettings.__dataclass_fields__) & set(UNetSettings.__dataclass_fields__)
    values = {name: getattr(body, name) for name in shared}
    size = args["image_size"]
    values |= {"image_size": size, "classes": args["out_channels"], "pool": args.get("pool", "adaptive")}
    return EncoderUNetSettings(**values)


SMALL = UNetSettings(
    in_channels=3, width=64, depth=1, channel_mult=(1, 2), attention=(2,), heads=4, out_channels=6
)


def randomised(settings: NetworkSettings, seed: int = 0) -> Any:
    """A network whose every parameter is random, the zero-initialised ones too."""
    generator = torch.Generator().manual_seed(seed)
    network = build_network(settings)
    with torch.no_grad():
        for name, p in network.named_parameters():
            z = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.copy_(0.1 * z + name.endswith("weight"))
            else:
                p.copy_(z * p[0].numel() ** -0.5)
    return network

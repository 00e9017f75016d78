"""The networks that draw, by the kind that their settings name."""

from dataclasses import replace

import torch
from torch import nn

from unnoise.networks.settings import DdpmUNetSettings, NetworkSettings
from unnoise.networks.unet import UNet
from unnoise.networks.unet_ddpm import DdpmUNet


def build_network(settings: NetworkSettings) -> nn.Module:
    """The network of complete settings with fresh weights, called as network(x, t, cond).

    Every one has its `settings` and a `compute_dtype`, the type of its activations.
    """
    return DdpmUNet(settings) if isinstance(settings, DdpmUNetSettings) else UNet(settings)


def check_network(settings: NetworkSettings) -> None:
    """Refuse settings of which no network can be built, whatever data are still to decide of them.

    Builds it without memory for its weights.
    """
    open_ones = {name: getattr(settings, name) or 1 for name in ("in_channels", "out_channels")}
    with torch.device("meta"):
        build_network(replace(settings, **open_ones))

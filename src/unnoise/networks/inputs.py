"""What a network is given, checked: the same for every network that draws."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.networks.settings import NetworkSettings, UNetSettings


def joined(settings: NetworkSettings, x: Tensor, concat: Tensor | None) -> Tensor:
    """A network's input: x, `concat` appended on its channels; refuses channels and sizes that do not fit.

    A `concat` of another size is resampled to that of x: bilinearly, no antialiasing (ADM's upsamplers).
    """
    if concat is not None:
        if concat.shape[2:] != x.shape[2:]:
            concat = F.interpolate(concat, x.shape[2:], mode="bilinear", align_corners=False)
        x = torch.cat([x, concat.to(x.dtype)], dim=1)
    if x.shape[1] != settings.in_channels:
        raise ValueError(
            f"{x.shape[1]} channels (concatenated ones included) given to a network of "
            f"in_channels={settings.in_channels}; change one of them"
        )
    for side in x.shape[2:]:
        settings.check_side(side)
    return x


def check_label(settings: NetworkSettings, label: Tensor | None) -> None:
    """Refuse a class for a network without classes, and none for a network that is told one."""
    if (label is None) != (settings.classes is None):
        raise ValueError(
            "this network has no classes; leave cond.label out, or build it with classes=..."
            if settings.classes is None
            else f"this network is told a class; give cond.label, (B,) of 0..{settings.classes - 1}"
        )


def check_level(settings: UNetSettings, level: Tensor | None) -> None:
    """Refuse a noise level that a network is not told, and the lack of one that it is."""
    if (level is None) == settings.concat_level:
        raise ValueError(
            "this network is told how noisy cond.concat is; give cond.level, (B,) in [0, 1]"
            if level is None
            else "this network is not told a noise level; leave cond.level out, or build it with one"
        )


def check_context(settings: UNetSettings, context: Tensor | None, mask: Tensor | None) -> None:
    """Refuse tokens that a network does not read, the lack of those that it does, and a mask that misses."""
    width = settings.context_width
    if (context is None) != (width is None):
        raise ValueError(
            "this network reads no context; leave cond.context out, or build it with context_width=..."
            if width is None
            else f"this network reads a context; give cond.context, (B, tokens, {width})"
        )
    if context is not None and (context.ndim != 3 or context.shape[2] != width):
        raise ValueError(
            f"a context of {tuple(context.shape)} given to a network of context_width={width}; give "
            f"(B, tokens, {width})"
        )
    if mask is not None and (context is None or mask.shape != context.shape[:2]):
        raise ValueError(
            f"a context mask of {tuple(mask.shape)} does not fit the context; give one value a token, "
            "(B, tokens), or leave it out"
        )

"""A network that draws and the encoders of what it is told, trained as one (arXiv 2112.10752, 3.3)."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.build import build_network
from unnoise.networks.conditioner_settings import ConditionedSettings, SpatialRescalerSettings
from unnoise.networks.conditioners import Conditioner, SpatialRescaler, build_conditioner

LABEL = "class"
"""The part that is a condition's label."""
MASK = "_mask"
"""A part NAME + MASK, (B, L) bool, says which tokens of the part NAME count."""


class Conditioned(nn.Module):
    """eps = network(x, t, encode(cond)): the parts of a condition become its context and its concat.

    The tokens of all encoders stand one behind the other in the order of the settings, the maps likewise.
    """

    def __init__(self, settings: ConditionedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_network(settings.network)
        self.encoders = nn.ModuleList(build_conditioner(each) for _, each in settings.encoders)
        _check(settings)

    @property
    def told_label(self) -> bool:
        """Whether an encoder reads the class, so that the network itself does not."""
        return any(name == LABEL for name, _ in self.settings.encoders)

    @property
    def size_factor(self) -> int:
        """Both sides of x must be a multiple of this."""
        return self.settings.network.size_factor

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """Type of the activations; None takes that of x."""
        dtype: torch.dtype | None = self.network.compute_dtype
        return dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        self.network.compute_dtype = dtype
        for encoder in self.encoders:
            if not isinstance(encoder, SpatialRescaler):  # what it gives is laid beside x
                encoder.compute_dtype = dtype

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """As the network's own; `cond` may be encoded already."""
        cond = self.encode(cond, x.shape[2:])
        return self.network(x, t, replace(cond, label=None) if self.told_label else cond)

    def encode(self, cond: Any, size: torch.Size) -> Any:
        """`cond` with context, mask and concat made of its parts, which stay; one that has them is as it was.

        size: (H, W) of x, to which maps are resampled (nearest neighbours).
        """
        if cond is None or cond.context is not None or cond.concat is not None:
            return cond
        parts = dict(cond.parts or {})
        if cond.label is not None:
            parts[LABEL] = cond.label
        missing = [name for name, _ in self.settings.encoders if name not in parts]
        if missing:
            raise ValueError(f"this network is told {', '.join(missing)}; give it as a part of the condition")
        tokens, masks, maps = [], [], []
        for (name, _), encoder in zip(self.settings.encoders, self.encoders, strict=True):
            if isinstance(encoder, SpatialRescaler):
                found = encoder(parts[name])
                maps.append(found if found.shape[2:] == size else F.interpolate(found, size))
                continue
            mask = parts.get(name + MASK)
            context = _context(encoder, parts[name], mask)
            tokens.append(context)
            masks.append(context.new_ones(context.shape[:2], dtype=torch.bool) if mask is None else mask)
        masked = any(name + MASK in parts for name, _ in self.settings.encoders)
        return replace(
            cond,
            context=torch.cat(tokens, 1) if tokens else None,
            context_mask=torch.cat(masks, 1) if tokens and masked else None,
            concat=torch.cat(maps, 1) if maps else None,
        )


def _context(encoder: Conditioner, part: Tensor, mask: Tensor | None) -> Tensor:
    """(B, L, width)."""
    return encoder(part) if mask is None else encoder(part, mask)


def _check(settings: ConditionedSettings) -> None:
    """Refuse encoders whose tokens the network cannot read together."""
    context = getattr(settings.network, "context_width", None)
    for name, encoder in settings.encoders:
        if isinstance(encoder, SpatialRescalerSettings):
            continue
        if encoder.width != context:
            raise ValueError(
                f"the encoder of {name} makes tokens of width={encoder.width} and the network reads "
                f"context_width={context}; set both to the same"
            )

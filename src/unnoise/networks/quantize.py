"""A learned codebook and the nearest code (van den Oord et al. 2017, arXiv 1711.00937; Esser et al. 2021)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

BLOCK = 2**24
"""Distances held at once: bounds the memory of looking for the nearest of many codes."""


@dataclass(frozen=True, eq=False)
class Quantised:
    """What a codebook makes of latents."""

    latents: Tensor
    """The nearest codes (B, C, H, W); their gradient passes straight to the latents that came in."""
    loss: Tensor
    """What pulls latents and codes together, a scalar."""
    indices: Tensor
    """Which codes: (B, H, W) int64."""
    given: Tensor
    """The latents that came in."""


class VectorQuantizer(nn.Module):
    """z -> argmin over codes e of |z - e|^2, with loss = |sg(z) - e|^2 + beta |z - sg(e)|^2 (means).

    `beta_on` "commitment" is that equation (its 4); "codebook" puts beta on the first term instead, as the
    published models were trained (taming-transformers' default).
    """

    def __init__(
        self, codes: int, channels: int, beta: float, beta_on: Literal["commitment", "codebook"]
    ) -> None:
        super().__init__()
        self.weight_of_codes = beta if beta_on == "codebook" else 1.0
        self.weight_of_commitment = beta if beta_on == "commitment" else 1.0
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def forward(self, latents: Tensor) -> Quantised:
        """(B, C, H, W) -> the nearest codes, in float32 whatever the latents are."""
        latents = latents.float()
        indices = self.nearest(latents)
        codes = self.lookup(indices)
        commitment = (codes.detach() - latents).square().mean()
        codebook = (codes - latents.detach()).square().mean()
        loss = self.weight_of_codes * codebook + self.weight_of_commitment * commitment
        return Quantised(latents + (codes - latents).detach(), loss, indices, latents)

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """The index of the code nearest to each of (B, C, H, W): (B, H, W) int64."""
        b, c, h, w = latents.shape
        rows = latents.permute(0, 2, 3, 1).reshape(-1, c).float()
        codes = self.embedding.weight.float()
        halves = 0.5 * codes.square().sum(1)
        found = [  # |z - e|^2 / 2 without |z|^2, which is the same for all codes
            torch.addmm(halves, block, codes.T, alpha=-1).argmin(1)
            for block in rows.split(max(1, BLOCK // len(codes)))
        ]
        return torch.cat(found).view(b, h, w)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes (B, C, H, W) of indices (B, H, W)."""
        return self.embedding(indices).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class UsedCodes:
    """Numbers codes anew by their place among those in use, for models that learn sequences of indices.

    A code that is not in use becomes `unknown`: a place, or "extra" for one more than there are.
    """

    codes: Tensor
    """Those in use, (N,) int64."""
    unknown: int | Literal["extra"] = "extra"

    def places(self, indices: Tensor) -> Tensor:
        """The place of each code of indices, whatever their shape."""
        matches = indices[..., None] == self.codes
        unknown = len(self.codes) if self.unknown == "extra" else self.unknown
        return torch.where(matches.any(-1), matches.int().argmax(-1), unknown)

    def indices(self, places: Tensor) -> Tensor:
        """The code at each place; the extra place gives the first code."""
        return self.codes[torch.where(places < len(self.codes), places, 0)]

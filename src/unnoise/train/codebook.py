"""Which codes of a codebook are in use, and new places for those that are not."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unnoise import distributed
from unnoise.diffusion.noise import seeded_generator
from unnoise.networks.quantize import VectorQuantizer
from unnoise.train.first_stage_losses import code_counts, perplexity

RECENT = 100
"""Steps within which a code was chosen for it to count as used."""
CANDIDATES = 256
"""Latents of a step and process from which codes get new places at most."""


class CodeUse:
    """Counts choices, and moves codes unused for too long to latents of the batch (Dhariwal et al. 2020).

    After the first step no code was ever used but those of that step: the others take its latents, so that
    the codebook begins where latents are.
    """

    def __init__(self, quantizer: VectorQuantizer, *, revive_after: int, seed: int) -> None:
        self.quantizer, self.revive_after, self.seed = quantizer, revive_after, seed
        codes = quantizer.embedding.num_embeddings
        self.idle = torch.full((codes,), max(revive_after, RECENT), dtype=torch.int64)
        """Steps since each code was chosen, or moved."""
        self.unchosen = torch.full((codes,), RECENT, dtype=torch.int64)
        """Steps since each code was chosen, whether or not it was moved meanwhile."""
        self.recent = torch.zeros(codes, dtype=torch.float64)
        """Choices, those of earlier steps counting less."""
        self.done = torch.zeros((), dtype=torch.int64)

    @property
    def usage(self) -> float:
        """Share of the codes that were chosen in the last steps."""
        return (self.unchosen < RECENT).double().mean().item()

    @property
    def perplexity(self) -> float:
        """Of the choices of the last steps."""
        return perplexity(self.recent).item()

    @torch.no_grad()
    def count(self, indices: Sequence[Tensor], latents: Sequence[Tensor]) -> None:
        """The choices (B, h, w) of every micro-batch of this process, and the latents that they were for."""
        codes = len(self.idle)
        mine = sum(code_counts(each, codes) for each in indices)
        counts = distributed.everyone(torch.as_tensor(mine).cpu()).sum(0)
        self.idle = torch.where(counts > 0, 0, self.idle + 1)
        self.unchosen = torch.where(counts > 0, 0, self.unchosen + 1)
        self.recent = (1 - 1 / RECENT) * self.recent + counts
        self.done += 1
        if self.revive_after:
            self._revive(torch.cat([each.transpose(0, 1).flatten(1).T for each in latents]))

    def _revive(self, rows: Tensor) -> None:
        dead = (self.idle >= self.revive_after).nonzero().flatten()
        generator = seeded_generator(self.seed, "revive", int(self.done), distributed.rank())
        chosen = torch.randint(len(rows), (CANDIDATES,), generator=generator)
        places = (
            distributed.everyone(rows[chosen.to(rows.device)].float().cpu()).transpose(0, 1).flatten(0, 1)
        )
        moved = dead[: len(places)]
        if len(moved):
            weight = self.quantizer.embedding.weight
            weight[moved.to(weight.device)] = places[: len(moved)].to(weight)
            self.idle[moved] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """What it has counted."""
        return {"idle": self.idle, "unchosen": self.unchosen, "recent": self.recent, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self.idle, self.unchosen = state["idle"].clone(), state["unchosen"].clone()
        self.recent = state["recent"].clone()
        self.done = state["done"].clone()

"""Randomness as a function: every draw depends only on (seed, purpose, indices)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

StepNoise = Callable[[Tensor], Tensor]
"""Unit noise shaped, placed and typed as its argument: a `Noise` bound to one step and one draw."""


class Noise(Protocol):
    """Unit noise of a run. x_T is step -1; draw 0: the sampler's, 1: the constraint's, 2: a jump's."""

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """Noise shaped, placed and typed as `like`."""
        ...


def seeded_generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A generator on the CPU that is a function of (seed, purpose, index) alone.

    The whole state comes from a hash: `manual_seed` keeps only 32 bits of a seed, so among some 10^5 pictures
    two would start from the same noise.
    """
    key = repr((int(seed), purpose, *map(int, index))).encode()
    generator = torch.Generator("cpu")
    generator.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little"))
    # torch's layout: 24 bytes of head, the 624 words of the Mersenne twister as int64, what is left of it.
    state = generator.get_state()
    words = torch.frombuffer(bytearray(hashlib.shake_256(key).digest(624 * 4)), dtype=torch.int32)
    state[24 : 24 + 624 * 8].view(torch.int64).copy_(words.to(torch.int64) & 0xFFFFFFFF)
    generator.set_state(state)
    return generator


def unit_normal(seed: int, purpose: str, *index: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 numbers on the CPU, a function of (seed, purpose, index) alone."""
    return torch.randn(tuple(shape), generator=seeded_generator(seed, purpose, *index))


@dataclass(frozen=True)
class SeededNoise:
    """Picture k gets the same numbers in any batch, on any device: a function of (seed, k, step, draw)."""

    seed: int
    image_ids: Sequence[int]

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """Unit noise like `like`, whose rows are the pictures `image_ids`."""
        if len(self.image_ids) != len(like):
            raise ValueError(f"{len(self.image_ids)} image ids for {len(like)} pictures; give one each")
        drawn = torch.empty(like.shape, dtype=torch.float32)
        for row, image in zip(drawn, self.image_ids, strict=True):
            row.normal_(generator=seeded_generator(self.seed, "noise", image, step, draw))
        return drawn.to(like.device, like.dtype)


@dataclass(frozen=True, eq=False)
class RecordedNoise:
    """Noise from a record, to replay a run: (step, draw) -> tensor."""

    record: Mapping[tuple[int, int], Tensor] = field(repr=False)

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """The recorded tensor, placed and typed as `like`."""
        if (step, draw) not in self.record:
            raise ValueError(
                f"no noise is recorded for step {step}, draw {draw}; record it or use SeededNoise"
            )
        return self.record[step, draw].to(like.device, like.dtype)

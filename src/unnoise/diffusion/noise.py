"""Randomness as a function: every draw depends only on (seed, purpose, indices)."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

StepNoise = Callable[[Tensor], Tensor]
"""Unit noise shaped, placed and typed as its argument: a `Noise` bound to one step and one draw."""


class Noise(Protocol):
    """Unit noise of a run. x_T is step -1; draw 0: the sampler's, 1: the constraint's, 2: a jump's, 3: that
    of the small picture of an upsampler, in step -1, 4: resampling of particles, 5: which one is given out.
    """

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """Noise shaped, placed and typed as `like`."""
        ...


@functools.cache
def _fresh_state() -> Tensor:
    """State of a generator that has drawn nothing: 24 bytes of head, the Mersenne twister's words, a tail."""
    return torch.Generator("cpu").manual_seed(0).get_state()


def seeded_generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A generator on the CPU that is a function of (seed, purpose, index) alone.

    The whole state comes from a hash: `manual_seed` keeps only 32 bits of a seed, so among some 10^5 pictures
    two would start from the same noise.
    """
    key = repr((int(seed), purpose, *map(int, index))).encode()
    state, generator = _fresh_state().clone(), torch.Generator("cpu")
    words = torch.frombuffer(bytearray(hashlib.shake_256(key).digest(624 * 4)), dtype=torch.int32)
    # torch keeps each 32-bit word in 64 bits: the lower halves are written, the upper ones are zero.
    state[24 : 24 + 624 * 8].view(torch.int32)[::2] = words
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
    purpose: str = "noise"
    """Models that draw one after the other from one seed must not meet the same numbers."""

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """Unit noise like `like`, whose rows are the pictures `image_ids`."""
        if len(self.image_ids) != len(like):
            raise ValueError(f"{len(self.image_ids)} image ids for {len(like)} pictures; give one each")
        drawn = torch.empty(like.shape, dtype=torch.float32)
        for row, image in zip(drawn, self.image_ids, strict=True):
            row.normal_(generator=seeded_generator(self.seed, self.purpose, image, step, draw))
        return drawn.to(like.device, like.dtype)


@dataclass(frozen=True, eq=False)
class RowNoise:
    """A batch whose rows have noise of their own: row k's is `rows[k]`, asked for a batch of one."""

    rows: Sequence[Noise]

    def __call__(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """The rows' noise, one below the other."""
        assert len(self.rows) == len(like)
        return torch.cat([n(like[k : k + 1], step=step, draw=draw) for k, n in enumerate(self.rows)])


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

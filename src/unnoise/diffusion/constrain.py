"""Edits that change x itself: a part of the picture is known and held while the rest is drawn.

Replacement: Song et al. 2021, arXiv:2011.13456; colour and low frequencies: the same, and Choi et al. 2021
(ILVR), arXiv:2108.02938. Resampling: Lugmayr et al. 2022 (RePaint), arXiv:2201.09865. Plain replacement is
biased: what is drawn does not know what is held until later steps; resampling lessens it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from unnoise.diffusion.noise import StepNoise
from unnoise.diffusion.schedule import At, NoiseSchedule, add_noise


class Constraint(Protocol):
    """A change of x once a step, however often the sampler calls the network, and once at the end."""

    def before(self, x: Tensor, at: At, noise: StepNoise) -> Tensor:
        """What the sampler steps from instead of x."""
        ...

    def final(self, x0: Tensor) -> Tensor:
        """What is given out instead of the last x."""
        ...


@dataclass(frozen=True, eq=False)
class Hold:
    """x - P x + P (alpha known + sigma z): what the linear projection P sees comes from `known`, noised."""

    known: Tensor
    """(B, C, H, W) in the model's range."""
    project: Callable[[Tensor], Tensor]
    """P of any number of pictures; orthogonal: P P = P, and what is left of x has nothing to do with P x."""
    exact: bool = True
    """Put the known part in without noise after the last step (LDM does not)."""

    def before(self, x: Tensor, at: At, noise: StepNoise) -> Tensor:
        """x with the known part at the noise level of `at`."""
        return self._lay(add_noise(self.known, noise(x), at), x)

    def final(self, x0: Tensor) -> Tensor:
        """x0 with the known part itself."""
        return self._lay(laid_behind(self.known, x0), x0) if self.exact else x0

    def missing(self, x0: Tensor) -> Tensor:
        """P (known - x0)."""
        return self.project(laid_behind(self.known, x0) - x0)

    def _lay(self, over: Tensor, x: Tensor) -> Tensor:
        # In this order nothing of x is left where P is the identity, not its rounding either.
        return x - self.project(x) + self.project(over)


@dataclass(frozen=True, eq=False)
class HoldKnown:
    """Inpainting: x where mask is 0, alpha known + sigma z where it is 1; mixed between."""

    known: Tensor
    """(B, C, H, W) in the model's range; what the mask hides does not count."""
    mask: Tensor
    """Broadcasts to (B, C, H, W): 1 where the picture is known."""
    exact: bool = True
    """Put the known pixels in without noise after the last step, equal to the bit (LDM does not)."""

    def before(self, x: Tensor, at: At, noise: StepNoise) -> Tensor:
        """x with the known pixels at the noise level of `at`."""
        return self._lay(add_noise(self.known, noise(x), at), x)

    def final(self, x0: Tensor) -> Tensor:
        """x0 with the known pixels themselves."""
        return self._lay(laid_behind(self.known, x0), x0) if self.exact else x0

    def project(self, x: Tensor) -> Tensor:
        """The part of x where the picture is known, 0 elsewhere."""
        return self._seen(x) * x

    def missing(self, x0: Tensor) -> Tensor:
        """mask (known - x0)."""
        return self.project(laid_behind(self.known, x0) - x0)

    def _seen(self, x: Tensor) -> Tensor:
        return laid_behind(self.mask, x) if self.mask.ndim == x.ndim else self.mask

    def _lay(self, over: Tensor, x: Tensor) -> Tensor:
        mask = self._seen(x)
        return mask * over + (1 - mask) * x


@dataclass(frozen=True, eq=False)
class AtEnd:
    """Nothing during the walk, the known part after its last step: where something else steers towards it."""

    held: Constraint

    def before(self, x: Tensor, at: At, noise: StepNoise) -> Tensor:
        """x, and no noise drawn."""
        return x

    def final(self, x0: Tensor) -> Tensor:
        """x0 with the known part itself."""
        return self.held.final(x0)


def laid_behind(values: Tensor, x: Tensor) -> Tensor:
    """A batch as often behind itself as x has it: guidance and particles ask for several of each picture."""
    copies, rest = divmod(len(x), len(values))
    if rest:
        raise ValueError(
            f"{len(values)} known pictures for {len(x)} drawn ones; give one each, or one for all"
        )
    return values if copies == 1 else values.repeat(copies, *(1,) * (values.ndim - 1))


def hold_known(known: Tensor, mask: Tensor, *, exact: bool = True) -> HoldKnown:
    """Hold the pixels where mask (0..1, broadcast to known) is 1."""
    if mask.min() < 0 or mask.max() > 1:
        raise ValueError(f"mask runs from {mask.min():g} to {mask.max():g}; use 1 where known, 0 where not")
    return HoldKnown(known, mask.to(known), exact)


def hold_grey(known: Tensor, *, exact: bool = True) -> Hold:
    """Hold the mean over the channels, for colouring a grey picture: P x = mean over C."""
    return Hold(known, lambda x: x.mean(1, keepdim=True).expand_as(x), exact)


def hold_low_frequencies(known: Tensor, factor: int, *, exact: bool = True) -> Hold:
    """Hold the mean of every factor x factor block (ILVR, box filters): layout stays, detail is drawn."""
    height, width = known.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"factor={factor} does not divide {height}x{width}; use a common divisor of the two")

    def project(x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, factor), scale_factor=factor, mode="nearest")

    return Hold(known, project, exact)


def resampling_path(schedule: NoiseSchedule, like: Tensor, *, jump: int = 10, repeats: int = 10) -> list[At]:
    """Down the schedule, each stretch of `jump` entries `repeats` times: RePaint's path.

    Entries S-1, ..., 0, landing, with moves from 0, jump, 2 jump, ... `jump` up, which `run` re-noises.
    """
    if jump < 1 or repeats < 1:
        raise ValueError(f"jump={jump}, repeats={repeats}: use 1 or more of each (repeats=1 is a plain path)")
    left = dict.fromkeys(range(0, schedule.steps - jump, jump), repeats - 1)
    path, i = [], schedule.steps - 1
    while i >= -1:
        path.append(schedule.at(i, like))
        if left.get(i, 0) > 0:
            left[i] -= 1
            i += jump
        else:
            i -= 1
    return path

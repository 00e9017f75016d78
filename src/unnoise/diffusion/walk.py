"""The one sampling loop.

Resampling: Lugmayr et al. 2022 (RePaint), arXiv:2201.09865.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import Constraint
from unnoise.diffusion.guidance import Guide, fold_guide
from unnoise.diffusion.noise import Noise, StepNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At

State = Any
"""A multistep sampler's history; None where there is none."""


class Sampler(Protocol):
    """How x moves from one grid entry to the next. A frozen dataclass of options with a step."""

    order: ClassVar[int | None]
    """Order of convergence on smooth grids, None when stochastic."""
    shifts_mean: ClassVar[bool]
    """Takes a guide itself (ancestral); for all others `run` folds it into the denoiser."""
    ascends: ClassVar[bool]
    """Walks towards noise (inversion)."""

    def start(self) -> State:
        """The history before the first step."""
        ...

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        at: At,
        to: At,
        state: State,
        *,
        cond: Condition,
        noise: StepNoise,
        guide: Guide | None,
    ) -> tuple[Tensor, Prediction, State]:
        """Move x from `at` to `to`: the new x, the prediction it moved along, the new history."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """One move that was made."""

    index: int
    """Of the move in the path; jumps upward have an index and are not reported."""
    x: Tensor
    """Where it led."""
    prediction: Prediction
    """What it moved along."""


def run(
    sampler: Sampler,
    denoise: Denoise,
    x: Tensor,
    path: Sequence[At],
    *,
    cond: Condition,
    noise: Noise,
    guide: Guide | None = None,
    constraint: Constraint | None = None,
) -> Iterator[Step]:
    """Walk x (B, C, H, W) from path[0] to path[-1], reporting every step; the last one's x is the result.

    A move to a noisier entry re-noises x by the forward process and clears the history, unless the sampler
    ascends. x is kept in at least float32. Noise is asked for with the index of the move; no gradient is
    kept.
    """
    if guide is not None and not sampler.shifts_mean:
        denoise, guide = fold_guide(denoise, guide), None
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    state = sampler.start()
    for index, (at, to) in enumerate(zip(path, path[1:], strict=False)):
        draw = partial(noise, step=index)
        # Not around the yield: the caller's own gradients must stay on between steps.
        with torch.no_grad():
            if not sampler.ascends and to.alpha_bar[0] < at.alpha_bar[0]:
                x, state = jump(x, at, to, partial(draw, draw=2)), sampler.start()
                continue
            if constraint is not None:
                x = constraint.before(x, at, partial(draw, draw=1))
            x, prediction, state = sampler.step(
                denoise, x, at, to, state, cond=cond, noise=partial(draw, draw=0), guide=guide
            )
            if constraint is not None and index == len(path) - 2:
                x = constraint.final(x)
        yield Step(index, x, prediction)


def jump(x: Tensor, at: At, to: At, noise: StepNoise) -> Tensor:
    """A draw of q(x_to | x_at), `to` the noisier: sqrt(r) x + sqrt(1 - r) z, r the ratio of alpha_bar."""
    ratio = to.alpha_bar / at.alpha_bar
    return at.cast(ratio.sqrt()) * x + at.cast((1 - ratio).sqrt()) * noise(x)

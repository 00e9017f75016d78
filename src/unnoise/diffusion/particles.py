"""The twisted diffusion sampler: pictures with a known part, exact as particles and steps grow in number.

Wu, Trippe, Naesseth, Blei, Cunningham 2023, arXiv:2306.17775, Algorithm 1. Of x_i it guesses p(y | x_i) by
the twist N(P known; P x0, v_i), x0 predicted at x_i. K particles a picture are drawn from ancestral sampling
pulled by the twist's gradient; weights make up for what the pull and the guess get wrong. The target is the
model's own p(x_0) times the twist at entry 0, whose v_0 is all the noise that is left there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import Noise, StepNoise
from unnoise.diffusion.prediction import Denoise, reverse
from unnoise.diffusion.reconstruction import Known, look, pseudoinverse_move, unknown_variance
from unnoise.diffusion.samplers.ddpm import check_neighbours
from unnoise.diffusion.schedule import At


class KnownPart(Known, Protocol):
    """What is known of x0, and how it is put in; a `Hold` or a `HoldKnown`."""

    def final(self, x0: Tensor) -> Tensor:
        """x0 with the known part itself."""
        ...


@dataclass(frozen=True, eq=False)
class Cloud:
    """The particles of B pictures after one move."""

    index: int
    """Of the move in the path."""
    x: Tensor
    """(B, K, C, H, W)."""
    x0: Tensor
    """(B, K, C, H, W), what was predicted before the move."""
    log_weights: Tensor
    """(B, K) float64 on the CPU; the weights of a picture add up to 1."""

    @property
    def weights(self) -> Tensor:
        """(B, K) float64 on the CPU."""
        return self.log_weights.exp()

    @property
    def effective(self) -> Tensor:
        """(B,) the effective number of particles, 1 / sum of the squared weights."""
        return effective_count(self.log_weights)

    def drawn(self, noise: Noise) -> Tensor:
        """(B, C, H, W): one particle a picture, each as likely as its weight says; draw 5 of this move."""
        at = _uniform(len(self.x), partial(noise, step=self.index, draw=5))
        chosen = _found(self.weights, at)[:, 0]
        return self.x[torch.arange(len(self.x)), chosen.to(self.x.device)]


def run_particles(
    denoise: Denoise,
    held: KnownPart,
    x: Tensor,
    path: Sequence[At],
    *,
    cond: Condition,
    noise: Noise,
    variance: float = 1.0,
    threshold: float = 0.5,
    rows: int = 64,
) -> Iterator[Cloud]:
    """Walk K particles a picture from noise x (B, K, C, H, W) down neighbouring entries; report every move.

    `cond` and `path` are of the B pictures. `variance` is that of the data's pixels, for the twist (see
    `pigdm`). Where fewer than `threshold` K particles count, they are resampled (systematically; draw 4).
    About `rows` pictures go through the network at once, there and back. Noise is asked for (B, K, C, H, W).
    """
    _check(x, variance, threshold, rows)
    batch, count = x.shape[:2]
    x = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(0, 1)
    asked = _Asked(denoise, held, cond, variance, copies=min(count, max(1, rows // batch)))
    log_weights = torch.zeros(count, batch, dtype=torch.float64)
    for index, (at, to) in enumerate(zip(path, path[1:], strict=False)):
        check_neighbours(at, to)
        draw = partial(noise, step=index)
        with torch.no_grad():
            stand = asked(x, at)
            log_weights = (log_weights + stand.log_twist).log_softmax(0)
            few = effective_count(log_weights.T) < threshold * count
            if few.any():
                ancestors = _ancestors(log_weights.T, few, partial(draw, draw=4))
                stand = stand.take(ancestors)
                log_weights = torch.where(few, 0.0, log_weights).log_softmax(0)
            if index == len(path) - 2:
                x = held.final(_land(stand, at, to, partial(draw, draw=0)).flatten(0, 1)).view_as(x)
            else:
                x, correction = _propose(stand, partial(draw, draw=0))
        yield Cloud(index, x.transpose(0, 1), stand.x0.transpose(0, 1), log_weights.T)
        if index < len(path) - 2:
            log_weights = log_weights + correction - stand.log_twist


@dataclass(frozen=True, eq=False)
class _Stand:
    """What was worked out where the particles stand: (K, B, C, H, W), or (K, B, 1, 1, 1) for `std`."""

    x0: Tensor
    mean: Tensor
    """Of the model's own step."""
    shift: Tensor
    """How far the twist moves it."""
    std: Tensor
    log_twist: Tensor
    """(K, B) float64 on the CPU, up to a constant of the entry."""

    def take(self, ancestors: Tensor) -> "_Stand":
        """The same of the particles `ancestors` (K, B)."""
        pictures = torch.arange(ancestors.shape[1])
        return _Stand(
            **{
                name: value[ancestors.to(value.device), pictures.to(value.device)]
                for name, value in vars(self).items()
            }
        )


@dataclass(frozen=True, eq=False)
class _Asked:
    """The network asked about all particles, `copies` of the batch at once."""

    denoise: Denoise
    held: Known
    cond: Condition
    variance: float
    copies: int
    told: dict[int, Condition] = field(default_factory=dict)
    """`cond` behind itself, the same object at every step, for what is encoded once for each."""

    def __call__(self, x: Tensor, at: At) -> _Stand:
        parts = [self._some(some, at) for some in torch.split(x, self.copies)]
        return _Stand(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    def _some(self, x: Tensor, at: At) -> _Stand:
        copies, batch = x.shape[:2]
        if copies not in self.told:
            self.told[copies] = _behind(self.cond, copies)
        flat, places = x.flatten(0, 1), at.repeat(copies)
        seen = look(self.denoise, self.held, flat, places, self.told[copies])
        step = reverse(seen.prediction, flat, places)
        move = pseudoinverse_move(seen, self.held, places, self.variance)
        square = _sum(seen.missing.square())
        values = {
            "x0": seen.prediction.x0,
            "mean": step.mean,
            "shift": places.scales.coef_x0 * move,
            "std": (0.5 * step.log_variance).exp(),
            "log_twist": -square / (2 * unknown_variance(places, self.variance)),
        }
        return _Stand(
            **{name: value.reshape(copies, batch, *value.shape[1:]) for name, value in values.items()}
        )


def _behind(cond: Condition, copies: int) -> Condition:
    return cond.map(lambda value: value.repeat(copies, *(1,) * (value.ndim - 1)))


def _propose(stand: _Stand, noise: StepNoise) -> tuple[Tensor, Tensor]:
    """Draws of N(mean + shift, std^2), and the logarithm of N(mean, std^2) over it there, (K, B)."""
    z = noise(stand.mean.transpose(0, 1)).transpose(0, 1)
    off = stand.shift / stand.std
    return stand.mean + stand.shift + stand.std * z, -_sum(off * z + 0.5 * off**2, 2)


def _land(stand: _Stand, at: At, to: At, noise: StepNoise) -> Tensor:
    """The model's own last step, without noise where it lands at alpha_bar 1."""
    clean = to.alpha_bar == 1
    if clean.all():
        return stand.mean
    std = stand.std * at.cast((~clean).double())
    return stand.mean + std * noise(stand.mean.transpose(0, 1)).transpose(0, 1)


def _sum(values: Tensor, first: int = 1) -> Tensor:
    """Sum over all dimensions from `first` on, float64 on the CPU: logarithms of weights are differences."""
    return values.flatten(first).to("cpu", torch.float64).sum(first)


def effective_count(log_weights: Tensor) -> Tensor:
    """1 / sum of the squared weights, (B,), of logarithms (B, K) whose weights add up to 1."""
    return (-torch.logsumexp(2 * log_weights, 1)).exp()


def _uniform(pictures: int, noise: StepNoise) -> Tensor:
    """(B, 1) float64 in (0, 1), by the normal distribution of one number of noise each."""
    uniform: Tensor = torch.special.ndtr(noise(torch.empty(pictures, 1, dtype=torch.float64)))
    return uniform


def _found(weights: Tensor, places: Tensor) -> Tensor:
    """Which weight of each row (B, K) holds each of the places (B, N) in the sum of them."""
    # The last sum may be rounded to below a place.
    ends = weights.cumsum(1).contiguous()
    return torch.searchsorted(ends, places * ends[:, -1:]).clamp(max=weights.shape[1] - 1)


def _ancestors(log_weights: Tensor, few: Tensor, noise: StepNoise) -> Tensor:
    """(K, B): of the pictures `few` by systematic resampling, one uniform number each; else all stay."""
    batch, count = log_weights.shape
    places = (_uniform(batch, noise) + torch.arange(count)) / count
    found = _found(log_weights.exp(), places)
    return torch.where(few[:, None], found, torch.arange(count)).T


def _check(x: Tensor, variance: float, threshold: float, rows: int) -> None:
    if x.ndim != 5 or x.shape[1] < 1:
        raise ValueError(f"x is {tuple(x.shape)}; give (B, K, C, H, W), K particles a picture")
    if not variance > 0:
        raise ValueError(f"variance={variance} of the data's pixels is not positive; 1 is usual")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} is no share of the particles; use 0 (never) to 1")
    if rows < 1:
        raise ValueError(f"rows={rows} is too small; use 1 or more")

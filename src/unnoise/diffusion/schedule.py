"""How much noise a step holds: q(x_t | x0) = N(alpha x0, sigma^2), alpha^2 = alpha_bar = 1 - sigma^2.

DDPM: Ho, Jain, Abbeel 2020, arXiv:2006.11239. IDDPM (cosine): Nichol, Dhariwal 2021, arXiv:2102.09672.
LDM (scaled_linear, sqrt): Rombach et al. 2022, arXiv:2112.10752.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor


def linear_betas(steps: int, start: float | None = None, end: float | None = None) -> Tensor:
    """Betas equally spaced (DDPM section 4): 1e-4 to 0.02, both times 1000/steps unless they are given."""
    scale = 1000 / steps
    first, last = scale * 1e-4 if start is None else start, scale * 0.02 if end is None else end
    if start is None and end is None and last > 1:
        raise ValueError(
            f"steps={steps}: the linear schedule's last beta, 0.02 * 1000/steps = {last:.4g}, exceeds 1; "
            "use 20 steps or more, or give the first and the last beta"
        )
    return torch.linspace(first, last, steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """Betas of alpha_bar(u) = cos^2((u + 0.008) / 1.008 pi/2), u = t/steps, at most 0.999 (IDDPM Eq. 17)."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [alpha_bar((t + 1) / steps) / alpha_bar(t / steps) for t in range(steps)]
    return torch.tensor([min(1 - ratio, 0.999) for ratio in ratios], dtype=torch.float64)


def scaled_linear_betas(steps: int, start: float | None = None, end: float | None = None) -> Tensor:
    """Betas whose square roots are equally spaced, LDM's "linear": 1e-4 to 0.02 unless given."""
    first, last = 1e-4 if start is None else start, 0.02 if end is None else end
    return torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2


def sqrt_betas(steps: int, start: float | None = None, end: float | None = None) -> Tensor:
    """Square roots of equally spaced numbers, LDM's "sqrt": sqrt(1e-4) to sqrt(0.02) unless given."""
    first, last = 1e-4 if start is None else start, 0.02 if end is None else end
    return torch.linspace(first, last, steps, dtype=torch.float64) ** 0.5


SCHEDULES: dict[str, Callable[..., Tensor]] = {
    "linear": linear_betas,
    "cosine": cosine_betas,
    "scaled_linear": scaled_linear_betas,
    "sqrt": sqrt_betas,
}


MOST_STEPS = 1_000_000


def make_betas(name: str, steps: int, *, start: float | None = None, end: float | None = None) -> Tensor:
    """Betas of the named schedule, (steps,) float64; `start` and `end` are its ends, where it has them."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule={name!r} is unknown; use one of {', '.join(SCHEDULES)}")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(
            f"steps={steps} is not a number of diffusion steps; use 1 to {MOST_STEPS:,} (1000 is usual)"
        )
    if name == "cosine":
        if start is not None or end is not None:
            raise ValueError(
                "the cosine schedule has no first and last beta; leave them out or use another schedule"
            )
        return cosine_betas(steps)
    return SCHEDULES[name](steps, start, end)


@dataclass(frozen=True, eq=False)
class Scales:
    """Coefficients at one grid entry i, each (B, 1, 1, 1), at least float32, rounded once from float64.

    Those of the step i -> i-1 (from `coef_x0` on) are NaN at the landing and at pure noise, where no such
    step is.
    """

    alpha: Tensor
    """sqrt(alpha_bar): x_t = alpha x0 + sigma eps."""
    sigma: Tensor
    """sqrt(1 - alpha_bar)."""
    inv_alpha: Tensor
    """1 / alpha: x0 = inv_alpha x_t - sigma_ve eps."""
    sigma_ve: Tensor
    """sigma / alpha."""
    coef_x0: Tensor
    """Posterior mean = coef_x0 x0 + coef_xt x_t (DDPM Eq. 7)."""
    coef_xt: Tensor
    inv_coef_x0: Tensor
    """x0 = inv_coef_x0 mean - coef_ratio x_t, the same read backwards."""
    coef_ratio: Tensor
    variance: Tensor
    """Posterior variance (DDPM Eq. 7); 0 at i = 0 when sampling lands at alpha_bar 1."""
    log_variance: Tensor
    """Its logarithm, where it is 0 that of the next entry's."""
    log_beta: Tensor
    """Logarithm of beta, the upper bound of a learned variance (IDDPM Eq. 15)."""
    log_variance_large: Tensor
    """Logarithm of fixed_large: beta, but the second posterior variance at i = 0 (DDPM's code)."""


@dataclass(frozen=True, eq=False)
class At:
    """A place on a grid: all that a denoiser or a sampler needs to know about "when"."""

    schedule: "NoiseSchedule"
    i: Tensor
    """(B,) int64 on the CPU: -1 the landing, 0 the least noisy entry, S pure noise."""
    t: Tensor
    """(B,) float32, what the network is told; NaN at the two ends, where no network is called."""
    scales: Scales

    @property
    def alpha_bar(self) -> Tensor:
        """(B,) float64 on the CPU."""
        return self.schedule.levels[self.i + 1]

    def cast(self, values: Tensor) -> Tensor:
        """Coefficients (B,) float64 worked out on the CPU, rounded once: (B, 1, 1, 1) beside the scales."""
        alpha = self.scales.alpha
        # Rounded before it is moved: not every device knows float64.
        return values.to(alpha.dtype).to(alpha.device).view(alpha.shape)

    def repeat(self, copies: int) -> "At":
        """The same place for a batch laid `copies` times behind itself."""
        table = torch.stack(list(vars(self.scales).values()))
        scales = table.repeat(1, copies, *(1,) * (table.ndim - 2)).unbind()
        return At(self.schedule, self.i.repeat(copies), self.t.repeat(copies), Scales(*scales))


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """float64 tables on the CPU of a training process, or of a respaced one, or of any grid.

    Betas are the primary table: alpha_bar is their product from `alpha_bar_end` on. An entry with beta 1
    (zero signal) is allowed, as in the published code, but only a v-predicting network can be decoded there.
    """

    betas: Tensor
    """(S,) float64 in (0, 1]."""
    timesteps: Tensor
    """(S,) float64: what the network is told at each entry."""
    alpha_bar_start: float = 0.0
    """Beyond the noisiest entry, where DDIM inversion ends."""
    alpha_bar_end: float = 1.0
    """Where sampling lands: 1 in DDPM, ADM and DDIM, alpha_bar[0] of training in LDM's DDIM."""

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or len(self.betas) < 1 or self.betas.shape != self.timesteps.shape:
            raise ValueError(
                f"betas {tuple(self.betas.shape)} and timesteps {tuple(self.timesteps.shape)} "
                "must be two equally long rows with at least one entry"
            )
        assert self.betas.dtype == self.timesteps.dtype == torch.float64
        if not bool(((self.betas > 0) & (self.betas <= 1)).all()):
            worst = self.betas[(self.betas - 0.5).abs().nan_to_num(nan=math.inf).argmax()].item()
            raise ValueError(f"beta={worst:.6g} is outside (0, 1]; use a milder schedule or more steps")

    @staticmethod
    def from_betas(betas: Tensor, *, rescale: bool = False) -> "NoiseSchedule":
        """The process with these betas; the network is told t, or t * 1000/S (IDDPM's default)."""
        steps = len(betas)
        timesteps = torch.arange(steps, dtype=torch.float64)
        return NoiseSchedule(
            betas.to("cpu", torch.float64), timesteps * (1000 / steps) if rescale else timesteps
        )

    @property
    def steps(self) -> int:
        """S, the number of entries."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> Tensor:
        """(S,) float64, decreasing."""
        return self.alpha_bar_end * torch.cumprod(1 - self.betas, 0)

    @cached_property
    def levels(self) -> Tensor:
        """(S + 2,) float64: alpha_bar at i = -1, 0, ..., S-1, S."""
        ends = torch.tensor([self.alpha_bar_end, self.alpha_bar_start], dtype=torch.float64)
        return torch.cat([ends[:1], self.alpha_bar, ends[1:]])

    @cached_property
    def posterior_variance(self) -> Tensor:
        """(S,) float64: beta (1 - alpha_bar[i-1]) / (1 - alpha_bar[i]) (DDPM Eq. 7)."""
        return self.betas * (1 - self.levels[:-2]) / (1 - self.alpha_bar)

    def mixed_variance(self, share: float) -> Tensor:
        """(S,) float64: (1 - share) posterior variance + share beta, latent diffusion's v_posterior."""
        return (1 - share) * self.posterior_variance + share * self.betas

    @cached_property
    def posterior_log_variance(self) -> Tensor:
        """(S,) float64: its logarithm; at i = 0, where the variance may be 0, that of i = 1 (ADM)."""
        variance = self.posterior_variance.clone()
        if variance[0] == 0:
            # A one-step process has no second entry: the forward variance is all there is.
            variance[0] = variance[1] if self.steps > 1 else self.betas[0]
        return variance.log()

    @cached_property
    def posterior_coefficients(self) -> tuple[Tensor, Tensor]:
        """Factors of x0 and x_t in the posterior mean (DDPM Eq. 7), (S,) float64 each."""
        previous, rest = self.levels[:-2], 1 - self.alpha_bar
        return self.betas * previous.sqrt() / rest, (1 - previous) * (1 - self.betas).sqrt() / rest

    @cached_property
    def log_variance_large(self) -> Tensor:
        """(S,) float64: log beta, at i = 0 the posterior's (DDPM's "fixedlarge")."""
        return torch.cat([self.posterior_log_variance[:1], self.betas[1:].log()])

    def respaced(self, keep: Tensor | Sequence[int], *, end: float = 1.0) -> "NoiseSchedule":
        """The process that visits only the entries `keep` (increasing), landing at alpha_bar `end`.

        betas = 1 - alpha_bar[k] / alpha_bar[previous k] (IDDPM Eq. 19); the network is still told the old
        timesteps.
        """
        kept = torch.as_tensor(keep, dtype=torch.int64)
        if kept.ndim != 1 or len(kept) < 1 or bool((kept.diff() <= 0).any()):
            raise ValueError(f"keep={kept.tolist()} must be an increasing row of at least one entry")
        if kept[0] < 0 or kept[-1] >= self.steps:
            raise ValueError(f"keep={kept[0]}..{kept[-1]} leaves the schedule's entries 0..{self.steps - 1}")
        alpha_bar = self.alpha_bar[kept]
        if alpha_bar[0] >= end:
            raise ValueError(
                f"entry {kept[0]} has alpha_bar {alpha_bar[0]:.6g}, not below the landing at {end:.6g}; "
                "drop that entry or land nearer to 1"
            )
        previous = torch.cat([torch.tensor([end], dtype=torch.float64), alpha_bar[:-1]])
        betas = 1 - alpha_bar / previous
        # Signal that is there must not round to none, as on a long move down a steep schedule.
        betas = torch.where(alpha_bar > 0, betas.clamp(max=1 - 2**-53), betas)
        return NoiseSchedule(betas, self.timesteps[kept], self.alpha_bar_start, end)

    @cached_property
    def _table(self) -> Tensor:
        """(fields of Scales, S + 2) float64."""
        levels, nan = self.levels, torch.full((1,), math.nan, dtype=torch.float64)
        coef_x0, coef_xt = self.posterior_coefficients
        marginal = [levels.sqrt(), (1 - levels).sqrt(), (1 / levels).sqrt(), (1 / levels - 1).sqrt()]
        steps = [
            *(coef_x0, coef_xt, 1 / coef_x0, coef_xt / coef_x0),
            *(self.posterior_variance, self.posterior_log_variance),
            *(self.betas.log(), self.log_variance_large),
        ]
        return torch.stack(marginal + [torch.cat([nan, row, nan]) for row in steps])

    def table(self, name: str) -> Tensor:
        """One of the fields of `Scales` over all entries, (S,) float64."""
        return self._table[[field.name for field in fields(Scales)].index(name), 1:-1]

    @cached_property
    def _cast(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]]:
        return {}

    def _tables(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Table and timesteps on a device, cast once and kept: a lookup must cost a training step nothing."""
        if (device, dtype) not in self._cast:
            nan = torch.full((1,), math.nan, dtype=torch.float64)
            times = torch.cat([nan, self.timesteps, nan])
            self._cast[device, dtype] = self._table.to(dtype).to(device), times.float().to(device)
        return self._cast[device, dtype]

    def at(self, i: int | Tensor, like: Tensor) -> At:
        """The entry i (one for all, or (B,) int64) for a batch shaped, placed and typed as `like`.

        i = -1 is the landing, i = S pure noise.
        """
        batch, shape = like.shape[0], (-1, like.shape[0]) + (1,) * (like.ndim - 1)
        table, times = self._tables(like.device, torch.promote_types(like.dtype, torch.float32))
        least, most = (i, i) if isinstance(i, int) else (int(i.min()), int(i.max()))
        if least < -1 or most > self.steps:
            raise IndexError(
                f"i={least}..{most} leaves the schedule of {self.steps} steps; use -1..{self.steps}"
            )
        if isinstance(i, int):
            columns, t = table[:, i + 1 : i + 2].expand(-1, batch), times[i + 1 : i + 2].expand(batch)
            index = torch.full((batch,), i)
        else:
            index = i.to("cpu", torch.int64)
            assert index.shape == (batch,)
            place = (index + 1).to(like.device)
            columns, t = table.index_select(1, place), times.index_select(0, place)
        return At(self, index, t, Scales(*columns.reshape(shape).unbind()))

    def path(self, like: Tensor, *, start: int | None = None) -> list[At]:
        """Entries start, start-1, ..., 0 and the landing: what `run` walks; `start` is S-1 unless given."""
        return [self.at(i, like) for i in range(self.steps - 1 if start is None else start, -2, -1)]

    def ascent(self, like: Tensor, *, start: int = 0, stop: int | None = None) -> list[At]:
        """Entries start, ..., stop (S-1 unless given, S: pure noise): what DDIM inversion walks.

        From 0 as published, from -1 all of `path` backwards.
        """
        return [self.at(i, like) for i in range(start, (self.steps - 1 if stop is None else stop) + 1)]


def add_noise(x0: Tensor, eps: Tensor, at: At) -> Tensor:
    """A draw of q(x_t | x0) = alpha x0 + sigma eps (DDPM Eq. 4). x0, eps: (B, C, H, W)."""
    return at.scales.alpha * x0 + at.scales.sigma * eps

"""How far ways of drawing what is not known of a picture are from the posterior, where that is known exactly.

    python scripts/posteriors.py --out posteriors.svg

The data are a mixture of four normals over 2x2 pixels of three channels, whose denoiser, step variance and
posterior have closed forms. A picture is seen through a mask (one pixel of four), in grey (the mean of the
channels) or in small (the mean of the pixels). Every way draws the rest with ancestral sampling; what its
draws' mean and covariance miss of the exact ones is set against its calls of the network a picture, in units
of the posterior's own spread. Monte-Carlo noise is not counted as error; intervals are 95 % (jackknife).
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unnoise.chart import Chart, Curve, svg
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import (
    AtEnd,
    Hold,
    HoldKnown,
    hold_grey,
    hold_known,
    hold_low_frequencies,
    resampling_path,
)
from unnoise.diffusion.particles import run_particles
from unnoise.diffusion.prediction import Denoise, Prediction, eps_from_x0
from unnoise.diffusion.reconstruction import dps, pigdm
from unnoise.diffusion.samplers import Ddpm
from unnoise.diffusion.schedule import At, NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.walk import run

SHAPE = (3, 2, 2)
GROUPS = 20
"""Of the jackknife."""
SOME = 2000
"""Pictures or particles walked at once."""
Held = Hold | HoldKnown


@dataclass(frozen=True)
class Mixture:
    """Weights (K,), means (K, D), variances (K,): its pixels, flattened, are independent in a component."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __call__(self, x: Tensor, at: At, cond: Condition) -> Prediction:
        """E[x0 | x_t] and the best variance of a step, as a network that learned both would say them."""
        alpha, sigma = (scale.flatten()[:, None, None] for scale in (at.scales.alpha, at.scales.sigma))
        flat, variances = x.flatten(1)[:, None], self.variances[:, None]
        noisy = alpha**2 * variances + sigma**2
        off = flat - alpha * self.means
        log_share = self.weights.log() - (off**2 / (2 * noisy) + noisy.log() / 2).sum(2)
        share = log_share.softmax(1)[..., None]
        experts = self.means + alpha * variances / noisy * off
        x0 = (share * experts).sum(1)
        spread = (share * (variances * sigma**2 / noisy + (experts - x0[:, None]) ** 2)).sum(1).view_as(x)
        x0 = x0.view_as(x)
        known = torch.where((at.i == 0).view(at.scales.alpha.shape), 0, at.scales.variance)
        log_variance = (known + at.scales.coef_x0**2 * spread).log()
        return Prediction(x0, eps_from_x0(x, x0, at), log_variance=log_variance)

    def posterior(self, held: Held) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of a picture that looks like the known one (1, C, H, W)."""
        size = self.means.shape[1]
        eye = torch.eye(size, dtype=torch.float64)
        seen = held.project(eye.view(size, *held.known.shape[1:])).flatten(1)
        off = (held.known.flatten(1) - self.means) @ seen
        fit = off.square().sum(1) / self.variances + seen.trace() * self.variances.log()
        weights = (self.weights.log() - fit / 2).softmax(0)
        means = self.means + off
        mean = weights @ means
        between = torch.einsum("k,kd,ke->de", weights, means - mean, means - mean)
        return mean, between + (weights @ self.variances) * (eye - seen)

    def draw(self, generator: torch.Generator) -> Tensor:
        """One picture of its second component."""
        z = torch.randn(self.means.shape[1], generator=generator, dtype=torch.float64)
        return (self.means[1] + self.variances[1].sqrt() * z).view(1, *SHAPE)


def data(seed: int) -> tuple[Mixture, dict[str, Held]]:
    """The mixture, and the three ways in which a picture of it is seen."""
    generator = torch.Generator().manual_seed(seed)
    means = 0.6 * torch.randn(4, 12, generator=generator, dtype=torch.float64)
    weights, variances = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.03, 0.05, 0.08, 0.04]], dtype=torch.float64)
    mixture = Mixture(weights, means, variances)
    known = mixture.draw(generator)
    return mixture, {
        "a pixel of four is known": hold_known(known, torch.tensor([[1.0, 0.0], [0.0, 0.0]])),
        "grey is known": hold_grey(known),
        "the mean of the pixels is known": hold_low_frequencies(known, 2),
    }


Pictures = tuple[Tensor, Tensor]
"""Draws (N, K, D) and their weights (N, K): one independent estimate a row."""
PARTICLES = "particles"


@dataclass(frozen=True)
class Way:
    """One way at one price."""

    name: str
    setting: str
    calls: int
    """Of the network, a picture."""
    draw: Callable[[int], Pictures]
    """So many rows."""


@dataclass(frozen=True)
class Bench:
    """What all ways share: the data, what is known, and noise."""

    data: Mixture
    held: Held
    generator: torch.Generator

    def noise(self, like: Tensor, *, step: int, draw: int) -> Tensor:
        """Unit noise, whatever it is for."""
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def schedule(self, steps: int) -> NoiseSchedule:
        """DDPM's, in so many steps."""
        return NoiseSchedule.from_betas(make_betas("linear", 1000)).respaced(space(steps, 1000))

    def way(
        self,
        name: str,
        setting: str,
        denoise: Denoise,
        constraint: Held | AtEnd,
        steps: int,
        path: Callable[[NoiseSchedule, Tensor], list[At]] = NoiseSchedule.path,
    ) -> Way:
        """One that walks one picture a row."""
        schedule = self.schedule(steps)

        def draw(rows: int) -> Pictures:
            x = self.noise(torch.empty(rows, *SHAPE, dtype=torch.float64), step=-1, draw=0)
            *_, end = run(
                Ddpm(), denoise, x, path(schedule, x),
                cond=Condition(), noise=self.noise, constraint=constraint,
            )  # fmt: skip
            return end.x.view(rows, 1, -1), torch.ones(rows, 1, dtype=torch.float64)

        entries = path(schedule, torch.empty(1, *SHAPE))
        calls = sum(bool(to.i[0] < at.i[0]) for at, to in zip(entries, entries[1:], strict=False))
        return Way(name, setting, calls, draw)

    def cloud(self, count: int, steps: int, variance: float, rows: int) -> Pictures:
        """One cloud of particles a row."""
        x = self.noise(torch.empty(rows, count, *SHAPE, dtype=torch.float64), step=-1, draw=0)
        *_, end = run_particles(
            self.data, self.held, x, self.schedule(steps).path(x[:, 0]),
            cond=Condition(), noise=self.noise, variance=variance, rows=SOME,
        )  # fmt: skip
        return end.x.flatten(2), end.weights


def ways(bench: Bench, chosen: argparse.Namespace) -> Iterator[Way]:
    """Every way at every price."""
    held, end = bench.held, AtEnd(bench.held)
    for steps in chosen.steps:
        yield bench.way("replacement", f"{steps} steps", bench.data, held, steps)
    for repeats in chosen.repeats:
        again = partial(resampling_path, jump=chosen.jump, repeats=repeats)
        setting = f"{chosen.base} steps, {repeats} repeats"
        yield bench.way("RePaint", setting, bench.data, held, chosen.base, again)
    for scale in chosen.scales:
        pulled = dps(bench.data, held, scale=scale)
        for steps in chosen.steps:
            yield bench.way(f"DPS, scale {scale:g}", f"{steps} steps", pulled, end, steps)
    pulled = pigdm(bench.data, held, variance=chosen.variance)
    for steps in chosen.steps:
        yield bench.way("PiGDM", f"{steps} steps", pulled, end, steps)
    for count in chosen.particles:
        draw = partial(bench.cloud, count, chosen.base, chosen.variance)
        yield Way(PARTICLES, f"{chosen.base} steps, {count}", count * chosen.base, draw)


@dataclass(frozen=True)
class Error:
    """A size and its 95 % interval."""

    size: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.size:.3f} ({self.low:.3f} to {self.high:.3f})"


def size_of(rows: Tensor) -> Error:
    """|E row| of independent rows (N, D), without what their mean's noise adds to it.

    |mean|^2 less its expected noise is an unbiased square, whose root is taken where it is positive.
    """
    groups = torch.stack([group.mean(0) for group in rows.tensor_split(GROUPS)])

    def square(means: Tensor) -> Tensor:
        count = len(means)
        return (means.sum(0).square().sum() - means.square().sum()) / (count * (count - 1))

    whole = square(groups)
    left_out = torch.stack([square(torch.cat([groups[:k], groups[k + 1 :]])) for k in range(GROUPS)])
    error = ((GROUPS - 1) * (left_out - left_out.mean()).square().mean()).sqrt()
    return Error(*(v.clamp(min=0).sqrt().item() for v in (whole, whole - 2 * error, whole + 2 * error)))


def errors(x: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor) -> dict[str, Error]:
    """Of the mean, in standard deviations, and of the covariance, in shares of the exact one."""
    off = x - mean
    means = torch.einsum("nk,nkd->nd", weights, off)
    squares = torch.einsum("nk,nkd,nke->nde", weights, off, off)
    found = squares - torch.outer(means.mean(0), means.mean(0)) - covariance
    return {
        "mean": size_of(means / covariance.trace().sqrt()),
        "covariance": size_of(found.flatten(1) / covariance.norm()),
    }


Row = tuple[Way, dict[str, Error]]
"""One line of the table: errors by name."""


def measure(bench: Bench, chosen: argparse.Namespace) -> list[Row]:
    """Every way's errors, printed as they come."""
    mean, covariance = bench.data.posterior(bench.held)
    rows = []
    for way in ways(bench, chosen):
        # As many clouds as there would be pictures at the price of one particle.
        count = max(chosen.clouds, chosen.n * chosen.base // way.calls) if way.name == PARTICLES else chosen.n
        some = [min(SOME, count - first) for first in range(0, count, SOME)]
        x, weights = (torch.cat(parts) for parts in zip(*map(way.draw, some), strict=True))
        found = errors(x, weights, mean, covariance)
        rows.append((way, found))
        print("|", " | ".join(map(str, (way.name, way.setting, way.calls, *found.values()))), "|", flush=True)
    return rows


def panel(name: str, rows: list[Row], what: str) -> Chart:
    """One chart: a curve a way."""
    curves = []
    for way in dict.fromkeys(way.name for way, _ in rows):
        mine = [(each.calls, found[what]) for each, found in rows if each.name == way]
        spans = [(error.low, error.high) for _, error in mine]
        x, y = [calls for calls, _ in mine], [error.size for _, error in mine]
        curves.append(Curve(name=way, x=x, y=y, y_spans=spans, marked=True))
    return Chart(
        curves=curves, x_label=f"calls of the network a picture: {name}", y_label=f"error of the {what}",
        caption=f"Error of the {what} where {name}", log_x=True, width=620, height=300,
    )  # fmt: skip


def together(charts: list[list[Chart]]) -> str:
    """Rows of charts as one picture."""
    width, height = charts[0][0].width, charts[0][0].height
    parts = [
        svg(chart, alone=True).replace("<svg ", f'<svg x="{width * column}" y="{height * line}" ', 1)
        for line, row in enumerate(charts)
        for column, chart in enumerate(row)
    ]
    size = f'width="{width * len(charts[0])}" height="{height * len(charts)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>\n'


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    found.add_argument("--out", type=Path, help="the figure, an SVG")
    found.add_argument("-n", type=int, default=3000, help="pictures a point")
    found.add_argument("--clouds", type=int, default=500, help="clouds of particles a point, at least")
    found.add_argument("--steps", type=int, nargs="+", default=(10, 25, 50, 100, 200))
    found.add_argument("--base", type=int, default=50, help="steps of RePaint and of particles")
    found.add_argument("--jump", type=int, default=5, help="of RePaint")
    found.add_argument("--repeats", type=int, nargs="+", default=(2, 4, 8))
    found.add_argument("--scales", type=float, nargs="+", default=(2.0, 10.0), help="of DPS")
    found.add_argument("--variance", type=float, default=0.1, help="of PiGDM and particles")
    found.add_argument("--particles", type=int, nargs="+", default=(1, 2, 4, 8, 16, 32))
    found.add_argument("--seed", type=int, default=0)
    return found


def main() -> None:
    """The command line."""
    chosen = parser().parse_args()
    mixture, known = data(chosen.seed)
    charts = []
    for name, held in known.items():
        print(f"\n{name}\n\n| way | setting | calls | mean | covariance |\n|---|---|---|---|---|")
        bench = Bench(mixture, held, torch.Generator().manual_seed(chosen.seed + 1))
        rows = measure(bench, chosen)
        charts.append([panel(name, rows, what) for what in ("mean", "covariance")])
    if chosen.out:
        chosen.out.write_text(together(charts), encoding="utf-8")


if __name__ == "__main__":
    main()

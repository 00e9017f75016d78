"""Which steps of the training process a sampler visits.

Sections and ddimN follow Improved DDPM's code (arXiv:2102.09672), quad DDIM's (arXiv:2010.02502), trailing
Lin et al. 2023 (arXiv:2305.08891). Equal steps in log-SNR: Lu et al. 2022 (DPM-Solver, arXiv:2206.00927);
Karras et al. 2022 (arXiv:2206.00364).
"""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.diffusion.schedule import NoiseSchedule

RHO = 7
"""Karras et al. Eq. 5."""


def grid(spec: str | int, schedule: NoiseSchedule) -> NoiseSchedule:
    """The process that sampling walks: `schedule` respaced by `space(spec)`, or a grid of its own.

    "logsnr20": log(sigma_ve) in equal steps from the noisiest entry to the least noisy one (DPM-Solver
    section 3.3); "karras20": sigma_ve^(1/7) in equal steps (Karras et al. Eq. 5). The network is told the t
    between training steps that belongs to a noise level, interpolated over log(sigma_ve). "ldm50" and
    "ldmquad50" are latent diffusion's: its steps, landing at the least noisy entry instead of at a picture.
    """
    shifted = re.fullmatch(r"(ldm|ldmquad)\s*(\d+)", str(spec).strip())
    if shifted:
        check_count(int(shifted[2]), schedule.steps, shifted[0])
        keep = {"ldm": ldm, "ldmquad": ldm_quad}[shifted[1]](int(shifted[2]), schedule.steps)
        return schedule.respaced(keep, end=schedule.alpha_bar[0].item())
    named = re.fullmatch(r"(logsnr|karras)\s*(\d+)", str(spec).strip())
    if not named:
        return schedule.respaced(space(spec, schedule.steps))
    count = int(named[2])
    check_count(count, schedule.steps, named[0])
    known = (1 / schedule.alpha_bar - 1).sqrt()
    if bool(known[-1].isinf()):
        raise ValueError(
            f"steps={named[0]}: the noisiest training step holds no signal, so its log-SNR has no bound; "
            f"use trailing{count}"
        )
    u = torch.linspace(1, 0, count, dtype=torch.float64).flip(0)  # a single step is the noisiest
    least, most = known[0], known[-1]
    if named[1] == "logsnr":
        sigma_ve = (least.log() + u * (most / least).log()).exp()
    else:
        sigma_ve = (least ** (1 / RHO) + u * (most ** (1 / RHO) - least ** (1 / RHO))) ** RHO
    alpha_bar = 1 / (1 + sigma_ve**2)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    return NoiseSchedule(
        1 - alpha_bar / before,
        interpolate(sigma_ve.log(), known.log(), schedule.timesteps),
        schedule.alpha_bar_start,
    )


def interpolate(at: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """The broken line through (xs, ys), xs increasing, at the points `at`; its ends' values beyond them."""
    if len(xs) == 1:
        return ys.expand(len(at)).clone()
    right = torch.searchsorted(xs, at).clamp(1, len(xs) - 1)
    share = (at - xs[right - 1]) / (xs[right] - xs[right - 1])
    return torch.lerp(ys[right - 1], ys[right], share.clamp(0, 1))


def space(spec: str | int, steps: int) -> Tensor:
    """Entries of a process of `steps` steps that `spec` keeps: int64, increasing.

    spec: a count 1..steps ("250" or "even250"), counts for equal sections from the least noisy one on
    ("90,60,60,20,20"), "ddim25" (an integer stride from 0), "uniform50", "quad50", "trailing50"; "" keeps
    all.
    """
    text = str(spec).strip()
    if not text:
        return torch.arange(steps)
    named = re.fullmatch(r"(ddim|uniform|quad|trailing|even)\s*(\d+)", text)
    if named:
        count = int(named[2])
        if named[1] == "ddim":
            return ddim(count, steps)
        check_count(count, steps, text)
        return {"uniform": uniform, "quad": quad, "trailing": trailing, "even": even}[named[1]](count, steps)
    if not re.fullmatch(r"\d+(\s*,\s*\d+)*", text):
        raise ValueError(
            f'steps={text!r} is not a respacing; use a count such as "250", sections ("90,60,60,20,20"),'
            ' "even25", "ddim25", "uniform50", "quad50" or "trailing50" (for drawing also "logsnr20", '
            '"karras20" or "ldm50")'
        )
    plain = plain_count(text)
    if plain is not None:
        check_count(plain, steps, text)
        return even(plain, steps)
    return sections([int(each) for each in text.split(",")], steps)


def plain_count(spec: str | int) -> int | None:
    """The count where `spec` is nothing but one, which leaves open how its steps are spaced."""
    text = str(spec).strip()
    return int(text) if re.fullmatch(r"\d+", text) else None


def check_count(count: int, steps: int, text: str) -> None:
    """Refuse a count that is not 1..steps."""
    if not 1 <= count <= steps:
        verb = "exceeds" if count > steps else "keeps none of"
        raise ValueError(f"steps={text} {verb} the {steps} training steps; use 1..{steps}")


def sections(counts: Sequence[int], steps: int) -> Tensor:
    """counts[k] entries, equally spaced with both ends, of the k-th of len(counts) nearly equal sections."""
    if sum(counts) < 1:
        raise ValueError(f"steps={','.join(map(str, counts))} keeps no step; ask for at least one")
    kept: list[int] = []
    first = 0
    for k, count in enumerate(counts):
        size = steps // len(counts) + (k < steps % len(counts))
        if count > size:
            raise ValueError(
                f"steps={','.join(map(str, counts))} asks for {count} of the {size} training steps in "
                f"section {k + 1} of {len(counts)}; use at most {size} there, or fewer sections"
            )
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        place = 0.0
        for _ in range(count):
            kept.append(first + round(place))
            place += (
                stride  # accumulated and rounded half to even, as the original: the kept steps depend on it
            )
        first += size
    return torch.tensor(sorted(set(kept)))


def ddim(count: int, steps: int) -> Tensor:
    """0, stride, 2 stride, ... with the least stride below `steps` giving exactly `count` (ADM's "ddimN")."""
    for stride in range(1, steps):
        if len(range(0, steps, stride)) == count:
            return torch.arange(0, steps, stride)
    possible = sorted({len(range(0, steps, stride)) for stride in range(1, steps)})
    near = sorted(possible, key=lambda n: (abs(n - count), n))[:2]
    way = f"ddim{' or ddim'.join(map(str, sorted(near)))}" if near else "1"
    also = f', or "{count}" or "uniform{count}", which need no such stride' if 1 <= count <= steps else ""
    raise ValueError(
        f"steps=ddim{count}: no integer stride keeps {count} of {steps} training steps; use {way}{also}"
    )


def uniform(count: int, steps: int) -> Tensor:
    """floor(k steps / count): DDIM's uniform steps, for every count."""
    return torch.tensor([k * steps // count for k in range(count)])


def quad(count: int, steps: int) -> Tensor:
    """floor(u^2), u equally spaced from 0 to sqrt(0.8 steps): DDIM's quadratic steps, repeats moved up."""
    kept: list[int] = []
    for place in _squares(count, steps):
        kept.append(max(place, kept[-1] + 1 if kept else 0))
    return torch.tensor(kept)


def even(count: int, steps: int) -> Tensor:
    """`count` entries, equally spaced with both ends: one section of ADM's."""
    return sections([count], steps)


def trailing(count: int, steps: int) -> Tensor:
    """round(steps - k steps / count) - 1: ends on the noisiest step, which the others may leave out."""
    return torch.tensor(sorted(round(steps - k * steps / count) - 1 for k in range(count)))


def ldm(count: int, steps: int) -> Tensor:
    """0, stride, 2 stride, ... + 1, stride = floor(steps / count): latent diffusion's DDIM steps.

    More of them than asked where count does not divide steps (30 of 1000 are 31). Where the last would be
    `steps`, beyond the schedule, the original crashes; here it is the noisiest step.
    """
    return _shifted(torch.arange(0, steps, steps // count), steps)


def ldm_quad(count: int, steps: int) -> Tensor:
    """floor(u^2) + 1, u equally spaced from 0 to sqrt(0.8 steps): latent diffusion's quadratic DDIM steps.

    Its repeats are left out: they change nothing.
    """
    return _shifted(torch.tensor(_squares(count, steps)), steps)


def _squares(count: int, steps: int) -> list[int]:
    """floor(u^2), u from 0 to sqrt(0.8 steps): multiples of a stride and the exact end, as numpy's linspace.

    Where u^2 is all but whole the rounding counts, and torch.linspace rounds otherwise.
    """
    top = math.sqrt(0.8 * steps)
    stride = top / max(count - 1, 1)
    places = [k * stride for k in range(count - 1)] + [top if count > 1 else 0.0]
    return [int(u * u) for u in places]


def _shifted(places: Tensor, steps: int) -> Tensor:
    return torch.tensor(sorted({min(place + 1, steps - 1) for place in places.tolist()}))

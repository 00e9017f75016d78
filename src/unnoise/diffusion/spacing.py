"""Which steps of the training process a sampler visits.

Sections and ddimN follow Improved DDPM's code (arXiv:2102.09672), quad DDIM's (arXiv:2010.02502), trailing
Lin et al. 2023 (arXiv:2305.08891).
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor


def space(spec: str | int, steps: int) -> Tensor:
    """Entries of a process of `steps` steps that `spec` keeps: int64, increasing.

    spec: a count 1..steps ("250"), counts for equal sections from the least noisy one on ("90,60,60,20,20"),
    "ddim25" (an integer stride from 0), "uniform50", "quad50", "trailing50"; "" keeps all.
    """
    text = str(spec).strip()
    if not text:
        return torch.arange(steps)
    named = re.fullmatch(r"(ddim|uniform|quad|trailing)\s*(\d+)", text)
    if named:
        count = int(named[2])
        if named[1] == "ddim":
            return ddim(count, steps)
        check_count(count, steps, text)
        return {"uniform": uniform, "quad": quad, "trailing": trailing}[named[1]](count, steps)
    if not re.fullmatch(r"\d+(\s*,\s*\d+)*", text):
        raise ValueError(
            f'steps={text!r} is not a respacing; use a count such as "250", sections ("90,60,60,20,20"),'
            ' "ddim25", "uniform50", "quad50" or "trailing50"'
        )
    counts = [int(count) for count in text.split(",")]
    if len(counts) == 1:
        check_count(counts[0], steps, text)
    return sections(counts, steps)


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
    top = (0.8 * steps) ** 0.5
    stride = top / (count - 1) if count > 1 else 0.0
    places = [k * stride for k in range(count - 1)] + [top if count > 1 else 0.0]
    kept: list[int] = []
    for place in places:
        kept.append(max(int(place**2), kept[-1] + 1 if kept else 0))
    return torch.tensor(kept)


def trailing(count: int, steps: int) -> Tensor:
    """round(steps - k steps / count) - 1: ends on the noisiest step, which the others may leave out."""
    return torch.tensor(sorted(round(steps - k * steps / count) - 1 for k in range(count)))

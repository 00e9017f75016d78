"""Which training steps to spend a budget of calls on: the counts of equal sections that ADM chose by hand
(90,60,60,20,20; Dhariwal & Nichol 2021, arXiv 2105.05233) found by measuring.

Calls are moved between sections, starting from equal counts. All candidates grow from the same noise, so that
a small difference shows on few pictures; most are dropped after a quarter of them (successive halving). The
winner is compared with uniform steps on fresh noise, which the search has not seen.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unnoise.config.studies import SearchRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.prediction import Prediction
from unnoise.diffusion.schedule import At
from unnoise.diffusion.walk import run
from unnoise.distributed import choose_device
from unnoise.gan import GanModel
from unnoise.generate import draw
from unnoise.metrics.evaluate import check_most
from unnoise.metrics.features import Names
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.intervals import Z, frechet_difference_error, frechet_error
from unnoise.metrics.statistics import Moments
from unnoise.model import Model
from unnoise.outputs import check_folder
from unnoise.planning import Plan, plan
from unnoise.store import identity
from unnoise.studies.models import open_model
from unnoise.studies.points import Stage, Yardstick, digest, open_yardstick
from unnoise.studies.searched import Compared, Search, Trial
from unnoise.tensorfile import write_tensors

FEATURES = "features"
CHUNK = 128
"""Pictures between two savings of a candidate's features."""
KEEP = 3
"""One of so many candidates goes on to more pictures."""
Counts = tuple[int, ...]
Say = Callable[[str], None]
Distance = Callable[[Counts, int], float]
"""(candidate, pictures) -> distance to the reference."""


def spelt(counts: Counts) -> str:
    """As `steps` of a request."""
    return ",".join(map(str, counts))


def calls_of(ready: Plan) -> int:
    """How often a picture goes through the network on its way; a step under guidance counts once."""
    calls = 0

    def count(x: Tensor, at: At, cond: Condition) -> Prediction:
        nonlocal calls
        calls += 1
        return Prediction(torch.zeros_like(x), x)

    like = torch.zeros(1, 1, 1, 1)
    noise = SeededNoise(0, [0])
    for _ in run(ready.sampler, count, like, ready.schedule.path(like), cond=Condition(), noise=noise):
        pass
    return calls


def steps_within(calls: int, model: Model, request: SearchRequest) -> int:
    """The most steps that the request's sampler takes with this many calls."""
    most = min(calls, model.schedule.steps)
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        ready = plan(model, replace(request.generate, steps=str(middle)))
        low, high = (middle, high) if calls_of(ready) <= calls else (low, middle)
    if low == 0:
        raise ValueError(
            f"calls={calls} are not enough for a step of sampler {request.generate.sampler}; allow more"
        )
    return low


class Candidates:
    """Features of pictures drawn by any steps; kept, and lengthened when more are asked for."""

    def __init__(
        self,
        request: SearchRequest,
        model: Model,
        weights: str,
        yardstick: Yardstick,
        out: Path,
        stage: Stage,
    ) -> None:
        self.request, self.model, self.weights = request, model, weights
        self.yardstick, self.out, self.stage = yardstick, out, stage

    def features(self, steps: str, n: int, *, seed: int) -> Tensor:
        """(n, D) of the first n pictures of a seed."""
        wanted = replace(self.request.generate, steps=steps, seed=seed, n=n, first=0, device="auto")
        ready = plan(self.model, wanted)
        network = self.yardstick.network
        key = digest([identity(ready, self.weights), network.name, network.weights_hash])
        path = self.out / FEATURES / f"{key[:16]}.safetensors"
        found = self._stored(path)
        while found is None or len(found) < n:
            begin = 0 if found is None else len(found)
            end = min(n, begin + CHUNK)
            batches = draw(ready, range(begin, end))
            new = torch.cat([network(batch.pixels).frechet.float().cpu() for batch in batches])
            found = new if found is None else torch.cat([found, new])
            write_tensors(path, {FEATURES: found}, {"steps": steps, "seed": str(seed)})
            self.stage(f"drawing {steps}", end, n)
        return found[:n]

    @staticmethod
    def _stored(path: Path) -> Tensor | None:
        try:
            return load_file(path)[FEATURES] if path.exists() else None
        except (SafetensorError, KeyError):
            return None

    def distance(self, steps: str, n: int, *, seed: int) -> float:
        """To the reference, of n pictures."""
        features = self.features(steps, n, seed=seed)
        return frechet_distance(real=self.yardstick.side.frechet, fake=Moments.of(features).gaussian())


def equal(total: int, sections: int) -> Counts:
    """Counts that differ by at most one, the larger ones at the noisy end."""
    return tuple(total // sections + (k >= sections - total % sections) for k in range(sections))


def neighbours(counts: Counts, move: int, caps: Sequence[int]) -> Iterator[Counts]:
    """Counts with `move` calls taken from one section and given to another; every section keeps one."""
    for source in range(len(counts)):
        for target in range(len(counts)):
            if source == target or counts[source] <= move or counts[target] + move > caps[target]:
                continue
            moved = list(counts)
            moved[source] -= move
            moved[target] += move
            yield tuple(moved)


def best_of(rivals: Sequence[Counts], distance: Distance, n: int) -> Counts:
    """Successive halving: all are measured on a quarter of the pictures, the best third on half, its best
    third on all. The first rival, which holds the title, stays to the end.
    """
    left = list(rivals)
    for share in (4, 2):
        pictures = max(2, n // share)
        left.sort(key=lambda counts: distance(counts, pictures))
        kept = left[: max(1, math.ceil(len(left) / KEEP))]
        left = kept if rivals[0] in kept else [*kept, rivals[0]]
    return min(left, key=lambda counts: distance(counts, n))


def climb(start: Counts, caps: Sequence[int], distance: Distance, n: int) -> Iterator[tuple[Counts, int]]:
    """Better and better counts with the size of the move that led to them: large moves first, each repeated
    while it helps.
    """
    best, move = start, max(1, sum(start) // (2 * len(start)))
    yield best, 0
    while move:
        winner = best_of([best, *neighbours(best, move, caps)], distance, n)
        if distance(winner, n) < distance(best, n):
            best = winner
            yield best, move
        else:
            move //= 2


def budget(request: SearchRequest, model: Model) -> tuple[Counts, Counts]:
    """(equal counts that the calls are enough for, the most that each section has room for)."""
    steps, training, parts = (
        steps_within(request.calls, model, request),
        model.schedule.steps,
        request.sections,
    )
    if parts > training:
        raise ValueError(f"{training} training steps do not divide among {parts} sections; use fewer")
    caps = tuple(training // parts + (k < training % parts) for k in range(parts))
    start = equal(steps, parts)
    if min(start) < 1 or any(count > cap for count, cap in zip(start, caps, strict=True)):
        raise ValueError(
            f"{steps} steps do not divide among {parts} sections of {training} training steps; use fewer "
            f"sections, or {parts}..{training} steps"
        )
    for other in (str(steps), spelt(start), *request.beside):
        ready = plan(model, replace(request.generate, steps=other))
        if calls_of(ready) > request.calls:
            raise ValueError(f"steps {other} take {calls_of(ready)} calls, the budget is {request.calls}")
    return start, caps


def search(
    request: SearchRequest, out: Path, *, stage: Stage = lambda *_: None, say: Say = lambda _: None
) -> Search:
    """Find the counts, then compare them with uniform steps on fresh noise.

    Features of all that was drawn are kept under `out`: the same search continues where it was stopped.
    ValueError, before anything is drawn, for what cannot work.
    """
    check_numbers(request)
    check_folder(out, "search")
    model, weights = open_model(request.model, str(choose_device(request.generate.device)), request.preset)
    if isinstance(model, GanModel):
        raise ValueError(f"{request.model} is a GAN, which draws in one step: there are none to look for")
    start, caps = budget(request, model)
    uniform = str(sum(start))
    shape = plan(model, replace(request.generate, steps=uniform)).picture
    yardstick = open_yardstick(replace(request.evaluate, n=request.final), shape, stage)
    candidates = Candidates(request, model, weights, yardstick, out, stage)
    trials: dict[Counts, dict[int, float]] = {}

    def distance(counts: Counts, n: int) -> float:
        known = trials.setdefault(counts, {})
        if n not in known:
            known[n] = candidates.distance(spelt(counts), n, seed=request.generate.seed)
        return known[n]

    path = []
    for counts, move in climb(start, caps, distance, request.n):
        path.append(counts)
        verb = f"moved {move}" if move else "start"
        say(f"{verb}: {spelt(counts)}, distance {distance(counts, request.n):.4g}, {len(trials)} tried")
    found = Search(
        request=request,
        steps=sum(start),
        metric=Names(yardstick.network.name)("FD"),
        path=tuple(path),
        trials=tuple(Trial(counts, distances) for counts, distances in trials.items()),
        compared=compare(candidates, [uniform, spelt(path[-1]), *request.beside], say),
        warnings=yardstick.warnings,
    )
    found.save(out)
    return found


def check_numbers(request: SearchRequest) -> None:
    """Refuse numbers that no model could satisfy."""
    for name, least in (("calls", 1), ("sections", 2), ("n", 8), ("final", 8)):
        if getattr(request, name) < least:
            raise ValueError(f"{name}={getattr(request, name)} is less than {least}; use {least} or more")
    for name in ("n", "final"):
        check_most(name, getattr(request, name))
    if request.evaluate.bootstrap < 2:
        raise ValueError("bootstrap: the comparison needs its intervals; use 2 replicates or more")


def compare(candidates: Candidates, spacings: Sequence[str], say: Say) -> tuple[Compared, ...]:
    """Each of the spacings on fresh noise, its difference to the first one paired picture by picture."""
    request = candidates.request
    real, count, fresh = candidates.yardstick.side.frechet, request.final, request.generate.seed + 1
    replicates, seed = request.evaluate.bootstrap, request.evaluate.seed
    first = candidates.features(spacings[0], count, seed=fresh)
    out: list[Compared] = []
    for steps in dict.fromkeys(spacings):
        features = candidates.features(steps, count, seed=fresh)
        error = frechet_error(real=real, fake=features, replicates=replicates, seed=seed)
        paired = frechet_difference_error(
            real=real, first=first, second=features, replicates=replicates, seed=seed
        )
        value = frechet_distance(real=real, fake=Moments.of(features).gaussian())
        base = out[0].value if out else value
        out.append(Compared(steps, value, Z * error, value - base, Z * paired))
        say(f"fresh noise: {steps}, distance {value:.4g} ± {Z * error:.2g}")
    return tuple(out)

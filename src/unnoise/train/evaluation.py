"""Evaluation while a model trains: few pictures drawn from the average, measured against the training data.

Features of the training pictures are computed once and kept in the cache. Those drawn start from the same
noise every time, so two evaluations differ by what was learned between them.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise import distributed
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.config.schema import EvaluationConfig, TrainConfig
from unnoise.data import Dataset, order
from unnoise.generate import draw
from unnoise.metrics.collect import collect
from unnoise.metrics.evaluate import choose_network
from unnoise.metrics.extractors import open_features
from unnoise.metrics.features import FeatureNetwork, Names
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.measures import KERNEL_SUBSET, NEIGHBOURS
from unnoise.metrics.precision_recall import precision_recall
from unnoise.metrics.sources import Pictures
from unnoise.metrics.statistics import Gaussian, Moments
from unnoise.planning import plan
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.events import Best
from unnoise.train.gan import GanJob

PREFIX = "evaluation/"
"""Of the metrics' names in the log."""
Draws = DiffusionJob | GanJob
"""Kinds of training whose models draw."""
HIGHER = ("precision", "recall")
"""Metrics of which more is better."""
LEAST = 10
"""Pictures a side, so that neighbours mean something."""
_BLOCK = 32
"""Pictures through the feature network at once."""


@dataclass(frozen=True, eq=False)
class Evaluator:
    """All that an evaluation needs, ready before the first step."""

    job: Draws
    settings: EvaluationConfig
    request: GenerateRequest
    steps: int
    """That drawing takes."""
    network: FeatureNetwork
    real: Gaussian
    """Of the training pictures, for the Frechet distance."""
    known: Tensor
    """Their features (N, D), for the kernel distance."""
    nearby: Tensor
    """Those of as many as are drawn, for precision and recall."""

    def measure(self, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]) -> dict[str, float]:
        """Metric -> value of the model with these weights; `on_step` is called often and may raise to stop.

        FloatingPointError when it draws what is not a number.
        """
        model = self.job.averaged(weights)
        ready = plan(model, self.request, telling=self.job.telling(model))
        drawn = draw(ready, ready.ids, lambda _: on_step())
        return self._compare(*self._features((batch.pixels for batch in drawn), on_step))

    def in_batches(self, size: int) -> "Evaluator":
        """The same that draws `size` pictures side by side: the settled micro-batch, which fits and stays."""
        return replace(self, request=replace(self.request, batch_size=size))

    def seconds(self, step_seconds: float) -> float:
        """What one evaluation takes, where an optimiser step takes `step_seconds`.

        A forward pass is taken for a third of a step; features and metrics are tried out.
        """
        batch = self.job.config.batch_size / distributed.world()
        n = self.settings.n
        passes = n * self.steps * (1 if self.settings.guidance == 1 else 2)
        if isinstance(self.job, GanJob):
            passes = self.job.passes(n)
        pixels = self.job.dataset.take(np.arange(min(_BLOCK, len(self.job.dataset)))).pixels
        self.network(pixels)  # the first call is slower
        began = time.perf_counter()
        pool, frechet = self._features(iter([pixels]), lambda: None)
        features = (time.perf_counter() - began) * n / len(pixels)
        began = time.perf_counter()
        copies = -(-n // len(pixels))
        self._compare(pool.repeat(copies, 1)[:n], frechet.repeat(copies, 1)[:n])
        return passes * step_seconds / (3 * batch) + features + time.perf_counter() - began

    def best(self, step: int, measured: Mapping[str, float], before: Best | None) -> Best | None:
        """The better of an evaluation and the best before it, which counts only if it was made alike."""
        names = Names(self.network.name)
        name = names(self.settings.metric)
        sign = -1 if self.settings.metric in HIGHER else 1
        made = f"{name} of {self}"
        now = Best(step=step, metric=name, value=measured[name], made=made)
        if not math.isfinite(now.value):
            return before
        better = before is None or before.made != made or sign * now.value < sign * before.value
        return now if better else before

    def save(self, path: Path, weights: Mapping[str, Tensor], *, rate: float, best: Best) -> None:
        """Write a model file that knows its value."""
        self.job.save(path, weights, step=best.step, rate=rate, scores={best.metric: best.value})

    def __str__(self) -> str:
        guidance = f", guidance {self.settings.guidance:g}" if self.settings.guidance != 1 else ""
        steps = f", {self.steps} steps" if isinstance(self.job, DiffusionJob) else ""
        return (
            f"{self.settings.n:,} pictures{steps}{guidance}, against {self.real.n:,} "
            f"training pictures, features {self.network.name}"
        )

    def _features(self, drawn: Iterator[Tensor], on_step: Callable[[], None]) -> tuple[Tensor, Tensor]:
        """What kernel distance, precision and recall read, and what the Frechet distance reads."""
        pool, frechet = [], []
        for batch in drawn:
            for pixels in batch.split(_BLOCK):
                on_step()
                features = self.network(pixels)
                pool.append(features.pool.cpu())
                frechet.append(features.frechet.cpu())
        return torch.cat(pool), torch.cat(frechet)

    def _compare(self, pool: Tensor, frechet: Tensor) -> dict[str, float]:
        names = Names(self.network.name)
        known = self.known
        shares = precision_recall(real=self.nearby, fake=pool, k=NEIGHBOURS)
        size = min(KERNEL_SUBSET, len(known), len(pool))
        return {
            names("FD"): frechet_distance(real=self.real, fake=Moments.of(frechet).gaussian()),
            names("KID"): kernel_distance(real=known, fake=pool, subset_size=size).mean,
            names("precision"): shares.precision,
            names("recall"): shares.recall,
        }


def open_evaluator(
    config: TrainConfig,
    job: Draws,
    device: torch.device,
    *,
    on_step: Callable[[], None],
    warnings: list[str],
) -> Evaluator:
    """Check the settings and measure the training pictures, calling `on_step` now and then.

    ValueError when the settings do not fit the model or the data. `warnings` receives what people should
    know of the choice of features.
    """
    settings, data = config.evaluate, job.dataset
    _check_data(data, settings)
    request = GenerateRequest(n=settings.n, seed=config.seed, precision=config.precision)
    if isinstance(job, DiffusionJob):
        request = replace(request, steps=settings.steps, guidance=settings.guidance)
    try:
        ready = plan(job.model, request, telling=job.telling(job.model))
        network = choose_network(
            EvaluateRequest(features=settings.features, weights=settings.weights),
            str(device),
            warnings,
            channels=data.channels,
        )
    except ValueError as error:
        raise ValueError(f"evaluate: {error}") from None
    pictures = training_pictures(data, settings.reference, config.seed, on_step)
    real = collect(pictures, network, cache=config.data.cache, batch_size=_BLOCK)
    known = real.table.load("pool")
    chosen = order.pictures(config.seed, pictures.n, np.arange(min(settings.n, pictures.n)))
    nearby = known[torch.from_numpy(chosen)]
    return Evaluator(job, settings, request, ready.steps, network, real.frechet, known, nearby)


def check_features(settings: EvaluationConfig) -> None:
    """Refuse a feature network, named by the settings, that is not to be had."""
    if settings.features != "auto":
        try:
            open_features(settings.features, weights=settings.weights or None)
        except ValueError as error:
            raise ValueError(f"evaluate: {error}") from None


def _check_data(data: Dataset, settings: EvaluationConfig) -> None:
    if len(data) < LEAST:
        raise ValueError(
            f"evaluate.every={settings.every} has {len(data)} training pictures to measure against, and "
            f"{LEAST} are the least; set it to 0"
        )
    if data.channels not in (1, 3):
        raise ValueError(
            f"evaluate.every={settings.every} cannot measure pictures of {data.channels} channels; set it "
            "to 0, or data.channels to 1 or 3"
        )


def training_pictures(data: Dataset, most: int, seed: int, on_step: Callable[[], None]) -> Pictures:
    """The training pictures, or `most` of them chosen by the seed, under the names by which other evaluations
    of the same data find their features.
    """
    count = min(most, len(data))
    content = f"{data.content}-{data.size}-{data.channels}"
    chosen = np.arange(count)
    if count < len(data):
        chosen = order.pictures(seed, len(data), chosen)
        content += f"-chosen by {seed}"

    def take(indices: Sequence[int]) -> Tensor:
        on_step()
        return data.take(chosen[np.asarray(indices, np.int64)]).pixels

    name = data.report.source or "the training data"
    return Pictures(name, count, (data.size, data.size, data.channels), content, take)

"""All that a step changes: what a checkpoint must hold for a run to go on as if it had never stopped.

No generator is in it: every draw is a function of (seed, purpose, step, position).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from unnoise.config.schema import TrainConfig
from unnoise.train.checkpoint import Snapshot
from unnoise.train.ema import Ema, weights_of
from unnoise.train.events import Best
from unnoise.train.job import Job
from unnoise.train.optim import LossScale, make_optimizer, moments_of, restore_moments


@dataclass
class Means:
    """Running means by name."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float, count: float = 1) -> None:
        """Add `count` values that sum to `value`."""
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """Mean of every name that has values."""
        return {name: self.sums[name] / self.counts[name] for name in self.sums if self.counts[name]}


@dataclass(eq=False)
class TrainState:
    """The moving parts of a run."""

    job: Job[Any]
    optimizer: torch.optim.Optimizer
    ema: Ema
    scale: LossScale
    step: int = 0
    """Steps behind it, skipped ones included."""
    skipped: int = 0
    in_a_row: int = 0
    """Skipped steps since the last good one."""
    seconds: float = 0.0
    logged: Means = field(default_factory=Means)
    """Of the steps since the last line of the log."""
    scored: Means = field(default_factory=Means)
    """Of the steps since the last checkpoint."""
    evaluated: int = 0
    """The step of the last evaluation."""
    best: Best | None = None

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        return self.job.network

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained, flat."""
        return list(self.network.parameters())

    def snapshot(self) -> Snapshot:
        """The state as tensors and numbers; `scored` starts anew."""
        moments = moments_of(self.optimizer, self.network)
        averages = {f"ema-{rate}": self.ema.weights(i) for i, rate in enumerate(self.ema.rates)}
        job = {"job": self.job.state_dict()}
        numbers = {
            "data": self.job.identity,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "seconds": self.seconds,
            "ema_updates": self.ema.updates,
            "scale": [self.scale.value, self.scale.good],
            "logged": [self.logged.sums, self.logged.counts],
            "evaluated": self.evaluated,
            "best": asdict(self.best) if self.best else None,
        }
        score = self.scored.means().get("loss")
        self.scored = Means()
        tensors = {"network": self.network.state_dict(), "optimizer": moments, **averages, **job}
        return Snapshot(self.step, tensors, numbers, score)

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot of the same settings back; ValueError when it is of other data."""
        numbers, tensors = snapshot.numbers, snapshot.tensors
        if numbers["data"] != self.job.identity:
            raise ValueError(
                "the pictures have changed since the last checkpoint of this run; put them back, or name "
                "another --out for a new run"
            )
        self.network.load_state_dict(tensors["network"])
        restore_moments(self.optimizer, self.network, tensors["optimizer"])
        for rate, average in zip(self.ema.rates, self.ema.averages, strict=True):
            stored = tensors[f"ema-{rate}"]
            for name, value in zip(self.ema.names, average, strict=True):
                value.copy_(stored[name])
        self.job.load_state_dict(tensors["job"])
        self.step, self.skipped = snapshot.step, numbers["skipped"]
        self.in_a_row, self.seconds = numbers["in_a_row"], numbers["seconds"]
        self.ema.updates = numbers["ema_updates"]
        self.scale.value, self.scale.good = numbers["scale"]
        self.logged, self.scored = Means(*numbers["logged"]), Means()
        # Checkpoints of earlier versions know of no evaluation.
        self.evaluated = numbers.get("evaluated", 0)
        self.best = Best(**numbers["best"]) if numbers.get("best") else None


def new_state(job: Job[Any], config: TrainConfig) -> TrainState:
    """A state at step 0; only float16 needs a loss scale."""
    optimizer = make_optimizer(job.network.parameters(), config.optimizer)
    scale = LossScale(active=config.precision == "float16")
    return TrainState(job, optimizer, Ema(weights_of(job.network), config.ema), scale)

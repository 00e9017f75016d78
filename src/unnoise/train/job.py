"""What a kind of training (diffusion, classifier, autoencoder) tells the loop that they share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn


class Batch(Protocol):
    """One process's pictures of a step with all that was drawn for them."""

    def __len__(self) -> int: ...
    def take(self, rows: slice) -> "Batch":
        """Some of the rows."""
        ...

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        ...

    def pin(self) -> "Batch":
        """The batch in memory from which a GPU can fetch it while it computes."""
        ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, eq=False)
class Losses:
    """What a forward pass costs, picture by picture; every tensor is (B,)."""

    loss: Tensor
    weight: Tensor | None = None
    """The mean of weight * loss over the global batch is minimised; None: 1."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """For the log, in its means: name -> values, as loss/NAME."""
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    """For the log, in its means, under their own names: what is no loss."""
    group: Tensor | None = None
    """int64: the log has means of `loss` and the scores for each group too, as loss/NAME of `Job.groups`."""
    aside: Mapping[str, Tensor] = field(default_factory=dict)
    """For `Job.observe` alone."""


class Job(Protocol[B]):
    """One kind of training. `network` is what the loop optimises, averages and stores."""

    @property
    def network(self) -> nn.Module:
        """What is trained; the same object always."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """Names of the groups of `Losses.group`."""
        ...

    @property
    def identity(self) -> str:
        """Hash of the data: a run continues with the same."""
        ...

    def draw(self, step: int, positions: range) -> B:
        """Pictures, noise, labels of some positions of a step's global batch: a function of its arguments.

        On the CPU, in another thread than `losses`.
        """
        ...

    def losses(self, network: nn.Module, batch: B) -> Losses:
        """Cost of a micro-batch. `network` is the job's own, perhaps wrapped for several processes."""
        ...

    def observe(self, aside: Mapping[str, Tensor], *, steps: int) -> None:
        """Learn from the `aside` of a whole step, gathered over all processes: the same everywhere.

        steps: of the whole run, which `minutes` decides only when the job is there.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint keeps for the job besides its network."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        ...

    def save(self, path: Path, weights: Mapping[str, Tensor], *, step: int, rate: float) -> None:
        """Write a usable model file with the average of this rate."""
        ...

    @property
    def warning(self) -> str:
        """What the last `sample` found wrong with the model, for people; empty for nothing."""
        ...

    @property
    def sampled(self) -> int:
        """Pictures times steps that `sample` puts through the network."""
        ...

    def sample(
        self, path: Path, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]
    ) -> Mapping[str, float]:
        """Draw a grid of pictures to a PNG, calling `on_step` now and then: it may raise to stop.

        Returns what was measured on the way, for the log.
        """
        ...

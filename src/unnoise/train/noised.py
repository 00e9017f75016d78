"""What a step sees that noises pictures: they or their latents, noise and times, drawn by (seed, place)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset
from unnoise.diffusion.noise import seeded_generator
from unnoise.train.latents import LatentSource, posterior_noise

QUARTERS = ("q0", "q1", "q2", "q3")
"""Of the noise schedule, the least noisy first."""


@dataclass(frozen=True, eq=False)
class DiffusionBatch:
    """Pictures of a step with what was drawn for each."""

    pixels: Tensor | None
    """uint8 (B, H, W, C); None where everything is known of latents."""
    eps: Tensor
    """Unit noise (B, C, H, W) float32, of the shape of what is drawn."""
    u: Tensor
    """(B,) float64 in [0, 1) on the CPU: where in the distribution of times."""
    label: Tensor | None = None
    """(B,) int64, some replaced by the null class."""
    level: Tensor | None = None
    """(B,) float32: how noisy an upsampler sees the small picture; None where it sees it as it is."""
    z: Tensor | None = None
    """That noise, (B, C, low_res, low_res) float32."""
    latents: Tensor | None = None
    """(B, C, h, w) float32, scaled."""
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    """What is told besides the class (see `told.Teller.raw`)."""
    untold: Mapping[str, Tensor] = field(default_factory=dict)
    """What is told -> (B,) bool, whether it is left out."""

    def __len__(self) -> int:
        return len(self.u)

    def take(self, rows: slice) -> "DiffusionBatch":
        """Some of the rows."""
        return replace(self._map(lambda value: value[rows]), u=self.u[rows])

    def to(self, device: torch.device) -> "DiffusionBatch":
        """On a device; u stays, as times are looked up on the CPU."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin(self) -> "DiffusionBatch":
        """In page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "DiffusionBatch":
        changed: dict[str, Any] = {
            name: change(value)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "u"
        }
        for name in ("raw", "untold"):
            changed[name] = {key: change(value) for key, value in getattr(self, name).items()}
        return replace(self, **changed)


def noisy_batch(
    config: TrainConfig, dataset: Dataset, source: LatentSource | None, step: int, positions: range
) -> DiffusionBatch:
    """The pictures at these positions of a step's global batch, or their latents, with noise and times.

    Latents where they are cached. No label is dropped.
    """
    places = np.arange(positions.start, positions.stop) + step * config.batch_size
    side, channels = dataset.size, dataset.channels
    if source is not None:
        side, channels = side // source.stage.factor, source.stage.channels
    shape = channels, side, side
    eps, u, _ = unit_noise(config, step, positions, shape)
    if source is None or source.latents is None:
        batch = dataset.batch(step, places)
        return DiffusionBatch(batch.pixels, eps, u, batch.label)
    latents = source.batch(places, posterior_noise(config, step, positions, shape))
    return DiffusionBatch(None, eps, u, dataset.labels_at(places), latents=latents)


def unit_noise(
    config: TrainConfig, step: int, positions: range, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit noise (B, *shape) and two times (B,) float64 numbers in [0, 1): functions of (seed, place)."""
    size = config.batch_size
    eps = torch.empty(len(positions), *shape)
    for row, position in zip(eps, positions, strict=True):
        row.normal_(generator=seeded_generator(config.seed, "noise", step * size + position))
    # Two numbers a picture: each process draws those of the whole step.
    u, rest = torch.rand(2, size, generator=seeded_generator(config.seed, "times", step), dtype=torch.float64)
    mine = slice(positions.start, positions.stop)
    return eps, u[mine], rest[mine]


def quarters(i: Tensor, steps: int) -> Tensor:
    """Which quarter of the schedule each entry lies in, 0 the least noisy; of the type of i."""
    return i * len(QUARTERS) // steps

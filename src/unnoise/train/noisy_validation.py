"""What a classifier of noisy pictures is worth: on held-out pictures, by quarter of the schedule."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.data import Dataset
from unnoise.diffusion.noise import unit_normal
from unnoise.diffusion.schedule import NoiseSchedule, add_noise
from unnoise.images import grid, to_images, to_pixels
from unnoise.metrics.calibration import Reliability, reliability
from unnoise.train.latents import LatentSource
from unnoise.train.noised import QUARTERS, quarters
from unnoise.train.validation import chosen

TIMES = 6
"""Noise levels of the sheet, evenly spaced over the schedule, its ends left out."""
ROWS = 10
"""Pictures on the sheet, each at several t; fewer where they are large."""
_ROW_PIXELS = 1280
_BLOCK = 250


@dataclass(frozen=True)
class Measured:
    """How well, and how surely, pictures were told apart."""

    pictures: int
    loss: float
    """Cross-entropy, nats."""
    accuracy: dict[str, float]
    calibration_error: float
    reliability: Reliability

    def numbers(self) -> dict[str, float]:
        """For the log."""
        return {"loss": self.loss, **self.accuracy, "calibration_error": self.calibration_error}


@dataclass(frozen=True, eq=False)
class NoisyValidation:
    """Held-out pictures, each with a time and a noise of its own, the same ones at every look."""

    dataset: Dataset
    schedule: NoiseSchedule
    noised: bool
    """False: the pictures are left clean, and the network is told the first t."""
    seed: int
    source: LatentSource | None = None
    """Of their latents, where the network sees those."""

    @property
    def passes(self) -> int:
        """Pictures that `measure` and `sheet` put through the network."""
        return len(self._places) + len(self._times) * self._rows

    def measure(self, network: nn.Module, on_step: Callable[[], None]) -> dict[str, Measured]:
        """At times spread evenly over the schedule. Returns "all", then each quarter that has pictures."""
        places, steps = self._places, self.schedule.steps
        i = torch.arange(len(places)) * steps // len(places)
        if not self.noised:
            i = torch.zeros_like(i)
        logits, labels = [], []
        for start in range(0, len(places), _BLOCK):
            on_step()
            block = slice(start, start + _BLOCK)
            batch = self.dataset.take(places[block])
            assert batch.label is not None
            x0 = self._x0(places[block], batch.pixels, first=start)
            logits.append(self._said(network, x0, i[block], first=start))
            labels.append(batch.label)
        said, label, group = torch.cat(logits), torch.cat(labels), quarters(i, steps)
        masks = {"all": group >= 0} | {name: group == k for k, name in enumerate(QUARTERS)}
        return {name: measure(said[mask], label[mask]) for name, mask in masks.items() if mask.any()}

    def sheet(self, network: nn.Module) -> np.ndarray:
        """A row a picture: as it is, with its class, then at several t with what is said and how surely.

        A wrong answer has a question mark; noisy latents are shown decoded. Returns uint8 (height, width, 3).
        """
        shown = self._shown()
        batch = self.dataset.take(shown)
        assert batch.label is not None
        x0, label, names = self._x0(shown, batch.pixels), batch.label, self.dataset.classes
        columns, texts = [batch.pixels], [[names[k] for k in label.tolist()]]
        for time in self._times:
            i = torch.full((len(x0),), time)
            sure, said = self._said(network, x0, i).softmax(1).max(1)
            marks = ["" if right else "?" for right in (said == label).tolist()]
            answers = zip(said.tolist(), marks, sure.tolist(), strict=True)
            texts.append([f"{names[k]}{mark} {100 * share:.0f}%" for k, mark, share in answers])
            noisy = add_noise(x0, self._noise(x0), self.schedule.at(i, x0)) if self.noised else x0
            columns.append(to_pixels(noisy if self.source is None else self._decoded(noisy)))
        row_by_row = [text for row in zip(*texts, strict=True) for text in row]
        heads = ["as it is", *(f"t = {time}" for time in self._times)]
        return grid(torch.stack(columns, 1).flatten(0, 1), len(columns), row_by_row, heads=heads, cell=140)

    @property
    def _places(self) -> np.ndarray:
        return chosen(self.dataset, self.seed)

    @property
    def _rows(self) -> int:
        return min(ROWS, max(3, _ROW_PIXELS // self.dataset.size), len(self.dataset))

    @property
    def _times(self) -> list[int]:
        """Entries of the schedule that the sheet shows."""
        steps = self.schedule.steps
        return [k * steps // (TIMES + 1) for k in range(1, TIMES + 1)] if self.noised else [0]

    def _shown(self) -> np.ndarray:
        """Pictures of as many classes as there are rows, then any: those that are looked at first."""
        places = self._places
        assert self.dataset.labels is not None
        _, first = np.unique(self.dataset.labels[places], return_index=True)
        rest = np.setdiff1d(np.arange(len(places)), first)
        return np.asarray(places[np.concatenate([np.sort(first), rest])[: self._rows]])

    def _x0(self, places: np.ndarray, pixels: Tensor, *, first: int = 0) -> Tensor:
        """What the network sees of pictures, on the CPU; `first` is the number of the first one."""
        if self.source is None:
            return to_images(pixels)
        stage, count = self.source.stage, len(places)
        side = self.dataset.size // stage.factor
        shape = torch.Size((stage.channels, side, side))
        z = [unit_normal(self.seed, "validated latents", k, shape=shape) for k in range(first, first + count)]
        return self.source.take(self.dataset, places, torch.stack(z))

    def _decoded(self, latents: Tensor) -> Tensor:
        """Images of noisy latents, on the CPU."""
        assert self.source is not None
        return self.source.stage.decode(latents.to(self.source.stage.device)).cpu()

    def _said(self, network: nn.Module, x0: Tensor, i: Tensor, *, first: int = 0) -> Tensor:
        """Logits on the CPU of pictures at the entries i; `first` is the number of the first picture."""
        device = next(network.parameters()).device
        eps = self._noise(x0, first).to(device) if self.noised else None
        with torch.no_grad():
            return logits_at(network, self.schedule, x0.to(device), i, eps).cpu()

    def _noise(self, x0: Tensor, first: int = 0) -> Tensor:
        numbers = range(first, first + len(x0))
        return torch.stack([unit_normal(self.seed, "validation", k, shape=x0.shape[1:]) for k in numbers])


def logits_at(
    network: nn.Module, schedule: NoiseSchedule, x0: Tensor, i: Tensor, eps: Tensor | None
) -> Tensor:
    """What the network says of x0 noised to the entries i, in float32; of x0 itself where eps is None."""
    at = schedule.at(i, x0)
    logits: Tensor = network(x0 if eps is None else add_noise(x0, eps, at), at.t)
    return logits.float()


def measure(logits: Tensor, label: Tensor) -> Measured:
    """What logits (N, classes) are worth beside the labels (N,)."""
    sure, said = logits.softmax(1).max(1)
    table = reliability(sure, said == label)
    return Measured(
        pictures=len(label),
        loss=F.cross_entropy(logits, label).item(),
        accuracy={name: value.double().mean().item() for name, value in hits(logits, label).items()},
        calibration_error=table.error,
        reliability=table,
    )


def hits(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Whether the label is the first of (B, classes) logits, and among the first five of more than five."""
    found = {"accuracy@1": logits.argmax(1) == label}
    if logits.shape[1] > 5:
        found["accuracy@5"] = (logits.topk(5, dim=1).indices == label[:, None]).any(1)
    return found

"""How healthy a GAN is: whether it still draws many pictures, and whether its opponent learns by heart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.data import Dataset, order
from unnoise.diffusion.noise import seeded_generator
from unnoise.gan import GanModel
from unnoise.images import to_images, to_pixels
from unnoise.metrics.extractors import open_features
from unnoise.metrics.features import FeatureNetwork
from unnoise.networks.spectral import singular_values
from unnoise.train.opponent import Opponent

MEASURED = 256
"""Pictures that diversity is measured on, at most."""
GROUPS = 16
"""Classes that they are of, at most: within a class collapse shows first."""
SCORED = 256
"""Pictures of each kind that the discriminator scores."""
LEAST_DIVERSITY, MOST_COPIES = 0.3, 0.5
"""Beyond either the generator has collapsed."""
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Spread:
    """How far pictures of the same group lie from one another, in features."""

    mean: float
    """Over all pairs."""
    nearest: Tensor
    """(N,), from each to the nearest other one."""


class Health:
    """Real pictures to compare with, known before the first step."""

    def __init__(self, training: Dataset, held_out: Dataset | None, seed: int, device: torch.device) -> None:
        self.training, self.held_out, self.seed, self.device = training, held_out, seed, device
        self.network: FeatureNetwork = open_features("unnoise-small", device=str(device))
        self.chosen = grouped(training, seed)
        self.sizes = [len(each) for each in self.chosen]
        self._real: Spread | None = None

    @property
    def passes(self) -> int:
        """Pictures that a check puts through the generator."""
        return sum(self.sizes) + SCORED

    def diversity(self, model: GanModel) -> dict[str, float]:
        """How much less drawn pictures of a class differ than real ones, and the share of near copies.

        diversity: mean distance within a class over that of real pictures, 1 when they vary as much.
        near_copies: share with another of its class less than half as far away as a real picture's nearest
        one (the median). Empty where no class has two pictures.
        """
        if not self.sizes:
            return {}
        if self._real is None:
            self._real = spread(
                self._features([self.training.take(each).pixels for each in self.chosen]),
                self.sizes,
            )
        labels = [k for k, size in zip(self._classes(), self.sizes, strict=True) for _ in range(size)]
        label = torch.tensor(labels) if model.settings.classes else None
        images = drawn(model, sum(self.sizes), label, self.seed)
        fake = spread(self._features([to_pixels(part) for part in images.split(_BLOCK)]), self.sizes)
        near = self._real.nearest.median() / 2
        return {
            "diversity": fake.mean / max(self._real.mean, 1e-12),
            "near_copies": (fake.nearest < near).float().mean().item(),
        }

    def scores(self, model: GanModel, opponent: Opponent) -> dict[str, float]:
        """Mean scores of pictures learned from, held out and drawn; by how much it knows the first by heart.

        overfitting: (training - held out) / (training - drawn), 0 when held-out pictures look as real to it
        as those that it learned from, 1 when they look as drawn ones do.
        """
        label = None
        if self.training.labels is not None:
            label = torch.from_numpy(self.training.labels[_some(self.training, self.seed)])
        count = min(SCORED, len(self.training))
        found = {
            "score/training": self._mean_score(opponent, self.training),
            "score/drawn": _score(opponent, drawn(model, count, label, self.seed), label),
        }
        if self.held_out is not None:
            found["score/held_out"] = self._mean_score(opponent, self.held_out)
            margin = found["score/training"] - found["score/drawn"]
            if margin > 0:
                found["overfitting"] = (found["score/training"] - found["score/held_out"]) / margin
        return found

    def _mean_score(self, opponent: Opponent, dataset: Dataset) -> float:
        batch = dataset.take(_some(dataset, self.seed))
        return _score(opponent, to_images(batch.pixels).to(self.device), batch.label)

    def _classes(self) -> list[int]:
        """The class of each group."""
        if self.training.labels is None:
            return [0] * len(self.chosen)
        return [int(self.training.labels[each[0]]) for each in self.chosen]

    def _features(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([self.network(part).pool.cpu() for part in parts])


def verdict(measured: Mapping[str, float]) -> str:
    """What is wrong, for people; empty when nothing is."""
    diversity, copies = measured.get("diversity", 1.0), measured.get("near_copies", 0.0)
    if diversity >= LEAST_DIVERSITY and copies <= MOST_COPIES:
        return ""
    return (
        f"the generator has collapsed: pictures of a class differ {diversity:.0%} as much as real ones, and "
        f"{copies:.0%} nearly repeat another. It rarely recovers: go back to an earlier checkpoint (or "
        "best.safetensors), and train again with gan.augment, a larger batch_size or a smaller optimizer.lr"
    )


def grouped(dataset: Dataset, seed: int) -> list[np.ndarray]:
    """Indices of real pictures to compare with, class by class, chosen by the seed; two a class at least."""
    labels = np.zeros(len(dataset), np.int64) if dataset.labels is None else dataset.labels
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts >= 2)[:GROUPS]
    found = []
    for each in classes:
        members = np.flatnonzero(labels == each)
        count = min(len(members), MEASURED // len(classes))
        found.append(members[order.pictures(seed, len(members), np.arange(count))])
    return found


def spread(features: Tensor, sizes: Sequence[int]) -> Spread:
    """Of features (N, D), group after group. Every group has two or more."""
    means, nearest = [], []
    for group in features.double().split(list(sizes)):
        distance = torch.cdist(group, group, compute_mode="donot_use_mm_for_euclid_dist")
        means.append(distance.sum() / (len(group) * (len(group) - 1)))
        nearest.append(distance.fill_diagonal_(torch.inf).amin(1))
    return Spread(torch.stack(means).mean().item(), torch.cat(nearest))


def spectrum(network: nn.Module) -> dict[str, float]:
    """The largest first singular value of a network's weights, and how far it stands out of the second.

    Both grow before a collapse (Brock et al. 2019, section 4).
    """
    values = [s for s in singular_values(network).values() if len(s) > 1]
    return {
        "first": max(s[0].item() for s in values),
        "ratio": max((s[0] / s[1].clamp_min(1e-12)).item() for s in values),
    }


@torch.no_grad()
def drawn(model: GanModel, count: int, label: Tensor | None, seed: int) -> Tensor:
    """Images (count, C, H, W) of these classes from noise of their own, on the model's device."""
    z = torch.randn(count, model.settings.latent, generator=seeded_generator(seed, "health"))
    parts = []
    for start in range(0, count, _BLOCK):
        some = slice(start, start + _BLOCK)
        told = None if label is None else label[some].to(model.device)
        parts.append(model.network(z[some].to(model.device), told))
    return torch.cat(parts)


@torch.no_grad()
def _score(opponent: Opponent, images: Tensor, label: Tensor | None) -> float:
    scores = []
    for start in range(0, len(images), _BLOCK):
        some = slice(start, start + _BLOCK)
        told = None if label is None else label[some].to(images.device)
        scores.append(opponent.scores(images[some], told, None))
    return torch.cat(scores).mean().item()


def _some(dataset: Dataset, seed: int) -> np.ndarray:
    return order.pictures(seed, len(dataset), np.arange(min(SCORED, len(dataset))))

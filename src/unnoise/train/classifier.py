"""Training a plain classifier: pictures moved, cut and enlarged at random in, cross-entropy out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.classifier import build_classifier, save_classifier
from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset, order
from unnoise.images import grid, save_png, to_images
from unnoise.modelfile import ModelInfo
from unnoise.train.building import compute_in, data_summary, drawn_weights, network_around
from unnoise.train.job import Losses
from unnoise.train.validation import VALIDATED, chosen, parts

SHOWN = 40
"""Pictures on the sheet: those that the classifier gets wrong most confidently."""
_BLOCK = 250


@dataclass(frozen=True, eq=False)
class ClassifierBatch:
    """Pictures of a step as the network will see them. pixels: uint8 (B, H, W, C); label: (B,) int64."""

    pixels: Tensor
    label: Tensor
    side: int
    """Pixels that the pictures are enlarged to."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: slice) -> "ClassifierBatch":
        """Some of the rows."""
        return replace(self, pixels=self.pixels[rows], label=self.label[rows])

    def to(self, device: torch.device) -> "ClassifierBatch":
        """On a device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin(self) -> "ClassifierBatch":
        """In page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "ClassifierBatch":
        return replace(self, pixels=change(self.pixels), label=change(self.label))


class ClassifierJob:
    """One classifier learning one data set. Settings are complete (config.resolve)."""

    groups = ()
    warning = ""

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        assert config.classifier is not None, "settings are resolved"
        self.config, self.settings = config, config.classifier
        self.dataset, self.validation = parts(
            config, dataset, source=self.settings.validation, held_out=self.settings.held_out
        )
        self.identity = dataset.fingerprint
        info = ModelInfo(
            classes=dataset.classes,
            preset=config.preset,
            data=data_summary(dataset, len(self.dataset)),
        )
        with drawn_weights(config.seed):
            self.model = build_classifier(self.settings.network, info).to(device)
        compute_in(self.model.network, config.precision, device)

    @property
    def network(self) -> nn.Module:
        """The classifier."""
        return self.model.network

    def draw(self, step: int, positions: range) -> ClassifierBatch:
        """The pictures at these positions of the global batch, moved and mirrored by position alone."""
        settings = self.settings
        places = np.arange(positions.start, positions.stop) + step * self.config.batch_size
        batch = self.dataset.batch(step, places)
        assert batch.label is not None
        own = batch.pixels.shape[1]
        side = _side(self.config.seed, step, settings.sizes) or own
        bits = order.draws(self.config.seed, "shift", places)
        pixels = windows(batch.pixels.numpy(), min(side, own), settings.shift, bits)
        return ClassifierBatch(torch.from_numpy(pixels), batch.label, side)

    def losses(self, network: nn.Module, batch: ClassifierBatch) -> Losses:
        """Cross-entropy, with the share of right answers."""
        logits = network(enlarged(to_images(batch.pixels), batch.side)).float()
        loss = F.cross_entropy(
            logits, batch.label, label_smoothing=self.settings.label_smoothing, reduction="none"
        )
        return Losses(loss, scores={"accuracy": (logits.argmax(1) == batch.label).float()})

    def observe(self, aside: Mapping[str, Tensor], *, steps: int) -> None:
        """Nothing is learned besides the weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing besides the weights."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""

    def save(self, path: Path, weights: Mapping[str, Tensor], *, step: int, rate: float) -> None:
        """Write a model file."""
        info = replace(self.model.info, step=step, ema_rate=rate)
        save_classifier(path, replace(self.model, info=info), weights=weights)

    @property
    def sampled(self) -> int:
        """Pictures of a validation."""
        return min(VALIDATED, len(self.validation))

    def sample(
        self, path: Path, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]
    ) -> dict[str, float]:
        """Validate on pictures held out, and draw a sheet of those that it gets wrong most confidently."""
        network = network_around(weights, self.model.network)
        places = chosen(self.validation, self.config.seed)
        logits, labels = [], []
        for start in range(0, len(places), _BLOCK):
            on_step()
            batch = self.validation.take(places[start : start + _BLOCK])
            assert batch.label is not None
            with torch.no_grad():
                logits.append(network(to_images(batch.pixels).to(self.model.device)).float().cpu())
            labels.append(batch.label)
        said, label = torch.cat(logits).softmax(1), torch.cat(labels)
        right = said.argmax(1) == label
        worst = torch.argsort(said.amax(1) - right.float(), descending=True, stable=True)[:SHOWN]
        names = [self.model.classes[k] for k in said.argmax(1)[worst].tolist()]
        pixels = self.validation.take(places[worst.numpy()]).pixels
        save_png(path, grid(pixels, 10, [f"{name}?" for name in names]), {})
        loss = F.nll_loss(said.clamp(min=1e-12).log(), label)
        return {"validation/accuracy": right.float().mean().item(), "validation/loss": loss.item()}


def windows(pixels: np.ndarray, side: int, shift: int, bits: np.ndarray) -> np.ndarray:
    """A square of every picture, at a place that its random bits choose.

    pixels: uint8 (B, H, W, C), H = W, padded by `shift` on every side by repeating its edges; bits: (B,)
    uint64; returns (B, side, side, C).
    """
    if not shift and side == pixels.shape[1]:
        return pixels
    padded = np.pad(pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    places = np.uint64(padded.shape[1] - side + 1)
    top = (bits & np.uint64(0xFFFFFFFF)) % places
    left = (bits >> np.uint64(32)) % places
    along = np.arange(side)
    rows = top.astype(np.int64)[:, None] + along
    columns = left.astype(np.int64)[:, None] + along
    picture = np.arange(len(pixels))[:, None, None]
    return np.ascontiguousarray(padded[picture, rows[:, :, None], columns[:, None, :]])


def enlarged(images: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W) at another side, bilinear with antialiasing; the same where it is theirs."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def _side(seed: int, step: int, sizes: tuple[int, ...]) -> int | None:
    """The side of a step's batch, None for the pictures' own."""
    if not sizes:
        return None
    bits = order.draws(seed, "side", np.array([step]))[0]
    return sizes[int(bits % np.uint64(len(sizes)))]

"""A trained classifier: its network, class names and settings, in memory and as one file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise.config.load import FORMAT, from_dict, to_dict
from unnoise.data import Dataset
from unnoise.images import Pixels, to_images
from unnoise.modelfile import (
    METADATA_KEY,
    ModelInfo,
    find_model,
    kind_of,
    put_weights,
    read_header,
    read_weights,
)
from unnoise.networks.classifier import Classifier, ClassifierTaps
from unnoise.networks.settings import ClassifierSettings
from unnoise.tensorfile import write_tensors

KIND = "classifier"
"""What the header of the file says that it holds."""


@dataclass(frozen=True, eq=False)
class ClassifierModel:
    """A network with the names of its classes, in the order of its logits."""

    network: Classifier
    info: ModelInfo = field(default_factory=ModelInfo)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.info.classes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.head.weight.device

    def to(self, device: str | torch.device) -> "ClassifierModel":
        """The same classifier on another device (its network is moved, not copied)."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def taps(self, pixels: Pixels, *, block: int = 256) -> ClassifierTaps:
        """Logits and features of uint8 (N, H, W, C) pictures, C 1 or 3, on the CPU; `block` at a time."""
        parts = []
        for start in range(0, len(pixels), block):
            images = to_images(pixels[start : start + block]).to(self.device)
            parts.append(self.network.taps(images))
        return ClassifierTaps(
            logits=torch.cat([part.logits for part in parts]).cpu(),
            pool=torch.cat([part.pool for part in parts]).cpu(),
            spatial=torch.cat([part.spatial for part in parts]).cpu(),
        )

    def classify(self, pixels: Pixels) -> Tensor:
        """The most likely class of each of uint8 (N, H, W, C) pictures: (N,) int64."""
        return self.taps(pixels).logits.argmax(1)

    def places(self, pixels: Pixels) -> Tensor:
        """The place of every class in the order of likelihood, 0 the likeliest: (N, classes) int64.

        pixels: uint8 (N, H, W, C). Of equally likely classes the first comes first.
        """
        logits = self.taps(pixels).logits
        return torch.argsort(logits, dim=1, descending=True, stable=True).argsort(1)

    def labels(self, names: Sequence[str]) -> Tensor:
        """The indices of classes of these names: (N,) int64. ValueError when one is none of its own."""
        unknown = [name for name in dict.fromkeys(names) if name not in self.classes]
        if unknown:
            raise ValueError(
                f"class {unknown[0]!r} is none of the classifier's ({', '.join(self.classes[:5])}, ...); "
                "use a classifier trained on the same classes"
            )
        return torch.tensor([self.classes.index(name) for name in names], dtype=torch.int64)


def agreement(model: ClassifierModel, pixels: Pixels, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Name -> (how many of its pictures the classifier gives that name, how many there are).

    pixels: uint8 (N, H, W, C); names: one a picture. ValueError when one is none of the classifier's.
    """
    return tally(model, model.classify(pixels), names)


def tally(model: ClassifierModel, said: Tensor, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """`agreement` of what the classifier has said, (N,) indices of its classes."""
    wanted = model.labels(names).tolist()
    counts = {name: (0, 0) for name in dict.fromkeys(names)}
    for name, asked, found in zip(names, wanted, said.tolist(), strict=True):
        right, total = counts[name]
        counts[name] = right + (asked == found), total + 1
    return counts


def accuracy(model: ClassifierModel, dataset: Dataset) -> float:
    """Share of a labelled data set's pictures, not mirrored, that the classifier names right."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.report.source} has no labels; name data that have")
    right = 0
    for batch in dataset.blocks():
        assert batch.label is not None
        names = [dataset.classes[k] for k in batch.label.tolist()]
        right += sum(count for count, _ in agreement(model, batch.pixels, names).values())
    return right / len(dataset)


def build_classifier(settings: ClassifierSettings, info: ModelInfo) -> ClassifierModel:
    """A classifier with fresh weights, drawn by torch's generator, from complete settings."""
    if settings.classes != len(info.classes):
        raise ValueError(
            f"classifier.network.classes={settings.classes} does not fit {len(info.classes)} class names"
        )
    return ClassifierModel(Classifier(settings), info)


def save_classifier(
    path: Path | str,
    model: ClassifierModel,
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one safetensors file, atomically. `weights` (such as an average) replaces the network's own.

    Weights are stored as `dtype`, None keeping their type; round them first (see rounding).
    """
    from unnoise import __version__

    info = replace(model.info, version=model.info.version or __version__)
    header = {"format": FORMAT, "kind": KIND, KIND: to_dict(model.network.settings), "info": to_dict(info)}
    state = model.network.state_dict() if weights is None else weights
    write_tensors(Path(path), state, {METADATA_KEY: json.dumps(header)}, dtype=dtype)


def load_classifier(path: Path | str, device: str | torch.device = "cpu") -> ClassifierModel:
    """The classifier of a file, or of a run directory, ready to use in float32 whatever the file stores.

    ValueError when the file holds something else.
    """
    path = find_model(Path(path))
    header = read_header(path)
    if header.get("kind") != KIND:
        raise ValueError(
            f"{path} is {kind_of(header)}, not a classifier; train one with: unnoise train classifier-28"
        )
    settings = from_dict(ClassifierSettings, header.get(KIND, {}), where=str(path))
    info = from_dict(ModelInfo, header.get("info", {}), where=str(path))
    with torch.device("meta"):
        model = build_classifier(settings, info)
    put_weights(model.network, read_weights(path), path)
    return model.to(device)

"""What a feature network is to the metrics: it owns its preprocessing, its name and the hash of its
weights.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """What a network says of B pictures; float32 on its device."""

    pool: Tensor  # (B, D): kernel distance, precision, recall, density, coverage, nearest neighbours
    spatial: Tensor | None = None  # (B, E): a second Frechet distance (sFID)
    probs: Tensor | None = None  # (B, classes): the Inception Score
    middle: Tensor | None = (
        None  # (B, F): read by the Frechet distance instead of pool when a network says so
    )

    @property
    def frechet(self) -> Tensor:
        """What the Frechet distance reads."""
        return self.pool if self.middle is None else self.middle


def frechet_column(columns: Container[str]) -> str:
    """Which of a network's features the Frechet distance reads."""
    return "middle" if "middle" in columns else "pool"


@dataclass(frozen=True, eq=False)
class Table:
    """Features of `n` single pictures, a column of `Features` at a time: what is not read takes no memory."""

    n: int
    widths: Mapping[str, int]
    """Column -> its dimensions."""
    load: Callable[[str], Tensor]
    """Column -> (n, D) float32, a new tensor."""
    folder: Path | None = None
    """Where the features are kept, and what takes long to work out of them may be."""

    @property
    def frechet(self) -> str:
        """The column that the Frechet distance reads."""
        return frechet_column(self.widths)

    @classmethod
    def of(cls, features: Features) -> "Table":
        """Features that are in memory."""
        found = {f.name: getattr(features, f.name) for f in fields(Features)}
        columns = {name: value for name, value in found.items() if value is not None}
        return cls(len(features.pool), {k: v.shape[1] for k, v in columns.items()}, columns.__getitem__)


class FeatureNetwork(Protocol):
    """A network that measures pictures."""

    @property
    def name(self) -> str:
        """Short; stands in brackets behind every number: FD[name]. `inception` alone may say FID and sFID."""
        ...

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights, hex."""
        ...

    @property
    def preprocess(self) -> str:
        """For people: size, resize, range."""
        ...

    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C), C 1 or 3; any size."""
        ...


def rgb(pixels: Tensor) -> Tensor:
    """(B, H, W, C) uint8 as (B, 3, H, W): grey is repeated three times, anything but 1 or 3 channels is
    refused.
    """
    if pixels.ndim != 4 or pixels.dtype != torch.uint8:
        raise ValueError(
            f"pictures have shape {tuple(pixels.shape)} and type {pixels.dtype}; expected uint8 (B, H, W, C)"
        )
    x = pixels.permute(0, 3, 1, 2)
    if x.shape[1] == 1:
        return x.expand(-1, 3, -1, -1)
    if x.shape[1] != 3:
        raise ValueError(f"pictures have {x.shape[1]} channels; feature networks read 1 or 3")
    return x


PUBLISHED_INCEPTION = "inception"


ADM, FIDELITY = "adm", "torch-fidelity"
EVALUATORS = (ADM, FIDELITY)
"""Whose definitions are followed where the two public evaluators differ."""
DIFFERENT = ("IS", "precision", "recall")
"""What torch-fidelity defines otherwise."""


@dataclass(frozen=True)
class Names:
    """How numbers of a network, an evaluator and pairs are called."""

    network: str
    evaluator: str = ADM
    paired: bool = False

    @property
    def inception(self) -> bool:
        """Whether these are the field's own names."""
        return self.network == PUBLISHED_INCEPTION

    def __call__(self, metric: str) -> str:
        """`FD` becomes FID with Inception and FD[name] with others, rFID and rFD[name] of reconstructions;
        `sFD` sFID; IS, KID, precision, ... likewise.
        """
        name = {"FD": "FID", "sFD": "sFID"}.get(metric, metric) if self.inception else metric
        if self.paired and metric == "FD":
            name = f"r{name}"
        if not self.inception:
            name = f"{name}[{self.network}]"
        if self.evaluator == FIDELITY and metric in DIFFERENT:
            name = f"{name} ({FIDELITY})"
        return name


def family(name: str) -> str:
    """The metric that a name is of, without its network and evaluator: FID, rFD, precision."""
    return name.split(" (")[0].split("[")[0]

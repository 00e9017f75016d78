"""What a latent model is told of its pictures without chance in it: made once, kept beside the latents."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from unnoise.config.model import ToldConfig
from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset
from unnoise.first_stage import FirstStage, unscaled
from unnoise.told import Teller
from unnoise.train.kept import Kept, OnProgress, keep


@dataclass(frozen=True, eq=False)
class KeptParts:
    """Parts of the conditions of every picture of a data set."""

    kept: Mapping[str, Kept] = field(default_factory=dict)
    """What is told -> its maps, latents before any scale."""

    def at(self, places: np.ndarray, stage: FirstStage) -> dict[str, Tensor]:
        """Those at places of the shuffled sequence (see `Dataset.batch`), latents scaled as the stage's."""
        found = {what: kept.at(places) for what, kept in self.kept.items()}
        return {what: stage.scale_by(part) if what == "grey" else part for what, part in found.items()}


def open_parts(
    config: TrainConfig, dataset: Dataset, stage: FirstStage, on_progress: OnProgress
) -> KeptParts:
    """From the cache, or made into it, for the settings of a model of the stage's latents."""
    plain = unscaled(stage)
    found = {}
    for told in config.model.told:
        if told.what == "grey":
            name = f"grey-{plain.hash}"
        elif told.what == "low_res" and told.degradation != "worn":
            name = f"low_res-{told.degradation}-{told.factor}"
        else:
            continue
        teller = Teller(replace(config.model, told=(told,)), first_stage=plain)
        found[told.what] = _kept(teller, told, name, dataset, stage.device, config.data.cache, on_progress)
    return KeptParts(found)


def _kept(
    teller: Teller,
    told: ToldConfig,
    name: str,
    dataset: Dataset,
    device: torch.device,
    folder: str | None,
    on_progress: OnProgress,
) -> Kept:
    def make(images: Tensor) -> Tensor:
        return teller.parts({}, images.to(device))[told.what]

    shape = make(torch.zeros(1, dataset.channels, dataset.size, dataset.size)).shape[1:]
    return keep(dataset, name, make, (shape[0], shape[1], shape[2]), folder, on_progress)

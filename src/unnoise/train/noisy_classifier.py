"""Training a classifier of noisy pictures: pictures at some t in, cross-entropy out (ADM section 4)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset
from unnoise.images import save_png, to_images
from unnoise.modelfile import ModelInfo, write_atomically
from unnoise.noisy_classifier import build_noisy_classifier, save_noisy_classifier
from unnoise.train.building import compute_in, data_summary, drawn_weights, network_around
from unnoise.train.diffusion import make_timesteps
from unnoise.train.job import Losses
from unnoise.train.latents import LatentSource
from unnoise.train.noised import QUARTERS, DiffusionBatch, noisy_batch, quarters
from unnoise.train.noisy_validation import NoisyValidation, hits, logits_at
from unnoise.train.validation import parts


class NoisyClassifierJob:
    """One encoder learning one data set's classes at every noise level. Settings are complete."""

    groups = QUARTERS
    warning = ""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device,
        source: LatentSource | None = None,
    ) -> None:
        assert config.noisy_classifier is not None, "settings are resolved"
        self.config, self.settings = config, config.noisy_classifier
        self.dataset, validation = parts(
            config, dataset, source=self.settings.validation, held_out=self.settings.held_out
        )
        self.source = source and source.of(self.dataset)
        self.identity = dataset.fingerprint
        info = ModelInfo(
            classes=dataset.classes, preset=config.preset, data=data_summary(dataset, len(self.dataset))
        )
        with drawn_weights(config.seed):
            self.model = build_noisy_classifier(self.settings, info).to(device)
        compute_in(self.model.network, config.precision, device)
        schedule = self.model.schedule
        self.timesteps = make_timesteps(config.timesteps, schedule.steps)
        seen = source and source.of(validation)
        self.validation = NoisyValidation(validation, schedule, self.settings.noised, config.seed, seen)

    @property
    def network(self) -> nn.Module:
        """The encoder with its pool."""
        return self.model.network

    def draw(self, step: int, positions: range) -> DiffusionBatch:
        """The pictures at these positions of the global batch with their noise and times."""
        return noisy_batch(self.config, self.dataset, self.source, step, positions)

    def losses(self, network: nn.Module, batch: DiffusionBatch) -> Losses:
        """Cross-entropy at times drawn by the timestep sampler, with the share of right answers."""
        assert batch.label is not None
        x0, schedule = self._x0(batch), self.model.schedule
        i, weight = self.timesteps.sample(batch.u)
        eps = batch.eps if self.settings.noised else None
        if eps is None:
            i = torch.zeros_like(i)
        logits = logits_at(network, schedule, x0, i, eps)
        loss = F.cross_entropy(logits, batch.label, reduction="none")
        return Losses(
            loss,
            weight=weight.to(loss.device),
            scores={name: value.float() for name, value in hits(logits, batch.label).items()},
            group=quarters(i, schedule.steps).to(loss.device),
            aside={"i": i.to(loss.device), "loss": loss},
        )

    def _x0(self, batch: DiffusionBatch) -> Tensor:
        """What is noised: pictures or latents."""
        if batch.latents is not None:
            return batch.latents
        assert batch.pixels is not None
        images = to_images(batch.pixels)
        return images if self.source is None else self.source.stage.encode(images)

    def observe(self, aside: Mapping[str, Tensor], *, steps: int) -> None:
        """Tell the timestep sampler which times cost how much."""
        self.timesteps.update(aside["i"].long(), aside["loss"])

    def state_dict(self) -> dict[str, Tensor]:
        """What the timestep sampler has learned."""
        return self.timesteps.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self.timesteps.load_state_dict(dict(state))

    def save(self, path: Path, weights: Mapping[str, Tensor], *, step: int, rate: float) -> None:
        """Write a model file."""
        info = replace(self.model.info, step=step, ema_rate=rate)
        save_noisy_classifier(path, replace(self.model, info=info), weights=weights)

    @property
    def sampled(self) -> int:
        """Pictures that a validation and its sheet put through the network."""
        return self.validation.passes

    def sample(
        self, path: Path, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]
    ) -> dict[str, float]:
        """Validate on pictures held out, and draw a sheet of what is said of some at several t.

        All that was measured, with the reliability of every quarter, goes beside the sheet as .json.
        """
        network = network_around(weights, self.model.network)
        seen = self.validation.measure(network, on_step)
        save_png(path, self.validation.sheet(network), {})
        content = json.dumps({part: asdict(measured) for part, measured in seen.items()}, indent=1)
        write_atomically(path.with_suffix(".json"), f"{content}\n".encode())
        return {
            f"validation/{name}" + ("" if part == "all" else f"/{part}"): value
            for part, measured in seen.items()
            for name, value in measured.numbers().items()
        }

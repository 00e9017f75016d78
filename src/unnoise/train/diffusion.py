"""Training a diffusion model: pictures, noise and times in, the objective's loss out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest
from unnoise.config.resolve import null_label
from unnoise.config.schema import ObjectiveConfig, TimestepConfig, TrainConfig
from unnoise.data import Dataset
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.low_res import shrink, with_low_res
from unnoise.diffusion.objectives import Hybrid, Objective, Simple, Vlb
from unnoise.diffusion.timesteps import LossSecondMoment, TimestepSampler, Uniform
from unnoise.generate import draw
from unnoise.images import save_png, to_images
from unnoise.job import sheet
from unnoise.model import Model, build_model, denoiser_of, save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.conditioned import MASK
from unnoise.planning import plan
from unnoise.telling import Telling
from unnoise.told_data import ToldData, open_told
from unnoise.train.building import compute_in, data_summary, drawn_weights, network_around
from unnoise.train.job import Losses
from unnoise.train.latents import LatentSource, posterior_noise
from unnoise.train.logvar import WithLogvar, inner
from unnoise.train.noised import QUARTERS, DiffusionBatch, quarters, unit_noise
from unnoise.train.upsampler import draw_augmentation, enlarge_some


class DiffusionJob:
    """One U-Net learning one data set, or its latents. Settings are complete (config.resolve)."""

    groups = QUARTERS
    warning = ""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device,
        source: LatentSource | None = None,
        told: ToldData | None = None,
    ) -> None:
        self.config, self.dataset, self.source = config, dataset, source
        told = told or open_told(config.model, config.data, dataset)
        self.beside, tokenizer, frozen = told.beside, told.tokenizer, told.frozen
        self.identity = dataset.fingerprint + told.fingerprint
        info = ModelInfo(
            classes=dataset.classes,
            null_label=null_label(config),
            preset=config.preset,
            box_classes=self.beside.box_classes if self.beside else (),
            text_encoder=frozen.hash if frozen else "",
            vocabulary=tokenizer.pieces if tokenizer else (),
            data=data_summary(dataset, len(dataset)),
        )
        with drawn_weights(config.seed):
            self.model = build_model(config.model, info, source.stage if source else None).to(device)
        self.teller = replace(self.model.teller, frozen=frozen)
        compute_in(self.model.network, config.precision, device)
        if source is not None:  # what no cache holds is encoded at every step
            compute_in(source.stage.network, config.precision, device)
        self.objective, self.weighed = make_objective(config.objective), None
        if config.objective.learn_logvar:
            steps, start = self.model.schedule.steps, config.objective.logvar_init
            self.weighed = WithLogvar(self.model.network, steps, start).to(device)
        self.timesteps = make_timesteps(config.timesteps, self.model.schedule.steps)

    @property
    def network(self) -> nn.Module:
        """The U-Net, with the log variances of its errors where those are learned."""
        return self.model.network if self.weighed is None else self.weighed

    def draw(self, step: int, positions: range) -> DiffusionBatch:
        """The pictures at these positions of the global batch with their noise, times and dropped labels."""
        batch, dropped = self._batch(step, positions)
        null = self.model.null_label
        if batch.label is not None and null is not None:
            label = torch.where(dropped < self.config.label_dropout, null, batch.label)
            batch = replace(batch, label=label)
        if self.config.model.low_res_noise:
            level, z = draw_augmentation(self.config, step, positions)
            batch = replace(batch, level=level, z=z)
        return batch

    def _batch(self, step: int, positions: range) -> tuple[DiffusionBatch, Tensor]:
        """A batch without dropped labels, and numbers in [0, 1) to drop them by."""
        source, teller, config = self.source, self.teller, self.config
        shape = config.model.shape
        pixels, latents, raw = None, None, {}
        places = np.arange(positions.start, positions.stop) + step * config.batch_size
        label = self.dataset.labels_at(places)
        ready = {} if source is None else source.parts.kept
        if source is None or source.latents is None or teller.needs_pictures(ready):
            pictures = self.dataset.batch(step, places)
            pixels = pictures.pixels
        elif teller.told:
            pictures = self.dataset.facts_at(places)
        if teller.told:
            aside = self.beside.at(places) if self.beside else None
            if pictures.caption is not None:
                captions = teller.thinned(pictures.caption, seed=config.seed, places=places)
                pictures = replace(pictures, caption=captions)
            raw = teller.raw(pictures, aside, seed=config.seed, places=places)
            if source is not None:
                raw |= source.parts.at(places, source.stage)
        if source is not None and source.latents is not None:
            z = posterior_noise(config, step, positions, shape)
            latents = source.batch(places, z)
        eps, u, rest = unit_noise(config, step, positions, shape)
        untold = teller.left_out(config.seed, step, config.batch_size, positions)
        return DiffusionBatch(pixels, eps, u, label, latents=latents, raw=raw, untold=untold), rest

    def _x0(self, batch: DiffusionBatch) -> Tensor:
        """What the network learns to draw."""
        if batch.latents is not None:
            return batch.latents
        assert batch.pixels is not None
        return self.model.encode(to_images(batch.pixels))

    def _told(self, batch: DiffusionBatch) -> Condition:
        """What the network is told, some of it left out."""
        if not self.teller.told:
            return Condition(label=batch.label)
        images = None if batch.pixels is None else to_images(batch.pixels)
        cond = Condition(label=batch.label, parts=self.teller.parts(batch.raw, images))
        nothing = self.teller.untold
        for what, where in batch.untold.items():
            dropped = {name: value for name, value in nothing.items() if name in (what, what + MASK)}
            cond = null(cond, dropped, where=where)
        return cond

    def losses(self, network: nn.Module, batch: DiffusionBatch) -> Losses:
        """The objective at times drawn by the timestep sampler."""
        x0 = self._x0(batch)
        i, weight = self.timesteps.sample(batch.u)
        at = self.model.schedule.at(i, x0)
        cond = self._told(batch)
        if self.config.model.low_res:
            cond = with_low_res(cond, shrink(x0, self.config.model.low_res), level=batch.level, z=batch.z)
        logvar = None if self.weighed is None else self.weighed.at(i)
        terms = self.objective(self._denoiser(network), x0, at, eps=batch.eps, cond=cond, logvar=logvar)
        loss = terms.pop("loss")
        quarter = quarters(i, self.model.schedule.steps)
        return Losses(
            loss,
            weight=weight.to(loss.device),
            parts=terms,
            scores={} if logvar is None else {"logvar": logvar},
            group=quarter.to(loss.device),
            aside={"i": i.to(loss.device), "loss": loss},
        )

    def observe(self, aside: Mapping[str, Tensor], *, steps: int) -> None:
        """Tell the timestep sampler which times cost how much."""
        self.timesteps.update(aside["i"].long(), aside["loss"])

    def state_dict(self) -> dict[str, Tensor]:
        """What the timestep sampler has learned."""
        return self.timesteps.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self.timesteps.load_state_dict(dict(state))

    def save(
        self,
        path: Path,
        weights: Mapping[str, Tensor],
        *,
        step: int,
        rate: float,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Write a model file, with what was measured of it."""
        info = replace(self.model.info, step=step, ema_rate=rate, scores=dict(scores or {}))
        save_model(path, replace(self.model, info=info), weights=self._inner(weights))

    @property
    def sampled(self) -> int:
        """Pictures of a grid times its steps."""
        classes = 0 if self.config.model.low_res else len(self.dataset.classes)
        return self.config.sample_steps * grid_size(self.config, classes)

    def sample(
        self, path: Path, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]
    ) -> dict[str, float]:
        """Draw a grid: the same pictures every time, so that one sees them grow."""
        model = self.averaged(weights)
        if self.config.model.low_res:
            count = min(grid_size(self.config, 0), len(self.dataset))
            return enlarge_some(model, self.dataset, self.config, path, count=count, on_step=on_step)
        request = GenerateRequest(
            n=grid_size(self.config, len(self.dataset.classes)),
            steps=str(self.config.sample_steps),
            seed=self.config.seed,
            precision=self.config.precision,
        )
        ready = plan(model, request, telling=self.telling(model))
        drawn = torch.cat([batch.pixels for batch in draw(ready, ready.ids, lambda _: on_step())])
        save_png(path, sheet(ready, drawn.numpy()), to_dict(request))
        return {}

    def telling(self, model: Model) -> Telling | None:
        """Training pictures that a model is told of, in the seed's order; None for one that is told none."""
        if not self.teller.told:
            return None
        return Telling(
            replace(model.teller, frozen=self.teller.frozen),
            (),
            self.dataset,
            self.beside,
            self.config.seed,
            shuffled=True,
        )

    def averaged(self, weights: Mapping[str, Tensor]) -> Model:
        """A model of its own around other weights, which it shares."""
        network = network_around(self._inner(weights), self.model.network)
        return replace(self.model, denoiser=self._denoiser(network))

    def _inner(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Those of the U-Net alone."""
        return weights if self.weighed is None else inner(weights)

    def _denoiser(self, network: nn.Module) -> Denoiser:
        return denoiser_of(network, self.config.model)


def grid_size(config: TrainConfig, classes: int) -> int:
    """Pictures in a sample grid: two of each class where they are few."""
    return config.sample_count or (2 * classes if 1 < classes <= 10 else 16)


def make_objective(config: ObjectiveConfig) -> Objective:
    """What the settings say is minimised."""
    if config.name == "vlb":
        return Vlb()
    if config.name == "simple":
        return Simple(
            weight=config.weight,
            min_snr_gamma=config.min_snr_gamma,
            error=config.error,
            simple_weight=config.simple_weight,
            elbo_weight=config.elbo_weight,
        )
    return Hybrid(weight=config.weight, min_snr_gamma=config.min_snr_gamma, vlb_weight=config.vlb_weight)


def make_timesteps(config: TimestepConfig, steps: int) -> TimestepSampler:
    """What the settings say decides the times."""
    if config.name == "uniform":
        return Uniform(steps)
    return LossSecondMoment(steps, config.history, config.uniform_prob)

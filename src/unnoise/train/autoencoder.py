"""Training a first stage: pictures in, pictures out, against an adversary (arXiv 2112.10752, section 3.1).

The loop optimises the autoencoder and its log variance; the adversary is the job's own and takes its step
after each of them, on the same pictures and on their reconstructions from before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset, open_data
from unnoise.data.split import hold_out
from unnoise.diffusion.noise import seeded_generator
from unnoise.first_stage import make_first_stage, save_first_stage
from unnoise.images import save_png, to_images
from unnoise.modelfile import ModelInfo
from unnoise.networks.autoencoder import FirstStageNetwork, KlAutoencoder, VqAutoencoder, encoding_weights
from unnoise.networks.posterior import Posterior
from unnoise.networks.quantize import Quantised
from unnoise.train import first_stage_losses as costs
from unnoise.train.adversary import Adversary
from unnoise.train.autoencoder_validation import AutoencoderValidation
from unnoise.train.building import compute_in, data_summary, drawn_weights, network_around
from unnoise.train.codebook import CodeUse
from unnoise.train.job import Losses
from unnoise.train.perceptual import open_perceptual

STAGE = "stage."
"""Prefix of the autoencoder's tensors among those that are trained."""


@dataclass(frozen=True, eq=False)
class AutoencoderBatch:
    """Pictures of a step with the noise of their latents."""

    pixels: Tensor
    """uint8 (B, H, W, C)."""
    step: int
    z: Tensor | None = None
    """Unit noise (B, latent channels, H / f, W / f) for Gaussian latents."""
    noise: Tensor | None = None
    """(B,): more of it, in deviations of the latents; None for none."""

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: slice) -> "AutoencoderBatch":
        """Some of the rows."""
        return self._map(lambda value: value[rows])

    def to(self, device: torch.device) -> "AutoencoderBatch":
        """On a device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin(self) -> "AutoencoderBatch":
        """In page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "AutoencoderBatch":
        z, noise = (None if value is None else change(value) for value in (self.z, self.noise))
        return replace(self, pixels=change(self.pixels), z=z, noise=noise)


class Trained(nn.Module):
    """What the loop optimises: the autoencoder, and the log variance where that is learned."""

    def __init__(self, stage: FirstStageNetwork, logvar: float, learned: bool) -> None:
        super().__init__()
        self.stage = stage
        start = torch.tensor(logvar)
        self.logvar = nn.Parameter(start) if learned else None
        self.register_buffer("fixed_logvar", start.clone(), persistent=False)

    def forward(
        self, images: Tensor, z: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Posterior | Quantised, Tensor]:
        """Reconstructions, what became of the latents, the log variance."""
        found = self.stage(images) if z is None else self.stage(images, z, noise)
        logvar = self.fixed_logvar if self.logvar is None else self.logvar
        return *found, logvar


@dataclass(frozen=True, eq=False)
class _Seen:
    """Of one micro-batch, for what learns after the step."""

    images: Tensor
    reconstructions: Tensor
    quantised: Quantised | None


class AutoencoderJob:
    """One first stage learning one data set. Settings are complete."""

    groups = ()
    warning = ""

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        assert config.autoencoder is not None, "settings are resolved"
        self.config, self.settings = config, config.autoencoder
        self.dataset, validation = _parts(config, dataset)
        self.identity = dataset.fingerprint
        info = ModelInfo(preset=config.preset, data=data_summary(dataset, len(self.dataset)))
        with drawn_weights(config.seed):
            self.first_stage = make_first_stage(self.settings, info).to(device)
            stage = self.first_stage.network
            compute_in(stage, config.precision, device)
            if self.settings.freeze_encoder:
                kept = encoding_weights(stage)
                for name, parameter in stage.named_parameters():
                    parameter.requires_grad_(name not in kept)
            self.network = Trained(stage, self.settings.logvar_init, self.settings.learn_logvar).to(device)
            self.adversary = Adversary(
                self.settings.adversary, config.optimizer, channels=self.settings.network.in_channels or 0,
                batch_size=config.batch_size, device=device, dtype=stage.compute_dtype,
            )  # fmt: skip
        side, least = config.data.size or 0, self.adversary.network.least_side
        if side < least and self.settings.adversary.weight:
            raise ValueError(
                f"pictures of {side} pixels are too small for a discriminator of "
                f"{self.settings.adversary.network.layers} layers, which needs {least}; use larger pictures, "
                "a smaller autoencoder.adversary.network.layers, or autoencoder.adversary.weight=0"
            )
        self.perceptual = open_perceptual(self.settings.perceptual, device)
        self.codes = _code_use(stage, config)
        self.validation = AutoencoderValidation(validation, config.seed, self.perceptual)
        self._seen: list[_Seen] = []
        self._step = -1

    def draw(self, step: int, positions: range) -> AutoencoderBatch:
        """The pictures at these positions of a step's global batch, with the noise of Gaussian latents."""
        places = np.arange(positions.start, positions.stop) + step * self.config.batch_size
        pixels = self.dataset.batch(step, places).pixels
        if not isinstance(self.first_stage.network, KlAutoencoder):
            return AutoencoderBatch(pixels, step)
        count, height, width, _ = pixels.shape
        f = self.first_stage.factor
        z = torch.empty(count, self.first_stage.channels, height // f, width // f)
        noise = torch.empty(count) if self.settings.latent_noise else None
        for number, place in enumerate(places.tolist()):
            generator = seeded_generator(self.config.seed, "noise", place)
            z[number].normal_(generator=generator)
            if noise is not None:
                noise[number].uniform_(0, self.settings.latent_noise, generator=generator)
        return AutoencoderBatch(pixels, step, z, noise)

    def losses(self, network: nn.Module, batch: AutoencoderBatch) -> Losses:
        """Reconstruction and regularisation, and the adversary's verdict once it plays."""
        images = to_images(batch.pixels)
        reconstructions, about, logvar = network(images, batch.z, batch.noise)
        weight = self.settings.perceptual_weight
        distance = self.perceptual(images, reconstructions) if self.perceptual and weight else None
        error = costs.errors(
            self.settings.pixel_loss, images, reconstructions, None if distance is None else weight * distance
        )
        gaussian = isinstance(about, Posterior)
        nll = costs.gaussian_nll(error, logvar) if gaussian else costs.mean_nll(error, logvar)
        cost, parts, latents = self._regularised(about, len(images))
        loss = nll + cost
        scores = _scores(images, reconstructions.detach(), latents.detach(), logvar.detach())
        if self.adversary.active:
            deceived = self.adversary.deceived(reconstructions)
            last = self.first_stage.network.decoder.last_layer
            balance = costs.adaptive_weight(nll.mean(), deceived.mean(), last)
            loss = loss + self.settings.adversary.weight * balance * deceived
            parts["adversarial"] = deceived
            scores["adversary/weight"] = balance.expand(len(images))
            scores["adversary/margin"] = torch.full_like(deceived, self.adversary.margin)
        if self.codes:
            scores["codebook/usage"] = torch.full_like(loss, self.codes.usage)
            scores["codebook/perplexity"] = torch.full_like(loss, self.codes.perplexity)
        if distance is not None:
            parts["perceptual"] = distance.flatten()
        self._keep(batch, images, reconstructions, about)
        return Losses(loss, parts=parts, scores=scores, aside={"error": error.detach().mean((1, 2, 3))})

    def observe(self, aside: Mapping[str, Tensor], *, steps: int) -> None:
        """The turn of the adversary and of unused codes, after a step of the first stage."""
        if self.adversary.active:
            self.adversary.learn([(each.images, each.reconstructions) for each in self._seen], steps)
        self.adversary.count(aside["error"].mean().item(), steps)
        quantised = [each.quantised for each in self._seen if each.quantised is not None]
        if self.codes:
            self.codes.count([each.indices for each in quantised], [each.given for each in quantised])
        self._seen = []

    def state_dict(self) -> dict[str, Tensor]:
        """The adversary with its optimiser, and the use of codes."""
        state = {f"adversary.{name}": value for name, value in self.adversary.state_dict().items()}
        if self.codes:
            state |= {f"codes.{name}": value for name, value in self.codes.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        self._seen, self._step = [], -1
        self.adversary.load_state_dict(_below(state, "adversary."))
        if self.codes:
            self.codes.load_state_dict(_below(state, "codes."))

    def save(self, path: Path, weights: Mapping[str, Tensor], *, step: int, rate: float) -> None:
        """Write a model file, with the scale of the latents of held-out pictures."""
        network = self._around(weights)
        info = replace(self.first_stage.info, step=step, ema_rate=rate)
        stage = replace(self.first_stage, network=network, info=info)
        save_first_stage(path, stage.scaled(self.validation.latents(stage)))

    @property
    def sampled(self) -> int:
        """Pictures that a validation puts through the network."""
        return self.validation.passes

    def sample(
        self, path: Path, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]
    ) -> Mapping[str, float]:
        """Draw held-out pictures beside their reconstructions; returns what was measured of them."""
        network = self._around(weights)
        measured = self.validation.measure(network, on_step)
        save_png(path, self.validation.sheet(network), {})
        return {f"validation/{name}": value for name, value in measured.items()}

    def _around(self, weights: Mapping[str, Tensor]) -> FirstStageNetwork:
        return network_around(_below(weights, STAGE), self.first_stage.network)

    def _regularised(
        self, about: Posterior | Quantised, count: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """What the latents cost, its part in the log, and the latents."""
        if isinstance(about, Posterior):
            kl = about.kl()
            return self.settings.kl_weight * kl, {"kl": kl}, about.mean
        loss = about.loss.expand(count)
        return self.settings.codebook_weight * loss, {"codebook": loss}, about.given

    def _keep(
        self, batch: AutoencoderBatch, images: Tensor, reconstructions: Tensor, about: Posterior | Quantised
    ) -> None:
        if batch.step != self._step:
            self._seen, self._step = [], batch.step
        quantised = None
        if isinstance(about, Quantised):
            quantised = replace(about, given=about.given.detach())
        self._seen.append(_Seen(images, reconstructions.detach(), quantised))


def _scores(images: Tensor, reconstructions: Tensor, latents: Tensor, logvar: Tensor) -> dict[str, Tensor]:
    """For the log, picture by picture: PSNR in dB, what latents are like."""
    squared = (images - reconstructions.clamp(-1, 1)).square().mean((1, 2, 3)).clamp_min(1e-10)
    return {
        "psnr": 10 * torch.log10(4 / squared),
        "latents/mean": latents.mean((1, 2, 3)),
        "latents/std": latents.std((1, 2, 3)),
        "logvar": logvar.expand(len(images)),
    }


def _parts(config: TrainConfig, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Pictures to learn from and to validate on."""
    assert config.autoencoder is not None, "settings are resolved"
    if not config.autoencoder.validation:
        return hold_out(dataset, config.autoencoder.held_out)
    data = replace(
        config.data, source=config.autoencoder.validation, flip=False, crop="center", labels="none"
    )
    return dataset, open_data(data, seed=config.seed)


def _code_use(network: FirstStageNetwork, config: TrainConfig) -> CodeUse | None:
    if not isinstance(network, VqAutoencoder):
        return None
    assert config.autoencoder is not None, "settings are resolved"
    return CodeUse(network.quantize, revive_after=config.autoencoder.revive_after, seed=config.seed)


def _below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

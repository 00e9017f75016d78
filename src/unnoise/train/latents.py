"""Latents of the training pictures: encoded once, kept beside the decoded ones, measured for their scale."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise import distributed
from unnoise.config.model import LatentConfig
from unnoise.config.schema import NoisyClassifierConfig, TrainConfig
from unnoise.data import Dataset, order
from unnoise.diffusion.noise import seeded_generator
from unnoise.first_stage import FirstStage, load_first_stage, measure_latents, unscaled
from unnoise.images import to_images
from unnoise.model import Model, load_model
from unnoise.modelfile import find_model, read_header
from unnoise.networks.autoencoder import KlAutoencoder
from unnoise.train.events import Encoding, Listener, Note
from unnoise.train.kept import BLOCK, Kept, OnProgress, keep
from unnoise.train.kept_parts import KeptParts, open_parts
from unnoise.weights import diffusers, published
from unnoise.weights.torchfile import is_torch_file


def open_first_stage(config: TrainConfig, device: torch.device) -> tuple[TrainConfig, FirstStage | None]:
    """The first stage that the settings name, and the settings with what follows from it; none for pixels.

    Its latents are not scaled yet. ValueError when it does not fit the settings.
    """
    known = latent_of(config)
    if config.kind not in ("diffusion", "noisy_classifier"):
        return config, None
    if not config.first_stage:
        if known is not None:
            owner = "noisy_classifier" if config.kind == "noisy_classifier" else "model"
            raise ValueError(
                f"{owner}.latent is set and no first_stage is named; name its file with first_stage"
            )
        return config, None
    stage, scaled = load_stage(config.first_stage, device)
    channels, named = stage.config.network.in_channels, config.data.channels or config.model.channels
    if named not in (None, channels):
        raise ValueError(
            f"first_stage={config.first_stage} encodes pictures of {channels} channels, and the settings say "
            f"{named}; leave that out, or train a first stage on such pictures"
        )
    if config.latents.scale == "auto":
        config = replace(config, latents=replace(config.latents, scale="keep" if scaled else "model"))
    if config.kind == "diffusion":
        config = replace(config, model=replace(config.model, channels=channels))
    config = replace(config, data=replace(config.data, channels=channels))
    return _with_latent(config, stage, ""), stage


def load_stage(path: str, device: torch.device, *, setting: str = "first_stage") -> tuple[FirstStage, bool]:
    """The first stage of a file, and whether a latent model brought it, with the scale that it draws in.

    ValueError, which names the setting, when there is none in it.
    """
    file = find_model(Path(path))
    found: Model | FirstStage
    if is_torch_file(file):
        read = published.load(file)
        if not isinstance(read, Model | FirstStage):
            raise ValueError(f"{setting}={path} is a classifier of noisy pictures; name a first stage")
        found = read
    elif diffusers.is_weights(file) or read_header(file).get("kind", "diffusion") == "diffusion":
        found = load_model(file)
    else:
        found = load_first_stage(file)
    if isinstance(found, FirstStage):
        return found.to(device), False
    if found.first_stage is None:
        raise ValueError(
            f"{setting}={path} is a model of pixels, which has none; name a first stage, such as a run of "
            "kl-f4-tiny, or a latent model"
        )
    return found.first_stage.to(device), True


def latent_of(config: TrainConfig) -> LatentConfig | None:
    """The latents that a run learns; None for pixels."""
    if config.kind == "noisy_classifier":
        return (config.noisy_classifier or NoisyClassifierConfig()).latent
    return config.model.latent


def _with_latent(config: TrainConfig, stage: FirstStage, hash: str) -> TrainConfig:
    """Settings of a run that learns the latents of a first stage; hash: of it with its scale, "" before."""
    latent = LatentConfig(channels=stage.channels, factor=stage.factor, first_stage=hash)
    if config.kind != "noisy_classifier":
        return replace(config, model=replace(config.model, latent=latent))
    settings = config.noisy_classifier or NoisyClassifierConfig()
    scale = stage.scale if hash else ()
    return replace(config, noisy_classifier=replace(settings, latent=latent, latent_scale=scale))


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of every picture of a data set, before any scale: what the first stage's encoder gives."""

    kept: Kept
    """Of a KL one means and log variances."""
    gaussian: bool

    @property
    def moments(self) -> np.ndarray:
        """(N, K, C, h, w) float16; K is 1 or, where pictures are mirrored, 2."""
        return self.kept.values

    def batch(self, places: np.ndarray, z: Tensor) -> Tensor:
        """Those at places of the shuffled sequence (see `Dataset.batch`), unit noise z drawn into them.

        (B, channels, h, w) float32.
        """
        return self._drawn(self.kept.at(places), z)

    def take(self, chosen: np.ndarray, z: Tensor) -> Tensor:
        """Those of pictures by their index, not mirrored, unit noise z drawn into them."""
        return self._drawn(self.kept.take(chosen), z)

    def means(self, most: int, seed: int) -> Iterator[Tensor]:
        """Latents of at most so many pictures, chosen by the seed; without noise, not mirrored."""
        chosen = _some(seed, len(self.kept.dataset), most)
        for start in range(0, len(chosen), 4 * BLOCK):
            moments = self.kept.take(chosen[start : start + 4 * BLOCK])
            yield moments.chunk(2, 1)[0] if self.gaussian else moments

    def _drawn(self, moments: Tensor, z: Tensor) -> Tensor:
        if not self.gaussian:
            return moments
        mean, logvar = moments.chunk(2, 1)
        return mean + torch.exp(0.5 * logvar) * z


def _some(seed: int, count: int, most: int) -> np.ndarray:
    """At most so many of `count` pictures, chosen by the seed, in their order."""
    return np.sort(order.pictures(seed, count, np.arange(min(most, count))))


def cached_latents(
    dataset: Dataset, stage: FirstStage, folder: str | None, on_progress: OnProgress
) -> Latents:
    """The latents of a data set, from the cache or encoded into it; an interrupted encoding continues.

    The cache knows data and first stage by their hashes: that of another one is never taken; the scale is no
    part of it. OSError when the disk is full.
    """
    gaussian = isinstance(stage.network, KlAutoencoder)
    side = dataset.size // stage.factor
    shape = stage.channels * (1 + gaussian), side, side
    name = unscaled(stage).hash

    def encode(images: Tensor) -> Tensor:
        return stage.network.encode(images.to(stage.device))

    return Latents(keep(dataset, name, encode, shape, folder, on_progress), gaussian)


def scaled(stage: FirstStage, config: TrainConfig, batches: Iterator[Tensor]) -> FirstStage:
    """The first stage with the scale that the settings ask for, measured over unscaled latents."""
    if config.latents.scale == "keep":
        return stage
    return stage.scaled(measure_latents(batches), per_channel=config.latents.scale == "channel")


def encoded_means(
    dataset: Dataset, stage: FirstStage, most: int, on_progress: OnProgress
) -> Iterator[Tensor]:
    """As `Latents.means`, encoded for the occasion."""
    chosen = _some(dataset.seed, len(dataset), most)
    for start in range(0, len(chosen), BLOCK):
        images = to_images(dataset.take(chosen[start : start + BLOCK]).pixels).to(stage.device)
        yield unscaled(stage).encode(images)
        on_progress(min(start + BLOCK, len(chosen)), len(chosen))


def posterior_noise(config: TrainConfig, step: int, positions: range, shape: tuple[int, int, int]) -> Tensor:
    """Unit noise (B, *shape) for drawing latents: a function of (seed, place in the sequence)."""
    z = torch.empty(len(positions), *shape)
    for row, position in zip(z, positions, strict=True):
        row.normal_(generator=seeded_generator(config.seed, "latents", step * config.batch_size + position))
    return z


@dataclass(frozen=True, eq=False)
class LatentSource:
    """Where the latents come from that a model, or a classifier, learns."""

    stage: FirstStage
    """Scaled."""
    latents: Latents | None
    """None where pictures are encoded as they come."""
    cached: Callable[[Dataset], Latents]
    """The latents of other pictures, from the cache or encoded into it."""
    parts: KeptParts = field(default_factory=KeptParts)
    """What a model is told of the pictures, as far as that is cached."""

    def of(self, part: Dataset) -> "LatentSource":
        """That of a part of the data, as `hold_out` makes it, or of other pictures."""
        if self.latents is None:
            return self
        kept = self.latents.kept
        if not kept.has(part):
            return replace(self, latents=self.cached(part))
        return replace(self, latents=replace(self.latents, kept=kept.part(part)))

    def batch(self, places: np.ndarray, z: Tensor) -> Tensor:
        """Scaled latents at places of the shuffled sequence, from the cache."""
        assert self.latents is not None, "pictures are encoded as they come"
        return self.stage.scale_by(self.latents.batch(places, z))

    def take(self, dataset: Dataset, chosen: np.ndarray, z: Tensor) -> Tensor:
        """Scaled latents of pictures of a data set by their index, as training sees those: encoded as they
        come they are the likeliest.
        """
        if self.latents is not None:
            return self.stage.scale_by(self.latents.take(chosen, z))
        return self.stage.encode(to_images(dataset.take(chosen).pixels).to(self.stage.device)).cpu()


def open_latents(
    config: TrainConfig, dataset: Dataset, stage: FirstStage, on_event: Listener, device: torch.device
) -> tuple[TrainConfig, LatentSource]:
    """The latents of the data, the first stage with its scale, and settings that know its hash.

    The first process encodes what is not cached.
    """

    def encoding(done: int, total: int) -> None:
        on_event(Encoding(done=done, total=total))

    def cached(data: Dataset) -> Latents:
        return cached_latents(data, stage, config.data.cache, encoding)

    def both() -> tuple[Latents, KeptParts]:
        parts = open_parts(config, dataset, stage, encoding) if config.kind == "diffusion" else KeptParts()
        return cached(dataset), parts

    def encode() -> None:
        both()

    latents, parts = None, KeptParts()
    if config.latents.cache:
        distributed.on_main(encode, device)
        latents, parts = both()
    most = config.latents.measured
    means = latents.means(most, dataset.seed) if latents else encoded_means(dataset, stage, most, encoding)
    source = LatentSource(scaled(stage, config, means), latents, cached, parts)
    config = _with_latent(config, source.stage, source.stage.hash)
    side, scale = dataset.size // stage.factor, ", ".join(f"{value:.4g}" for value in source.stage.scale)
    on_event(Note(text=f"latents: {stage.channels}x{side}x{side}, scaled by {scale}"))
    return config, source

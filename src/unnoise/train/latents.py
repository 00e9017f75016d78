"""Latents of the training pictures: encoded once, kept beside the decoded ones, measured for their scale."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.config.schema import LatentConfig, TrainConfig
from unnoise.data import Dataset, cache, order
from unnoise.diffusion.noise import seeded_generator
from unnoise.first_stage import FirstStage, load_first_stage, measure_latents
from unnoise.images import to_images
from unnoise.modelfile import write_atomically
from unnoise.networks.autoencoder import KlAutoencoder

BLOCK = 64
"""Pictures encoded side by side."""
SAVED_EVERY = 16
"""Blocks between notes of how far the encoding came."""

OnProgress = Callable[[int, int], None]


def open_first_stage(config: TrainConfig, device: torch.device) -> tuple[TrainConfig, FirstStage | None]:
    """The first stage that the settings name, and the settings with what follows from it; none for pixels.

    Its latents are not scaled yet. ValueError when it does not fit the settings.
    """
    if not config.first_stage:
        if config.model.latent is not None:
            raise ValueError(
                "model.latent is set and no first_stage is named; name its file with first_stage"
            )
        return config, None
    stage = load_first_stage(config.first_stage, device)
    channels, named = stage.config.network.in_channels, config.data.channels or config.model.channels
    if named not in (None, channels):
        raise ValueError(
            f"first_stage={config.first_stage} encodes pictures of {channels} channels, and the settings say "
            f"{named}; leave that out, or train a first stage on such pictures"
        )
    latent = LatentConfig(channels=stage.channels, factor=stage.factor, first_stage="")
    model = replace(config.model, latent=latent, channels=channels)
    return replace(config, model=model), stage


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of every picture of a data set, before any scale, mapped from the cache."""

    moments: np.ndarray
    """(N, K, C, h, w) float16; K is 1 or, where pictures are mirrored, 2; C as the first stage's encoder
    gives: means and log variances of a KL one."""
    dataset: Dataset
    gaussian: bool

    def batch(self, places: np.ndarray, z: Tensor) -> Tensor:
        """Those at places of the shuffled sequence (see `Dataset.batch`), unit noise z drawn into them.

        (B, channels, h, w) float32.
        """
        data = self.dataset
        chosen = order.pictures(data.seed, len(data), places)
        mirrored = np.zeros(len(places), np.int64)
        if data.flip:
            mirrored = (order.draws(data.seed, "flip", places) & np.uint64(1)).astype(np.int64)
        moments = torch.from_numpy(self.moments[chosen, mirrored]).float()
        if not self.gaussian:
            return moments
        mean, logvar = moments.chunk(2, 1)
        return mean + torch.exp(0.5 * logvar) * z

    def means(self, most: int, seed: int) -> Iterator[Tensor]:
        """Latents of at most so many pictures, chosen by the seed; without noise, not mirrored."""
        count = min(most, len(self.moments))
        chosen = np.sort(order.pictures(seed, len(self.moments), np.arange(count)))
        for start in range(0, count, 4 * BLOCK):
            moments = torch.from_numpy(self.moments[chosen[start : start + 4 * BLOCK], 0]).float()
            yield moments.chunk(2, 1)[0] if self.gaussian else moments


def cached_latents(
    dataset: Dataset, stage: FirstStage, folder: str | None, on_progress: OnProgress
) -> Latents:
    """The latents of a data set, from the cache or encoded into it; an interrupted encoding continues.

    The cache knows data and first stage by their hashes: that of another one is never taken. OSError when the
    disk is full.
    """
    if dataset.crop == "random":
        raise ValueError(
            "data.crop=random shows every picture in many ways, which no cache of latents can hold; use "
            "data.crop=center, or latents.cache=false"
        )
    views = 2 if dataset.flip else 1
    content = f"{dataset.content[:32]}-{dataset.size}x{dataset.channels}-{stage.hash}-{views}"
    path = cache.home(folder) / "latents" / f"{content}.npy"
    gaussian = isinstance(stage.network, KlAutoencoder)
    if not path.exists():
        with cache.building(path):
            if not path.exists():  # another process may have made it meanwhile
                _encode(dataset, stage, views, path, on_progress)
    moments = np.load(path, mmap_mode="r", allow_pickle=False)
    side = dataset.size // stage.factor
    if moments.shape != (len(dataset), views, stage.channels * (1 + gaussian), side, side):
        raise ValueError(f"{path} holds other latents than its name says; delete it")
    return Latents(moments, dataset, gaussian)


def _encode(dataset: Dataset, stage: FirstStage, views: int, path: Path, on_progress: OnProgress) -> None:
    """Write the latents of all pictures, block by block, aside; then under their name."""
    aside, noted = path.with_suffix(".part.npy"), path.with_suffix(".json")
    side, channels = (
        dataset.size // stage.factor,
        stage.channels * (1 + isinstance(stage.network, KlAutoencoder)),
    )
    shape = (len(dataset), views, channels, side, side)
    done = _noted(noted) if aside.exists() else 0
    mode = "r+" if done else "w+"
    whole = np.lib.format.open_memmap(aside, mode=mode, dtype=np.float16, shape=shape)
    for number, start in enumerate(range(done, len(dataset), BLOCK)):
        stop = min(start + BLOCK, len(dataset))
        images = to_images(dataset.take(np.arange(start, stop)).pixels).to(stage.device)
        for view in range(views):
            seen = images.flip(3) if view else images
            with torch.no_grad():
                whole[start:stop, view] = stage.network.encode(seen).half().cpu().numpy()
        on_progress(stop, len(dataset))
        if number % SAVED_EVERY == SAVED_EVERY - 1:
            whole.flush()
            write_atomically(noted, json.dumps(stop).encode())
    whole.flush()
    del whole
    aside.replace(path)
    noted.unlink(missing_ok=True)


def _noted(path: Path) -> int:
    """How many pictures an interrupted encoding has written; 0 where that cannot be read."""
    try:
        return int(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return 0


def scaled(stage: FirstStage, config: TrainConfig, batches: Iterator[Tensor]) -> FirstStage:
    """The first stage with the scale that the settings ask for, measured over unscaled latents."""
    if config.latents.scale == "keep":
        return stage
    return stage.scaled(measure_latents(batches), per_channel=config.latents.scale == "channel")


def encoded_means(dataset: Dataset, stage: FirstStage, most: int) -> Iterator[Tensor]:
    """As `Latents.means`, encoded for the occasion."""
    count = min(most, len(dataset))
    chosen = np.sort(order.pictures(dataset.seed, len(dataset), np.arange(count)))
    unscaled = replace(stage, scale=(1.0,))
    for start in range(0, count, BLOCK):
        images = to_images(dataset.take(chosen[start : start + BLOCK]).pixels).to(stage.device)
        yield unscaled.encode(images)


def posterior_noise(config: TrainConfig, step: int, positions: range, shape: tuple[int, int, int]) -> Tensor:
    """Unit noise (B, *shape) for drawing latents: a function of (seed, place in the sequence)."""
    z = torch.empty(len(positions), *shape)
    for row, position in zip(z, positions, strict=True):
        row.normal_(generator=seeded_generator(config.seed, "latents", step * config.batch_size + position))
    return z


@dataclass(frozen=True, eq=False)
class LatentSource:
    """Where a latent model's training data come from."""

    stage: FirstStage
    """Scaled."""
    latents: Latents | None
    """None where pictures are encoded as they come."""


def open_latents(
    config: TrainConfig, dataset: Dataset, stage: FirstStage, on_progress: OnProgress
) -> tuple[TrainConfig, LatentSource]:
    """The latents of the data, the first stage with its scale, and settings that know its hash."""
    latents = None
    if config.latents.cache:
        latents = cached_latents(dataset, stage, config.data.cache, on_progress)
    most = config.latents.measured
    means = latents.means(most, dataset.seed) if latents else encoded_means(dataset, stage, most)
    stage = scaled(stage, config, means)
    assert config.model.latent is not None, "open_first_stage has set it"
    latent = replace(config.model.latent, first_stage=stage.hash)
    return replace(config, model=replace(config.model, latent=latent)), LatentSource(stage, latents)

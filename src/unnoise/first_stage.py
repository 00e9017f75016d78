"""A first stage: its network, the scale of its latents, in memory and as one file.

Rombach et al. 2022 (arXiv 2112.10752): diffusion runs on `scale * latents`, whose deviation is about 1.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import FORMAT, from_dict, to_dict
from unnoise.config.schema import AutoencoderConfig
from unnoise.modelfile import (
    METADATA_KEY,
    ModelInfo,
    find_model,
    kind_of,
    put_weights,
    read_header,
    read_weights,
)
from unnoise.networks.autoencoder import FirstStageNetwork, KlAutoencoder, build_first_stage
from unnoise.networks.posterior import Posterior
from unnoise.tensorfile import write_tensors
from unnoise.tiles import Tiling, apply_tiled

KIND = "autoencoder"
"""What the header of the file says that it holds."""
TILE_PIXELS = 256
"""Side of a tile where nothing else is asked for: what the published first stages were trained on."""


@dataclass(frozen=True, kw_only=True)
class LatentStatistics:
    """What latents are like, channel by channel, before any scale: merged in float64 over many batches."""

    count: int
    """Positions seen, over all pictures."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def scale(self) -> tuple[float, ...]:
        """The factor that gives all latents together the deviation 1, as latent-diffusion takes it."""
        overall = sum(self.mean) / len(self.mean)
        squares = [s * s + (m - overall) ** 2 for m, s in zip(self.mean, self.std, strict=True)]
        return (_inverse((sum(squares) / len(squares)) ** 0.5),)

    @property
    def channel_scales(self) -> tuple[float, ...]:
        """The factors that give each channel the deviation 1."""
        return tuple(map(_inverse, self.std))


def _inverse(std: float) -> float:
    if std == 0:
        raise ValueError(
            "the latents measured are all the same, no scale gives them a deviation; measure more pictures, "
            "or train the first stage for longer"
        )
    return 1 / std


def measure_latents(batches: Iterable[Tensor]) -> LatentStatistics:
    """Mean and deviation by channel over batches of unscaled latents (B, C, h, w), merged in float64.

    The same in whatever batches they come (Chan et al. 1983). ValueError for none.
    """
    count, mean, squares = 0, torch.zeros(0), torch.zeros(0)
    for batch in batches:
        rows = batch.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        added, its_mean = rows.shape[1], rows.mean(1)
        its_squares = (rows - its_mean[:, None]).square().sum(1)
        if not count:
            count, mean, squares = added, its_mean, its_squares
            continue
        apart, whole = its_mean - mean, count + added
        mean = mean + apart * (added / whole)
        squares = squares + its_squares + apart.square() * (count * added / whole)
        count = whole
    if not count:
        raise ValueError("no latents to measure; give at least one batch")
    std = (squares / count).sqrt()
    return LatentStatistics(count=count, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


@dataclass(frozen=True, eq=False)
class FirstStage:
    """Pictures in [-1, 1] to scaled latents and back."""

    network: FirstStageNetwork
    config: AutoencoderConfig
    info: ModelInfo = field(default_factory=ModelInfo)
    scale: tuple[float, ...] = (1.0,)
    """Factor of the latents, one for all channels or one each."""
    statistics: LatentStatistics | None = None
    """Of the unscaled latents, where they were measured."""

    def __post_init__(self) -> None:
        if len(self.scale) not in (1, self.channels) or not all(0 < s < float("inf") for s in self.scale):
            raise ValueError(
                f"scale={list(self.scale)} does not fit latents of {self.channels} channels; use one number "
                "above 0 for all, or one for each"
            )

    @property
    def factor(self) -> int:
        """Pixels a latent position stands for in each direction."""
        return self.network.factor

    @property
    def channels(self) -> int:
        """Channels of latents."""
        return self.network.channels

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def meta(self) -> dict[str, Any]:
        """What the file says about the first stage, as plain data."""
        return {KIND: to_dict(self.config), "latents": self._latents(), **to_dict(self.info)}

    @functools.cached_property
    def hash(self) -> str:
        """16 hex digits that change with the weights and the scale: latents of one belong to no other."""
        digest = hashlib.sha256(json.dumps([self.config.network.kind, *map(float, self.scale)]).encode())
        for key, value in sorted(self.network.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    @property
    def header(self) -> dict[str, Any]:
        """What `first_stage_of` needs besides the weights, as plain data."""
        from unnoise import __version__

        info = replace(self.info, version=self.info.version or __version__)
        return {"kind": KIND, KIND: to_dict(self.config), "latents": self._latents(), "info": to_dict(info)}

    def to(self, device: str | torch.device) -> "FirstStage":
        """The same first stage on another device (its network is moved, not copied)."""
        self.network.to(device)
        return self

    def scaled(self, statistics: LatentStatistics, *, per_channel: bool = False) -> "FirstStage":
        """The same first stage with the scale that follows from measured latents."""
        scale = statistics.channel_scales if per_channel else statistics.scale
        return replace(self, scale=scale, statistics=statistics)

    def posterior(self, images: Tensor) -> Posterior:
        """The Gaussian of unscaled latents, of a KL first stage."""
        if not isinstance(self.network, KlAutoencoder):
            raise ValueError(
                "a first stage with a codebook has no Gaussian over latents; call encode without z"
            )
        return Posterior.of(self.network.encode(images))

    def scale_by(self, latents: Tensor) -> Tensor:
        """Scaled latents of latents before any scale."""
        return latents * self._factor(latents)

    @torch.no_grad()
    def encode(self, images: Tensor, z: Tensor | None = None) -> Tensor:
        """Scaled latents (B, channels, H / f, W / f) of images (B, C, H, W) in [-1, 1].

        With unit noise z of the latents' shape a KL first stage draws them; without it they are the
        likeliest. Those of a codebook are the latents before it.
        """
        if z is not None:
            return self.posterior(images).sample(z) * self._factor(images)
        if isinstance(self.network, KlAutoencoder):
            return self.posterior(images).mean * self._factor(images)
        return self.network.encode(images) * self._factor(images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, C, f h, f w), not confined to [-1, 1], of scaled latents (B, channels, h, w)."""
        return self.network.decode(latents / self._factor(latents))

    def decode_through(self, latents: Tensor) -> Tensor:
        """As `decode`, for a gradient to the latents; it passes a codebook as if there was none."""
        x = latents / self._factor(latents)
        if isinstance(self.network, KlAutoencoder):
            return self.network.decode(x)
        codes = self.network.quantize.lookup(self.network.quantize.nearest(x))
        return self.network.decode_codes(x + (codes - x).detach())

    def encode_tiled(self, images: Tensor, *, tile: int | None = None, overlap: int | None = None) -> Tensor:
        """As `encode` without noise, in memory that one tile bounds.

        tile, overlap: in latent positions; None takes 256 pixels, and a quarter of the tile. Norms and
        attention see a tile at a time, so that results differ a little from those of the whole.
        """
        tiling = self._tiling(tile, overlap)
        pixels = Tiling(size=tiling.size * self.factor, stride=tiling.stride * self.factor)
        for side in images.shape[2:]:
            self.network.settings.check_side(side)
        return apply_tiled(self.encode, images, pixels)

    def decode_tiled(self, latents: Tensor, *, tile: int | None = None, overlap: int | None = None) -> Tensor:
        """As `decode`, in memory that one tile bounds; tile, overlap as of `encode_tiled`."""
        return apply_tiled(self.decode, latents, self._tiling(tile, overlap))

    def _tiling(self, tile: int | None, overlap: int | None) -> Tiling:
        size = tile or max(TILE_PIXELS // self.factor, 4)
        shared = size // 4 if overlap is None else overlap
        if not 0 <= shared < size:
            raise ValueError(f"tiles of {size} positions cannot share {shared}; use 0..{size - 1}")
        return Tiling(size=size, stride=size - shared)

    def _factor(self, like: Tensor) -> Tensor:
        return torch.tensor(self.scale, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)

    def _latents(self) -> dict[str, Any]:
        found = None if self.statistics is None else to_dict(self.statistics)
        return {"scale": list(self.scale), "statistics": found}


def unscaled(stage: FirstStage) -> FirstStage:
    """The same first stage, its latents as they are."""
    return replace(stage, scale=(1.0,))


def make_first_stage(config: AutoencoderConfig, info: ModelInfo | None = None) -> FirstStage:
    """A first stage with fresh weights, drawn by torch's generator, from complete settings."""
    return FirstStage(build_first_stage(config.network), config, info or ModelInfo())


def save_first_stage(
    path: Path | str,
    stage: FirstStage,
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one safetensors file, atomically. `weights` (such as an average) replaces the network's own.

    Weights are stored as `dtype`, None keeping their type; round them first (see rounding).
    """
    header = {"format": FORMAT, **stage.header}
    state = stage.network.state_dict() if weights is None else weights
    write_tensors(Path(path), state, {METADATA_KEY: json.dumps(header)}, dtype=dtype)


def load_first_stage(path: Path | str, device: str | torch.device = "cpu", *, preset: str = "") -> FirstStage:
    """The first stage of a file that `save_first_stage` wrote, or of a run directory, ready to use.

    Or of one of CompVis's checkpoints of first stages, which `preset` may name. ValueError when the file
    holds something else.
    """
    from unnoise.weights import published
    from unnoise.weights.torchfile import is_torch_file

    path = find_model(Path(path))
    if is_torch_file(path):
        found = published.load(path, preset=preset)
        if not isinstance(found, FirstStage):
            raise ValueError(
                f"{path} is no first stage (autoencoder) but a whole model; name the checkpoint of a first "
                "stage alone, such as kl-f8/model.ckpt"
            )
        return found.to(device)
    published.refuse_preset(path, preset)
    header = read_header(path)
    if header.get("kind") != KIND:
        raise ValueError(
            f"{path} is {kind_of(header)}, not a first stage (autoencoder); train "
            "one with: unnoise train kl-f4-tiny"
        )
    return first_stage_of(header, read_weights(path), path).to(device)


def first_stage_of(header: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> FirstStage:
    """The first stage that a header describes, with its weights under their own names, on the CPU."""
    latents = header.get("latents", {}) if isinstance(header, Mapping) else None
    if not isinstance(latents, Mapping):
        raise ValueError(f"{path}: the settings of the first stage cannot be read; the file is damaged")
    config = from_dict(AutoencoderConfig, header.get(KIND, {}), where=str(path))
    info = from_dict(ModelInfo, header.get("info", {}), where=str(path))
    found = latents.get("statistics")
    with torch.device("meta"):
        network = build_first_stage(config.network)
    put_weights(network, weights, path)
    return FirstStage(
        network,
        config,
        info,
        scale=tuple(map(float, latents.get("scale", [1.0]))),
        statistics=None if found is None else from_dict(LatentStatistics, found, where=str(path)),
    )

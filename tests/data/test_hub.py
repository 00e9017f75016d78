"""Hugging Face data sets: with a stand-in for the library, and with the library itself where there is one."""

import importlib.util
import io
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import Make, Open
from unnoise.data.builtin import FASHION_CLASSES, FASHION_HUB, FASHION_VARIABLE

NAMES = ["zebra", "ape", "cow"]


class Image_:
    """Stands for datasets.Image; its class name is what is looked at."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


Image_.__name__ = "Image"


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Value:
    pass


class Stream:
    """Rows as the library streams them: pictures encoded, after cast_column(..., Image(decode=False))."""

    def __init__(
        self, rows: list[dict[str, Any]], features: dict[str, Any] | None, failing: int | None
    ) -> None:
        self.rows, self.features, self.failing = rows, features, failing
        self.info = types.SimpleNamespace(splits={"train": types.SimpleNamespace(num_examples=len(rows))})

    def cast_column(self, name: str, kind: Any) -> "Stream":
        assert not kind.decode and name in self.rows[0]
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self.rows):
            if number == self.failing:
                raise ConnectionError("lost")
            yield row


def png(k: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), [k, 20, 30], np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


class Hub:
    """The stand-in library; `calls` counts the loads."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict]] = []
        self.rows = [{"image": png(k), "label": k % 3, "text": f"c{k}"} for k in range(10)]
        self.features: dict[str, Any] | None = {
            "image": Image_(),
            "label": ClassLabel(NAMES),
            "text": Value(),
        }
        self.failing: int | None = None
        self.error: Exception | None = None

    def load_dataset(self, name: str, **options: Any) -> Stream:
        self.calls.append((name, options))
        if self.error is not None:
            raise self.error
        return Stream(self.rows, self.features, self.failing)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub()
    module = types.ModuleType("datasets")
    module.load_dataset, module.Image = stand_in.load_dataset, Image_
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    return stand_in


def test_a_stream_becomes_a_local_copy(hub: Hub, opened: Open, cache_home: Path) -> None:
    seen: list[tuple[int, int]] = []
    data = opened("hf:someone/animals", on_progress=lambda done, total: seen.append((done, total)))
    assert hub.calls == [("someone/animals", {"split": "train", "streaming": True})]
    assert data.classes == tuple(NAMES)  # in the set's order, not the alphabet's
    assert data.labels.tolist() == [k % 3 for k in range(10)] and data.captions == [
        f"c{k}" for k in range(10)
    ]
    assert data.take(np.arange(10)).pixels[:, 0, 0, 0].tolist() == list(range(10))
    assert data.report.source == "hf:someone/animals:train" and seen[-1] == (10, 10)
    again = opened("hf:someone/animals")
    assert len(hub.calls) == 1 and again.fingerprint == data.fingerprint
    opened("hf:someone/animals:test")
    assert hub.calls[1][1]["split"] == "test"
    assert len(list((cache_home / "hub").glob("*.zip"))) == 2 and not list((cache_home / "hub").glob("*.tmp"))


def test_the_copy_is_bounded(hub: Hub, opened: Open) -> None:
    data = opened("hf:someone/animals", hub_limit=4)
    assert (
        len(data) == 4 and "the first 4 pictures, more with --set data.hub_limit=N" in data.report.notes[-1]
    )
    with pytest.raises(ValueError, match="data.hub_limit=0 is less than 1"):
        opened("hf:someone/animals", hub_limit=0)


def test_columns_of_other_names_and_types(hub: Hub, opened: Open) -> None:
    hub.rows = [{"img": png(k), "category": ["b", "a"][k % 2], "captions": [f"x{k}", "y"]} for k in range(4)]
    hub.features = None
    data = opened("hf:other/names")
    assert data.classes == ("a", "b") and data.captions[3] == "x3"
    hub.rows = [{"id": k, "png": png(k), "label": 7 + k} for k in range(4)]
    hub.features = {"id": Value(), "png": Image_(), "label": Value()}
    assert opened("hf:numbered/labels").classes == ("7", "8", "9", "10")


def test_offline_it_asks_for_what_is_on_disk(hub: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    opened("hf:someone/animals")
    assert hub.calls[0][1]["streaming"] is False


def test_what_goes_wrong_on_the_way(hub: Hub, opened: Open, cache_home: Path) -> None:
    hub.error = ConnectionError("Couldn't reach\nthe Hub")
    with pytest.raises(
        ValueError, match="hf:a/b cannot be loaded .Couldn't reach the Hub.; check name and connection"
    ):
        opened("hf:a/b")
    hub.error = ValueError("Bad split: x. Available splits: ['train']")
    with pytest.raises(ValueError, match=r"hf:a/b:x cannot be used: Bad split: x. Available splits"):
        opened("hf:a/b:x")
    hub.error, hub.failing = None, 5
    with pytest.raises(ValueError, match="hf:a/b broke off while loading .lost.; run again"):
        opened("hf:a/b")
    assert not [path for path in cache_home.rglob("*") if path.suffix in (".zip", ".tmp", ".pixels")]
    hub.failing, hub.features = None, {"text": Value()}
    with pytest.raises(ValueError, match="none of its columns holds pictures .text."):
        opened("hf:a/b")


def test_missing_labels_and_pictures(hub: Hub, opened: Open) -> None:
    hub.rows[3]["label"] = -1
    with pytest.raises(ValueError, match="1 of 10 pictures .* have no label.*data.labels=none"):
        opened("hf:someone/animals")
    assert opened("hf:someone/animals", labels="none").classes == ()
    hub.rows[4]["image"] = None
    report = opened("hf:someone/else", labels="none").report
    assert report.broken == (("000000004.png", "an empty file"),)


def test_rows_may_not_point_at_files_of_this_machine(
    hub: Hub, tmp_path: Path, make: Make, opened: Open
) -> None:
    secret = make(tmp_path / "secret.png")
    hub.rows[0]["image"] = {"bytes": None, "path": str(secret)}
    with pytest.raises(
        ValueError, match="points at the file .*secret.png of this machine; it is not to be trusted"
    ):
        opened("hf:someone/animals")
    inside = make(tmp_path / "set" / "a.png")
    hub.rows[0]["image"] = {"bytes": None, "path": str(inside)}
    assert len(opened(f"hf:{tmp_path / 'set'}")) == 10


def test_without_the_library(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"needs the package datasets; install it with: pip install 'unnoise\[hub\]'"
    ):
        opened("hf:someone/animals")


def test_fashion_mnist_from_the_hub(
    hub: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("unnoise.data.builtin.FASHION_FOLDER", tmp_path / "nowhere")
    monkeypatch.delenv(FASHION_VARIABLE, raising=False)
    hub.features = {"image": Image_(), "label": ClassLabel([f"{name}?" for name in FASHION_CLASSES])}
    assert opened("fashion-mnist").classes == FASHION_CLASSES[:3]  # those that have pictures
    assert hub.calls == [(FASHION_HUB, {"split": "train", "streaming": True})]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError) as error:
        opened("fashion-mnist:test")
    for way in ("Debian's dataset-fashion-mnist", FASHION_VARIABLE, "unnoise[hub]", "fashion-mnist-10k"):
        assert way in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the extra hub is not installed")
def test_the_library_itself(
    tmp_path: Path, make: Make, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local data sets of the hub's two commonest forms, through the real streaming code."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets
    import pyarrow
    import pyarrow.parquet

    kind = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=NAMES),
        "text": datasets.Value("string"),
    }
    pictures = pyarrow.array(
        [png(k) for k in range(9)], pyarrow.struct({"bytes": "binary", "path": "string"})
    )
    table = pyarrow.table(
        {"image": pictures, "label": [k % 3 for k in range(9)], "text": [f"c{k}" for k in range(9)]}
    )
    facts = {"info": {"features": datasets.Features(kind).to_dict()}}
    (tmp_path / "set").mkdir()
    marked = table.replace_schema_metadata({"huggingface": json.dumps(facts)})
    pyarrow.parquet.write_table(marked, tmp_path / "set" / "train.parquet")
    data = opened(f"hf:{tmp_path / 'set'}")
    assert data.classes == tuple(NAMES) and data.labels.tolist() == [0, 1, 2] * 3 and data.captions[8] == "c8"
    assert data.take(np.arange(9)).pixels[:, 0, 0, 0].tolist() == list(range(9))
    with pytest.raises(ValueError, match="Bad split: nope"):
        opened(f"hf:{tmp_path / 'set'}:nope")
    for k in range(4):
        make(tmp_path / "folder" / "xy"[k % 2] / f"{k}.png", seed=k)
    assert opened(f"hf:{tmp_path / 'folder'}").classes == ("x", "y")

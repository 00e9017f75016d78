"""Batches: the same pictures for the same positions, whatever the batch, the ranks and the resuming."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import Make, Open
from unnoise.data import Dataset, crop
from unnoise.data.order import draws, indices


@pytest.fixture
def folder(tmp_path: Path, make: Make) -> Path:
    for k in range(10):
        make(tmp_path / "set" / "ab"[k % 2] / f"{k}.png", (40 + 7 * k, 90 - 5 * k, 3), seed=k)
    return tmp_path / "set"


@pytest.mark.parametrize("settings", [{}, {"flip": True}, {"crop": "random", "flip": True}])
def test_ranks_and_resuming_see_one_sequence(settings: dict, folder: Path, opened: Open) -> None:
    data = opened(folder, size=16, seed=5, **settings)
    whole = data.batch(0, np.arange(64))
    for start in (0, 24, 56):
        part = opened(folder, size=16, seed=5, **settings).batch(9, torch.arange(start, start + 8))
        assert (part.pixels == whole.pixels[start : start + 8]).all()
        assert (part.label == whole.label[start : start + 8]).all()
    other = opened(folder, size=16, seed=6, **settings).batch(0, np.arange(64))
    assert (other.pixels != whole.pixels).any()


def test_batches_have_the_stated_types(folder: Path, opened: Open) -> None:
    batch = opened(folder, size=16).batch(0, np.arange(4))
    assert batch.pixels.dtype == torch.uint8 and batch.pixels.shape == (4, 16, 16, 3)
    assert batch.label.dtype == torch.int64 and batch.label.shape == (4,) and batch.caption is None
    batch.pixels.fill_(0)  # a batch is the caller's own, never the cache


def test_flips_are_half_and_drawn_by_position(folder: Path, opened: Open) -> None:
    plain, flipped = (
        opened(folder, size=16, flip=flip).batch(0, np.arange(400)).pixels for flip in (False, True)
    )
    mirrored = torch.tensor([bool((a == b.flip(1)).all()) for a, b in zip(flipped, plain, strict=True)])
    same = torch.tensor([bool((a == b).all()) for a, b in zip(flipped, plain, strict=True)])
    assert (mirrored ^ same).all() and 140 < mirrored.sum() < 260  # six standard errors
    picks = indices(0, 10, 0, 400)
    assert any(mirrored[picks == 3]) and any(same[picks == 3])  # of one picture, some times yes, some no


def test_random_crops_are_adms_from_the_original_file(folder: Path, opened: Open) -> None:
    """Through the cache, each training crop equals the published function on the file itself, to the bit."""
    data = opened(folder, size=16, crop="random", seed=2)
    batch = data.batch(0, np.arange(30))
    bits = draws(2, "crop", np.arange(30))
    for row, pick in enumerate(indices(2, 10, 0, 30)):
        image = Image.open(folder / data.name_of(int(pick)))
        expected = crop.random_crop(image, 16, random.Random(int(bits[row])))
        assert np.array_equal(batch.pixels[row].numpy(), expected)
    for row, pixels in enumerate(data.take(np.arange(10)).pixels):
        assert np.array_equal(pixels.numpy(), crop.center_crop(Image.open(folder / data.name_of(row)), 16))


def test_large_random_crops_in_threads(folder: Path, opened: Open) -> None:
    data = opened(folder, size=64, crop="random")
    assert (data.batch(0, np.arange(20)).pixels[5:] == data.batch(0, np.arange(5, 20)).pixels).all()


@pytest.mark.parametrize("settings", [{}, {"crop": "random", "flip": True}])
def test_blocks_give_every_picture_once_in_file_order(settings: dict, folder: Path, opened: Open) -> None:
    data = opened(folder, size=16, **settings)
    blocks = list(data.blocks(4))
    assert [len(block.pixels) for block in blocks] == [4, 4, 2]
    whole = torch.cat([block.pixels for block in blocks])
    assert (whole == data.take(np.arange(10)).pixels).all()
    assert torch.cat([block.label for block in blocks]).tolist() == [0] * 5 + [1] * 5


def test_fewer_pictures_than_the_batch(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(3):
        make(tmp_path / f"{k}.png", seed=k)
    pixels = opened(tmp_path).batch(0, np.arange(128)).pixels
    counts = {row.numpy().tobytes(): 0 for row in pixels}
    for row in pixels:
        counts[row.numpy().tobytes()] += 1
    assert sorted(counts.values()) == [42, 43, 43]


def test_broken_pictures_keep_labels_and_names_in_step(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(6):
        make(tmp_path / "set" / "ab"[k % 2] / f"{k}.png", seed=k)
        (tmp_path / f"set/{'ab'[k % 2]}/{k}.txt").write_text(str(k))
    (tmp_path / "set/a/2.png").write_text("text")
    data = opened(tmp_path / "set")
    expected = ["a/0.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
    assert [data.name_of(k) for k in range(5)] == expected
    assert data.labels.tolist() == [0, 0, 1, 1, 1] and data.captions == list("04135")
    for k, name in enumerate(expected):
        pixels = np.asarray(Image.open(tmp_path / "set" / name))
        assert np.array_equal(data.take(np.array([k])).pixels[0].numpy(), pixels)


def test_a_class_of_only_broken_pictures_is_left_out(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "a" / "0.png")
    make(tmp_path / "c" / "2.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.png").write_text("text")
    data = opened(tmp_path)
    assert data.classes == ("a", "c") and data.labels.tolist() == [0, 1]
    assert "all their pictures are broken: b" in " ".join(data.report.notes)


def test_batches_are_quick(opened: Open) -> None:
    """A generous bound on a busy machine; a loop over pictures would exceed it many times."""
    data: Dataset = opened("fashion-mnist-10k", flip=True)
    data.batch(0, np.arange(128))
    times = []
    for step in range(50):
        start = time.perf_counter()
        data.batch(step, np.arange(step * 128, step * 128 + 128))
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 0.005

"""Folders, zips, npz and idx files, built-ins: what is found in each."""

import gzip
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import Make, Open
from unnoise.data import BUILTINS
from unnoise.data.builtin import FASHION_CLASSES, FASHION_FOLDER, FASHION_VARIABLE


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*")):
            if member.is_file():
                file.write(member, member.relative_to(folder))
    return path


@pytest.fixture(params=["folder", "zip"])
def packed(request: pytest.FixtureRequest):  # noqa: ANN201
    """The folder as it is, and as a zip: everything about trees must hold for both."""
    return (lambda folder: folder) if request.param == "folder" else zipped


def test_sub_folders_are_classes(tmp_path: Path, make: Make, opened: Open, packed) -> None:
    for k, name in enumerate(["cat/1.png", "cat/deep/2.png", "dog/3.jpg", "Zebra/4.webp"]):
        make(tmp_path / "pets" / name, seed=k)
    (tmp_path / "pets" / "notes.doc").write_text("x")
    data = opened(packed(tmp_path / "pets"))
    assert data.classes == ("Zebra", "cat", "dog")
    assert data.report.classes == {"Zebra": 1, "cat": 2, "dog": 1} and data.report.ignored == 1
    assert [data.name_of(k) for k in range(4)] == ["Zebra/4.webp", "cat/1.png", "cat/deep/2.png", "dog/3.jpg"]
    assert data.take(np.arange(4)).label.tolist() == [0, 1, 1, 2]
    assert opened(packed(tmp_path / "pets"), labels="none").labels is None


def test_numbered_classes_are_in_number_order(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in (0, 2, 10):
        make(tmp_path / str(k) / "a.png", seed=k)
    assert opened(tmp_path).classes == ("0", "2", "10")


def test_one_folder_around_all_is_not_a_class(tmp_path: Path, make: Make, opened: Open, packed) -> None:
    """What a zip of a folder looks like from inside."""
    for k in range(3):
        make(tmp_path / "a" / "pets" / f"{k}.png", seed=k)
    assert opened(packed(tmp_path / "a")).labels is None
    assert opened(packed(tmp_path / "a"), labels="folder").classes == ("pets",)
    for k in range(2):
        make(tmp_path / "b" / "pets" / "cd"[k] / "x.png", seed=k)
    assert opened(packed(tmp_path / "b")).classes == ("c", "d")


def test_metadata_gives_labels_and_captions(tmp_path: Path, make: Make, opened: Open, packed) -> None:
    folder = tmp_path / "set"
    rows = []
    for k in range(4):
        make(folder / f"{k}.png", seed=k)
        rows.append({"file_name": f"{k}.png", "text": f" picture {k} ", "label": ["b", "a"][k % 2]})
    rows.append({"file_name": "../outside.png", "label": "a"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    data = opened(packed(folder))
    assert data.classes == ("a", "b") and data.labels.tolist() == [1, 0, 1, 0]
    assert data.captions == [f"picture {k}" for k in range(4)] and data.report.captions == 4
    assert data.report.ignored == 0 and any("not there" in note for note in data.report.notes)
    batch = data.batch(0, np.arange(8))
    assert [int(text[-1]) % 2 for text in batch.caption] == (1 - batch.label).tolist()


def test_metadata_in_a_sub_folder_and_as_csv(tmp_path: Path, make: Make, opened: Open, packed) -> None:
    folder = tmp_path / "set"
    for k in range(2):
        make(folder / "images" / f"{k}.png", seed=k)
    (folder / "images" / "metadata.csv").write_text("file_name,text,label\n0.png,zero,3\n1.png,one,12\n")
    data = opened(packed(folder))
    assert data.captions == ["zero", "one"] and data.classes == ("3", "12")


def test_text_files_beside_pictures_are_captions(tmp_path: Path, make: Make, opened: Open, packed) -> None:
    folder = tmp_path / "set"
    for k in range(3):
        make(folder / f"{k}.png", seed=k)
    (folder / "0.txt").write_text("zero, näh\n", encoding="utf-8")
    (folder / "2.txt").write_text("two")
    (folder / "readme.txt").write_text("not a caption")
    data = opened(packed(folder))
    assert data.captions == ["zero, näh", "", "two"]
    assert data.report.captions == 2 and data.report.ignored == 1
    assert "captions: 2; 1 pictures have none" in list(data.report.lines())


def test_hidden_files_are_no_part_of_it(tmp_path: Path, make: Make, opened: Open, packed) -> None:
    folder = tmp_path / "set"
    make(folder / "a.png")
    for name in (".DS_Store", "._a.png", ".git/x.png", "__MACOSX/._a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    report = opened(packed(folder)).report
    assert (report.pictures, report.ignored, report.broken) == (1, 0, ())


def test_links_are_followed_but_not_in_circles(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "real" / "1.png")
    (tmp_path / "set" / "cat").mkdir(parents=True)
    make(tmp_path / "set" / "dog" / "2.png", seed=1)
    (tmp_path / "set" / "cat" / "l.png").symlink_to(tmp_path / "real" / "1.png")
    (tmp_path / "set" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "set" / "dog" / "up").symlink_to(tmp_path / "set")
    data = opened(tmp_path / "set")
    assert data.classes == ("cat", "dog") and len(data) == 2
    assert data.report.broken == (("cat/gone.png", "No such file or directory"),)


def test_zip_members_cannot_leave(tmp_path: Path, make: Make, opened: Open) -> None:
    picture = make(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        for name in ("good.png", "../../evil.png", "/etc/evil.png", "C:/evil.png", "a/../../evil.png"):
            file.writestr(name, picture)
    data = opened(tmp_path / "bad.zip")
    assert len(data) == 1 and "4 members point outside" in " ".join(data.report.notes)
    assert not list(tmp_path.parent.glob("**/evil.png"))


def test_damaged_zip_members_are_named(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(3):
        make(tmp_path / "set" / f"{k}.png", (16, 16, 3), seed=k)
    path = zipped(tmp_path / "set")
    data = bytearray(path.read_bytes())
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[second + 30] ^= 255
    path.write_bytes(data)
    ((name, reason),) = opened(path).report.broken
    assert name == "1.png" and "CRC" in reason


def test_npz_as_adm_writes_it(tmp_path: Path, opened: Open) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    labels = np.array([5, 5, 7, 900, 7, 5, 5, 5, 900, 7])
    np.savez(tmp_path / "a.npz", pixels, labels)
    np.savez_compressed(tmp_path / "b.npz", pixels, labels)
    np.savez(tmp_path / "c.npz", pixels)
    for name in ("a.npz", "b.npz"):
        data = opened(tmp_path / name)
        assert data.classes == ("5", "7", "900") and data.labels.tolist() == [0, 0, 1, 2, 1, 0, 0, 0, 2, 1]
        assert np.array_equal(data.take(np.arange(10)).pixels.numpy(), pixels)
    assert opened(tmp_path / "c.npz").labels is None
    assert opened(tmp_path / "a.npz", labels="none").classes == ()
    assert opened(tmp_path / "c.npz", channels=1).channels == 1
    assert opened(tmp_path / "c.npz", size=4).batch(0, np.arange(3)).pixels.shape == (3, 4, 4, 3)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_npz_of_any_channels(channels: int, tmp_path: Path, opened: Open) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, channels), np.uint8)
    np.savez(tmp_path / "a.npz", pixels)
    assert np.array_equal(opened(tmp_path / "a.npz").take(np.arange(5)).pixels.numpy(), pixels)
    assert opened(tmp_path / "a.npz", size=4, crop="random").batch(0, np.arange(7)).pixels.shape == (
        7,
        4,
        4,
        channels,
    )
    np.savez(tmp_path / "grey.npz", pixels[..., 0])
    assert opened(tmp_path / "grey.npz").channels == 1


def test_large_npz_and_idx_stream_through_the_cache(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", pixels)
    idx(tmp_path / "x-images-idx3-ubyte", pixels[..., 0])
    monkeypatch.setattr("unnoise.data.npz.IN_MEMORY", 10)
    monkeypatch.setattr("unnoise.data.idx.IN_MEMORY", 10)
    for name in ("a.npz", "x-images-idx3-ubyte"):
        for _ in range(2):
            data = opened(tmp_path / name)
            assert isinstance(data.store.pixels.base, np.memmap)
            assert np.array_equal(data.take(np.arange(50)).pixels.numpy(), pixels)


def idx(path: Path, values: np.ndarray) -> Path:
    data = struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files(ending: str, mark: str, tmp_path: Path, opened: Open) -> None:
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (12, 6, 6), np.uint8) for name in ("train", "t10k")}
    for name, values in pixels.items():
        idx(tmp_path / f"{name}-images{mark}idx3-ubyte{ending}", values)
        idx(tmp_path / f"{name}-labels{mark}idx1-ubyte{ending}", (np.arange(12) % 3 * 4).astype(np.uint8))
    whole = opened(tmp_path)
    assert whole.classes == ("0", "4", "8") and len(whole) == 12 and whole.channels == 1
    assert np.array_equal(whole.take(np.arange(12)).pixels[..., 0].numpy(), pixels["train"])
    test = opened(f"{tmp_path}:test")
    assert np.array_equal(test.take(np.arange(12)).pixels[..., 0].numpy(), pixels["t10k"])
    assert np.array_equal(opened(tmp_path / f"t10k-images{mark}idx3-ubyte{ending}").labels, test.labels)
    (tmp_path / f"train-labels{mark}idx1-ubyte{ending}").unlink()
    assert opened(tmp_path).labels is None and "no labels file" in opened(tmp_path).report.notes[0]


def test_a_folder_of_a_built_ins_name_needs_its_path(
    tmp_path: Path, make: Make, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "fashion-mnist-10k" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(opened("fashion-mnist-10k")) == 10_000 and len(opened("./fashion-mnist-10k")) == 1


def test_the_embedded_pictures(opened: Open, cache_home: Path) -> None:
    data = opened("fashion-mnist-10k")
    assert (len(data), data.size, data.channels) == (10_000, 28, 1)
    assert data.classes == FASHION_CLASSES and set(data.report.classes.values()) == {1000}
    assert not cache_home.exists()  # nothing to decode, so nothing to keep
    package = Path(__file__).parents[2] / "src/unnoise/data"
    files = list(package.glob("fashion_mnist_10k.*"))
    assert sum(file.stat().st_size for file in files) < 5_000_000
    assert "MIT License" in (package / "fashion_mnist_10k.LICENSE").read_text()
    means = [data.take(np.flatnonzero(data.labels == k)).pixels.double().mean() for k in range(10)]
    assert means[5] < 50 < 90 < means[2]  # sandals are mostly background, pullovers mostly cloth


@pytest.mark.skipif(not FASHION_FOLDER.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_embedded_pictures_are_the_training_sets(opened: Open) -> None:
    whole, few = opened("fashion-mnist"), opened("fashion-mnist-10k")
    assert len(whole) == 60_000 and len(opened("fashion-mnist:test")) == 10_000
    held = {row.tobytes(): int(label) for row, label in zip(whole.store.pixels, whole.labels, strict=True)}
    assert all(held[row.tobytes()] == label for row, label in zip(few.store.pixels, few.labels, strict=True))


def test_fashion_mnist_elsewhere(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FASHION_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=f"{FASHION_VARIABLE}=.* holds no train-images-idx3-ubyte"):
        opened("fashion-mnist")
    idx(tmp_path / "train-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8))
    idx(tmp_path / "train-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    assert opened("fashion-mnist").classes == FASHION_CLASSES


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_every_built_in(name: str, opened: Open) -> None:
    """The battery over the registry: shapes, range, labels, and an order that resumes."""
    try:
        data = opened(name)
    except ValueError as error:
        assert name == "fashion-mnist" and "apt" in str(error) or "Debian" in str(error)
        return
    batch = data.batch(0, np.arange(64))
    assert batch.pixels.shape == (64, data.size, data.size, data.channels)
    assert batch.pixels.min() == 0 and batch.pixels.max() == 255
    assert 0 <= batch.label.min() and batch.label.max() < len(data.classes)
    again = opened(name).batch(1, np.arange(32, 96))
    assert (again.pixels[:32] == batch.pixels[32:]).all()

"""What a person gets wrong: each is one line that says what is the matter and what to do."""

import gzip
import io
import json
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import Make, Open
from unnoise.config.schema import DataConfig
from unnoise.data import open_data


def refused(match: str, source: object, **settings: Any) -> None:
    """The source is refused in one line that matches."""
    with pytest.raises(ValueError) as error:
        open_data(DataConfig(source=str(source), **settings))
    text = str(error.value)
    assert re.search(match, text), text
    assert "\n" not in text and len(text) < 700


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("", "no data named; name a folder"),
        ("fashon-mnist", "did you mean fashion-mnist?"),
        ("fashion_mnist_10k", "did you mean fashion-mnist-10k?"),
        ("qwertyuiop", "does not exist; name a folder.*fashion-mnist-10k"),
        ("/no/such/folder", "/no/such/folder does not exist"),
        ("fashion-mnist:validation", "no split 'validation'.*fashion-mnist:test"),
        ("fashion-mnist-10k:test", "no split 'test'; use fashion-mnist:test"),
        ("hf:", "names no data set; write hf:NAME"),
        ("/dev/null", "neither a file nor a folder"),
    ],
)
def test_sources_that_do_not_exist(source: str, match: str) -> None:
    refused(match, source)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"size": 0}, r"data.size=0 is outside 1\.\.11585"),
        ({"size": -28}, r"data.size=-28 is outside 1\.\.11585"),
        ({"size": 10**6}, "data.size=1000000 is outside"),
        ({"channels": 0}, "data.channels=0 is less than 1; use 1 for grey"),
        ({"channels": 5}, "data.channels=5, but fashion-mnist-10k has 1"),
        ({"background": "bluish"}, "data.background='bluish' is not a colour; write #rrggbb"),
        ({"max_pixels": 10**9}, "data.max_pixels=1000000000 is outside 1..178956970"),
        ({"max_pixels": 100, "size": 8}, "28x28, over 100 pixels; --set data.max_pixels=N"),
        ({"labels": "folder"}, "data.labels=folder needs a folder or zip"),
    ],
)
def test_settings_that_no_data_meets(settings: dict, match: str) -> None:
    refused(match, "fashion-mnist-10k", **settings)


def test_empty_folders(tmp_path: Path) -> None:
    refused("is empty; put pictures into it", tmp_path)
    (tmp_path / "sub").mkdir()
    refused("is empty", tmp_path)
    (tmp_path / "film.mp4").write_text("x")
    (tmp_path / "sub/readme").write_text("x")
    refused(r"holds no picture .*only .mp4 \(1\), without suffix \(1\)", tmp_path)


def test_only_broken_pictures(tmp_path: Path, cache_home: Path) -> None:
    for k in range(7):
        (tmp_path / f"{k}.png").write_text("text" * (k > 0))
    match = (
        r"every picture of .* is broken, 7: 0.png \(an empty file\); 1.png \(not a picture.*and 2 more; name"
    )
    refused(match, tmp_path)
    refused(match, tmp_path, size=8, channels=3)
    assert not list(cache_home.glob("*.pixels")) and not list(cache_home.glob("*.tmp"))


def broken_among_good(folder: Path, make: Make) -> Path:
    for k in range(3):
        make(folder / f"{k}.png", (32, 32, 3), seed=k)
    (folder / "text.png").write_text("I am a text file")
    whole = make(folder / "cut.jpg", (64, 64, 3)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_broken_picture_among_good_ones(tmp_path: Path, make: Make, opened: Open) -> None:
    broken_among_good(tmp_path, make)
    for _ in range(2):  # decoded, then from the cache
        report = opened(tmp_path, size=32).report
        assert report.pictures == 3
        assert [name for name, _ in report.broken] == ["cut.jpg", "text.png"]
        assert "truncated" in report.broken[0][1] and "not a picture" in report.broken[1][1]
        assert any(line.startswith("broken, left out: 2: cut.jpg (") for line in report.lines())


def test_strict_refuses_broken_pictures(tmp_path: Path, make: Make, opened: Open) -> None:
    broken_among_good(tmp_path, make)
    refused("broken pictures in .*, 2: cut.jpg .*text.png .*--strict", tmp_path, size=32, strict=True)
    assert len(opened(tmp_path, size=32)) == 3
    refused("broken pictures", tmp_path, size=32, strict=True)


def test_very_long_and_very_small_pictures(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "a.png", (64, 64, 3))
    make(tmp_path / "dot.png", (1, 1, 3))
    Image.new("RGB", (20_000, 20), (9, 99, 199)).save(tmp_path / "long.png")
    Image.new("RGB", (20, 20_000), (9, 99, 199)).save(tmp_path / "tall.png")
    for crop in ("center", "random"):
        data = opened(tmp_path, size=512, crop=crop)
        assert len(data) == 4 and data.report.upscaled == 4
        batch = data.batch(0, np.arange(8))
        assert batch.pixels.shape == (8, 512, 512, 3)
        note = " ".join(data.report.notes)
        assert "warning" in note and "20000x20" in note and "1x1" in note
    long = data.take(np.array([2])).pixels[0].numpy()
    assert (long == [9, 99, 199]).all()


def test_sizes_that_differ_need_a_choice(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(3):
        make(tmp_path / f"{k}.png", (100, 140, 3), seed=k)
    refused(r"are not square: 140x100 \(3\); choose a side, such as --set data.size=64", tmp_path)
    make(tmp_path / "big.png", (512, 512, 3))
    refused(r"differ in size: 140x100 \(3\), 512x512 \(1\); choose", tmp_path)
    data = opened(tmp_path, size=128)
    assert data.report.upscaled == 3 and data.report.different_sizes == 2
    assert "enlarged: 3 pictures" in " ".join(data.report.lines())


def test_pictures_beside_sub_folders(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "a" / "1.png")
    make(tmp_path / "b" / "2.png")
    make(tmp_path / "3.png")
    refused("1 pictures lie in .* itself and 2 in its sub-folders.*--set data.labels=none", tmp_path)
    assert len(opened(tmp_path, labels="none")) == 3


def test_splits_are_no_classes(tmp_path: Path, make: Make, opened: Open) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png"):
        make(tmp_path / name)
    refused(r"sub-folders of .* are splits \(test, train\).*name one", tmp_path)
    assert opened(tmp_path / "train").classes == ("cat", "dog")
    assert opened(tmp_path, labels="folder").classes == ("test", "train")
    for name, rows in (("train", ("cat/1", "dog/2")), ("test", ("cat/3",))):
        lines = [json.dumps({"file_name": f"{row}.png", "label": row[:3]}) for row in rows]
        (tmp_path / name / "metadata.jsonl").write_text("\n".join(lines))
    refused(r"splits \(test, train\)", tmp_path)
    assert opened(tmp_path, labels="metadata").classes == ("cat", "dog")


def test_another_field_as_the_class(tmp_path: Path, make: Make, opened: Open) -> None:
    rows = [
        {"file_name": f"{k}.png", "label": "shoe", "style": ("flat", "round")[k % 2], "maker": k}
        for k in range(4)
    ]
    for row in rows:
        make(tmp_path / row["file_name"])
    del rows[2]["maker"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = opened(tmp_path, label_field="style")
    assert data.classes == ("flat", "round") and data.labels.tolist() == [0, 1, 0, 1]
    assert data.fingerprint != opened(tmp_path).fingerprint
    refused(
        "1 of 4 pictures in .* have no maker in its metadata .first: 2.png", tmp_path, label_field="maker"
    )
    refused(
        "data.label_field=style is of the metadata, but data.labels=none",
        tmp_path,
        label_field="style",
        labels="none",
    )
    refused("data.label_field=style needs a folder or zip", "fashion-mnist-10k", label_field="style")


def test_labels_that_are_missing(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(3):
        make(tmp_path / f"{k}.png", seed=k)
    refused("has no sub-folders to take classes from.*data.labels=none", tmp_path, labels="folder")
    refused("3 of 3 pictures in .* have no label in its metadata", tmp_path, labels="metadata")
    rows = [{"file_name": "0.png", "label": "x"}, {"file_name": "1.png", "label": None}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refused(
        r"2 of 3 pictures .* have no label .*\(first: 1.png\); add them, or --set data.labels=none", tmp_path
    )
    assert len(opened(tmp_path, labels="none")) == 3


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[1]", "line 2: not an object"),
        ('{"text": "x"}', "line 2: no file_name"),
        ('{"file_name": 3}', "line 2: no file_name"),
        ('{"file_name": "a.png", "label": [1]}', r"line 2: label \[1\] is neither a name nor a whole number"),
        ('{"file_name": "a.png", "label": 0.5}', "line 2: label 0.5 is neither"),
        ('{"file_name": "a.png", "text": 5}', "line 2: caption 5 is not text"),
    ],
)
def test_metadata_that_is_wrong(line: str, match: str, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text("\n" + line + "\n")
    refused(match, tmp_path)


def test_folders_that_cannot_be_read(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Injected, because tests may run as root, whom no permission stops."""
    make(tmp_path / "a" / "1.png")
    make(tmp_path / "b" / "2.png")
    scan = os.scandir

    def deny(path: Any) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    refused(r"/b cannot be read \(Permission denied\); change its permissions", tmp_path)
    refused(r"/b cannot be read \(Permission denied\)", tmp_path / "b")


def test_a_picture_that_cannot_be_read(
    tmp_path: Path, make: Make, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a.png")
    make(tmp_path / "b.png", seed=1)
    monkeypatch.setattr("unnoise.data.decode.open", denied_for("b.png"), raising=False)
    assert opened(tmp_path).report.broken == (("b.png", "Permission denied"),)


def denied_for(name: str) -> Callable[..., Any]:
    def deny(path: Any, *args: Any) -> Any:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return open(path, *args)

    return deny


def test_files_that_are_something_else(tmp_path: Path, make: Make) -> None:
    picture = make(tmp_path / "a.png")
    refused("a.png is not a zip, npz or idx file; name a folder", picture)
    (tmp_path / "x.zip").write_text("no zip")
    refused("x.zip is damaged, or not a zip", tmp_path / "x.zip")
    (tmp_path / "x.npz").write_text("no npz")
    refused("x.npz is damaged, or not a zip", tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    refused("empty.zip is empty; put pictures into it", tmp_path / "empty.zip")
    refused("holds no idx files of the split 'test'", f"{tmp_path}:test")


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"mu": np.zeros(3)}, r"has no arr_0 \(it holds mu\); arr_0 must be uint8"),
        ({}, r"has no arr_0 \(it holds nothing\)"),
        ({"arr_0": np.zeros((4, 8, 8, 3), np.float32)}, "arr_0 is float32; arr_0 must be uint8"),
        ({"arr_0": np.array([{}, {}], object)}, "arr_0 is object|arr_0 is not a numpy array"),
        ({"arr_0": np.zeros((4, 3, 8, 8), np.uint8)}, "looks like channels first"),
        ({"arr_0": np.zeros((4, 8), np.uint8)}, r"arr_0 has shape \(4, 8\)"),
        ({"arr_0": np.zeros((0, 8, 8, 3), np.uint8)}, r"arr_0 has shape \(0, 8, 8, 3\)"),
        ({"arr_0": np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8))}, "Fortran order"),
        (
            {"arr_0": np.zeros((4, 8, 8, 3), np.uint8), "arr_1": np.zeros(3, int)},
            r"arr_1 is int64 \(3,\); it must",
        ),
        ({"arr_0": np.zeros((4, 8, 8, 3), np.uint8), "arr_1": np.zeros(4)}, "arr_1 is float64"),
        (
            {"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.array([{}, {}])},
            "arr_1 cannot be read.*allow_p",
        ),
        (
            {"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.array([0, -1])},
            "1 of 2 labels are negative",
        ),
        ({"arr_0": np.zeros((2, 8, 9, 3), np.uint8)}, r"are not square: 9x8 \(2\); choose a side"),
    ],
)
def test_npz_of_another_form(arrays: dict, match: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    refused(match, tmp_path / "a.npz")


def test_damaged_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[400] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    refused("a.npz is damaged .*make it again", tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(data[:300])
    refused("b.npz is damaged", tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as file:
        file.writestr(
            "arr_0.npy", b"\x93NUMPY\x01\x00v\x00__import__('os').system('true')".ljust(128) + b"x" * 99
        )
    refused("arr_0 is not a numpy array", tmp_path / "c.npz")


def test_damaged_idx(tmp_path: Path) -> None:
    head = struct.pack(">IIII", 0x803, 10, 8, 8)
    for name, data, match in [
        ("cut", head + bytes(100), "ends after 100 of 640 bytes; fetch it again"),
        ("short", gzip.compress(head + bytes(640))[:-3], "is damaged"),
        ("flipped", gzip.compress(head + bytes(640))[:-8] + bytes(8), "is damaged .*CRC"),
        ("long", head + bytes(641), "is longer than its header says"),
        ("none", struct.pack(">IIII", 0x803, 0, 8, 8), "holds 0 pictures of 8x8"),
        (
            "vast",
            struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            "over 134217728 pixels|max_pixels",
        ),
    ]:
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(data)
        refused(match, tmp_path / f"{name}-images-idx3-ubyte")
    (tmp_path / "a-images-idx3-ubyte").write_bytes(head + bytes(640))
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 9) + bytes(9))
    refused("has 9 labels for 10 pictures", tmp_path / "a-images-idx3-ubyte")
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(head + bytes(640))
    refused("not an idx file of labels", tmp_path / "a-images-idx3-ubyte")


def test_an_encrypted_or_inflated_zip_member(
    tmp_path: Path, make: Make, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = make(tmp_path / "a.png").read_bytes()
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.png", good)
        file.writestr("bomb.png", bytes(10**6))
    monkeypatch.setattr("unnoise.data.archive._MEMBER_BYTES", 10**5)
    ((name, reason),) = opened(path).report.broken
    assert name == "bomb.png" and "1,000,000 bytes when unpacked, over the limit" in reason
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"bomb.png") - 46
    data[entry + 8] |= 1  # encrypted, says the directory
    local = data.index(b"bomb.png") - 30
    data[local + 6] |= 1
    path.write_bytes(data)
    monkeypatch.setattr("unnoise.data.archive._MEMBER_BYTES", 10**8)
    ((name, reason),) = opened(path).report.broken
    assert "encrypted" in reason


def test_nothing_is_printed_or_warned(tmp_path: Path, make: Make, opened: Open, capfd) -> None:
    broken_among_good(tmp_path, make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(tmp_path, size=16)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


PICTURES = [("a/0.png", 0), ("b/1.png", 1)]


def packed(make: Make, path: Path, *more: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of two pictures and more members."""
    with zipfile.ZipFile(path, "w", how) as file:
        for name, k in PICTURES:
            file.writestr(name, make(path.parent / f"{k}.png", (8, 8, 3), seed=k).read_bytes())
        for name, content in more:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("mark", "offset", "value", "match"),
    [
        (b"PK\x01\x02", 6, b"\xff", "cannot be read as a zip .*version 25.5.*; make it again"),
        (b"PK\x01\x02", 30, b"\xf0\xff", "cannot be read as a zip .*extra field"),
        (b"PK\x01\x02", 9, b"\x08", "cannot be read as a zip .*can't decode"),
        (b"PK\x05\x06", 12, b"\xff\xff", "cannot be read as a zip .*central directory"),
    ],
)
def test_lists_of_members_that_are_damaged(
    tmp_path: Path, make: Make, mark: bytes, offset: int, value: bytes, match: str
) -> None:
    content = bytearray(packed(make, tmp_path / "x.zip").read_bytes())
    place = content.index(mark) + offset
    content[place : place + len(value)] = value
    content[content.index(b"PK\x01\x02") + 46] = 0xFF  # no UTF-8, where a flag says that names are
    for kind in ("zip", "npz"):
        (tmp_path / f"x.{kind}").write_bytes(content)
        refused(match, tmp_path / f"x.{kind}")


def test_members_that_no_longer_unpack(tmp_path: Path, make: Make) -> None:
    path = packed(make, tmp_path / "x.zip", how=zipfile.ZIP_LZMA)
    content = bytearray(path.read_bytes())
    for name, _ in PICTURES:
        start = content.index(name.encode()) + len(name)
        content[start + 9 : start + 60] = b"\xff" * 51
    path.write_bytes(content)
    refused(r"every picture of .* is broken, 2: a/0.png \(cannot be unpacked", path)


@pytest.mark.parametrize("order", [b"{", b"3", b"null", b'{"a": 1}', b"[[]]", b"\xff\xfe", b"[" * 100_000])
def test_class_orders_that_are_none(tmp_path: Path, make: Make, order: bytes) -> None:
    refused(
        "classes.json is no list of names", packed(make, tmp_path / "x.zip", (".unnoise-classes.json", order))
    )


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def headed(header: str) -> bytes:
    """What says that it is an array of this form, and holds nothing."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("member", "content", "match"),
    [
        ("arr_0", headed("(" * 3000), "arr_0 is not a numpy array .*make it again"),
        ("arr_1", headed("(" * 3000), "arr_1 cannot be read .*save labels as whole numbers"),
        ("arr_1", npy(np.frombuffer(b"\xff\xff\xff\x7f" * 3, "<U1")), "arr_1 cannot be read"),
        ("arr_1", headed(f"{{'descr':'<i8','fortran_order':False,'shape':({10**14},)}}\n"), "arr_1"),
        ("arr_1", headed(f"{{'descr':'<i8','fortran_order':False,'shape':({10**30},)}}\n"), "damaged"),
    ],
    ids=["nested", "nested labels", "characters", "memory", "overflow"],
)
def test_arrays_that_numpy_cannot_read(tmp_path: Path, member: str, content: bytes, match: str) -> None:
    members = {"arr_0": npy(np.zeros((3, 8, 8, 3), np.uint8)), member: content}
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        for name, each in members.items():
            file.writestr(f"{name}.npy", each)
    refused(match, tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "0.txt"])
@pytest.mark.parametrize("text", ["é".encode("latin-1"), "é".encode("utf-16")])
def test_side_files_that_are_no_utf8(tmp_path: Path, make: Make, name: str, text: bytes) -> None:
    make(tmp_path / "0.png", (8, 8, 3))
    (tmp_path / name).write_bytes(text)
    refused(f"{name} is not UTF-8 text .*; save it as UTF-8", tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for member in ("0.png", name):
            file.write(tmp_path / member, member)
    refused(f"x.zip/{name} is not UTF-8 text", tmp_path / "x.zip")


def test_half_characters_are_replaced(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "0.png", (8, 8, 3))
    row = {"file_name": "0.png", "label": "\ud800", "text": "a \udfff"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    data = opened(tmp_path)
    assert data.classes == ("\ufffd",) and data.captions == ["a \ufffd"]


def test_numbers_of_thousands_of_digits_are_classes(tmp_path: Path, make: Make, opened: Open) -> None:
    labels = ["9" * 5000, "10", "09"]
    rows = [
        json.dumps({"file_name": make(tmp_path / f"{k}.png", (8, 8, 3)).name, "label": label})
        for k, label in enumerate(labels)
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    assert opened(tmp_path).classes == ("09", "10", "9" * 5000)


def test_damaged_gzip(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"1234")[:10] + b"\xff" * 20)
    refused("x.gz is not a zip, npz or idx file", tmp_path / "x.gz")

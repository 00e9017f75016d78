"""What is said at the start of a run: everything that was found, and nothing that was not."""

import dataclasses
import json
from pathlib import Path

from tests.data.conftest import Make, Open
from unnoise.data import DataReport


def test_the_lines_of_a_mixed_folder(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(4):
        make(tmp_path / "cat" / f"{k}.png", (20, 30, 3), seed=k)
    make(tmp_path / "dog" / "small.png", (6, 9, 3))
    (tmp_path / "dog/small.txt").write_text("a small dog")
    (tmp_path / "dog/bad.png").write_text("")
    (tmp_path / "dog/film.mp4").write_text("")
    assert list(opened(tmp_path, size=8).report.lines()) == [
        f"5 pictures, 8x8 RGB, from {tmp_path}",
        "classes: 2: cat (4), dog (1)",
        "captions: 1; 4 pictures have none",
        "sizes as stored: 30x20 (4), 9x6 (1)",
        "enlarged: 1 pictures, smaller than 8 pixels and so blurred",
        "broken, left out: 1: dog/bad.png (an empty file)",
        "ignored: 1 files that are not pictures",
    ]


def test_the_lines_of_plain_data() -> None:
    plain = DataReport(source="x.npz", pictures=1234, size=64, channels=1, sizes={"64x64": 1234})
    assert list(plain.lines()) == ["1,234 pictures, 64x64 grey, from x.npz", "classes: none"]


def test_many_of_anything_stays_short() -> None:
    report = DataReport(
        source="x",
        pictures=10**6,
        size=64,
        channels=4,
        classes={f"n{k:08}": k for k in range(1000)},
        sizes={f"{k}x{k}": 9 for k in range(100)},
        different_sizes=5000,
        broken=tuple((f"{k}.png", "truncated") for k in range(10**4)),
    )
    lines = list(report.lines())
    assert max(map(len, lines)) < 600 and "4-channel" in lines[0]
    assert "and 980 more" in lines[1] and "and 4,995 more" in lines[2] and "and 9,995 more" in lines[3]


def test_it_can_be_stored_as_json(opened: Open) -> None:
    report = opened("fashion-mnist-10k").report
    assert json.loads(json.dumps(dataclasses.asdict(report)))["classes"]["Bag"] == 1000

"""The emoji folder from small packages: what is in it, that it continues, what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.builders.conftest import put_json
from tests.data.conftest import Open
from unnoise.data.builders import packages as npm
from unnoise.data.builders.emoji import build_emoji, held_out
from unnoise.data.builders.emoji_names import code, plain_object
from unnoise.data.builders.emoji_sets import SETS

pytestmark = pytest.mark.usefixtures("renderer")


def rows(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(style, code point) -> the metadata, with the split."""
    found = {}
    for split in ("train", "test"):
        path = out / split / "metadata.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            found[row["style"], row["code_point"]] = row | {"split": split}
    return found


def test_pictures_captions_and_licences(tmp_path: Path, packages: Path, opened: Open) -> None:
    built = build_emoji(tmp_path / "out", size=32, source=packages)
    found = rows(tmp_path / "out")
    scissors = {style: row for (style, point), row in found.items() if point == "2702"}
    assert set(scissors) == {"noto", "twemoji", "fluent 3d", "fluent gradient"}
    assert scissors["noto"]["text"] == "a noto emoji of scissors, one, two"
    assert scissors["noto"] | {"split": ""} == {
        "file_name": "noto/2702.png", "text": "a noto emoji of scissors, one, two", "label": "objects",
        "category": "objects", "subcategory": "tool", "style": "noto", "annotation": "scissors",
        "code_point": "2702", "object": "2702", "license": "Apache-2.0", "split": "",
    }  # fmt: skip
    assert found["emojione", "1F1E6-1F1FC"]["text"].startswith("an emojione emoji of flag: Aruba")
    assert ("noto v1", "0031-20E3") in found and ("noto v1", "1F44D-1F3FF") in found
    assert built.left_out == {
        "fluent gradient: its object is not known": 1,
        "fxemoji: a second drawing": 1,
    }
    assert sum(sum(kinds.values()) for kinds in built.counts.values()) == len(found)
    for row in found.values():
        with Image.open(tmp_path / "out" / row["split"] / row["file_name"]) as image:
            assert image.mode == "RGBA" and image.size == (32, 32)
    credits = (tmp_path / "out" / "CREDITS.md").read_text()
    assert all(each.package in credits and each.license in credits for each in SETS) and "CC-BY-SA" in credits
    data = opened(tmp_path / "out" / "train", channels=4, label_field="style")
    assert set(data.classes) <= {each.style for each in SETS} and data.channels == 4
    assert "splits" in pytest.raises(ValueError, opened, tmp_path / "out").value.args[0]


def test_variants_of_an_object_are_in_one_split(tmp_path: Path, packages: Path) -> None:
    build_emoji(tmp_path / "out", size=16, source=packages)
    split: dict[str, set[str]] = {}
    for row in rows(tmp_path / "out").values():
        split.setdefault(row["object"], set()).add(row["split"])
    assert {"2702", "1F44D"} <= set(split) and all(len(where) == 1 for where in split.values())
    assert all((where == {"test"}) == held_out(plain.lower()) for plain, where in split.items())
    assert {"test"} in split.values() and {"train"} in split.values()


def test_a_tenth_of_the_objects_is_held_out() -> None:
    held = sum(held_out(f"{point:04x}") for point in range(0x1F300, 0x1F300 + 2000))
    assert abs(held - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize(
    ("own", "plain"),
    [
        ("1f44d-1f3fd", "1f44d"),
        ("1f468-1f3fb-200d-1f373", "1f9d1-200d-1f373"),
        ("1f469-200d-1f373", "1f9d1-200d-1f373"),
        ("1f6b6-1f3fb-200d-2640-200d-27a1", "1f6b6"),
        ("2640", "2640"),
        ("1f1e6-1f1fc", "1f1e6-1f1fc"),
        ("1faf1-1f3fb-200d-1faf2-1f3fc", "1f91d"),
        ("1f3fb", "1f3fb"),
    ],
)
def test_the_object_of_an_emoji(own: str, plain: str) -> None:
    assert plain_object(own, {"1faf1-1f3fb-200d-1faf2-1f3fc": "1f91d"}) == plain


def test_one_spelling_of_code_points() -> None:
    assert code("39-fe0f-20e3") == code("0039-20E3") == "0039-20e3"
    assert code("1f3f4-e0067_e0062") == "1f3f4-e0067-e0062"


def test_colours_that_cannot_be_seen_do_not_bleed(tmp_path: Path, packages: Path) -> None:
    build_emoji(tmp_path / "out", size=20, source=packages)
    row = rows(tmp_path / "out")["fluent 3d", "2702"]
    pixels = np.asarray(Image.open(tmp_path / "out" / row["split"] / row["file_name"]))
    seen = pixels[pixels[..., 3] > 8]
    assert len(seen) and (seen[:, 0] > 240).all() and (seen[:, 2] < 12).all()


def test_it_continues_and_repeats_to_the_byte(tmp_path: Path, packages: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    build_emoji(whole, size=16, source=packages)
    with pytest.raises(KeyboardInterrupt):
        build_emoji(stopped, size=16, source=packages, on_progress=stop)
    made = {path: path.stat().st_mtime_ns for path in stopped.rglob("*.png")}
    assert made and not list(stopped.rglob("metadata.jsonl"))
    build_emoji(stopped, size=16, source=packages)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items()), "not made twice"
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert names == {path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file()}
    assert all((whole / name).read_bytes() == (stopped / name).read_bytes() for name in names)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, packages: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(ValueError, match="mine is there already and is no build of ours; name a new folder"):
        build_emoji(tmp_path / "mine", source=packages)
    build_emoji(tmp_path / "out", size=16, source=packages)
    with pytest.raises(ValueError, match="built with other settings or packages .*build.json"):
        build_emoji(tmp_path / "out", size=32, source=packages)


def test_openmoji_is_drawn_on_request(tmp_path: Path, packages: Path) -> None:
    build_emoji(tmp_path / "out", size=16, source=packages, openmoji=True)
    assert rows(tmp_path / "out")["openmoji", "2702"]["license"] == "CC-BY-SA-4.0"


def test_a_hostile_drawing_is_left_out_and_counted(tmp_path: Path, packages: Path) -> None:
    home = packages / "node_modules" / "@iconify-json/fluent-emoji-flat"
    put_json(home / "icons.json", {"icons": {"hammer": {"body": '<image href="/etc/passwd"/>'}}})
    built = build_emoji(tmp_path / "out", size=16, source=packages)
    assert built.left_out["fluent flat: <image> is not among the plain shapes"] == 1
    assert ("fluent flat", "1F528") not in rows(tmp_path / "out")


def test_what_is_missing_is_said(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="size=8 is outside 16..256"):
        build_emoji(tmp_path / "out", size=8, source=packages)
    (packages / "node_modules" / "@iconify-json/noto" / "package.json").unlink()
    with pytest.raises(ValueError, match=r"lacks @iconify-json/noto; put them there with: npm install"):
        build_emoji(tmp_path / "out", source=packages)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(
        ValueError, match=r"npm is not on this machine; install it .*--packages: @iconify-json/noto@"
    ):
        build_emoji(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ValueError, match=r"resvg-py; install it with: pip install 'unnoise\[build\]'"):
        build_emoji(tmp_path / "out", source=packages)


def test_damaged_packages(tmp_path: Path, packages: Path) -> None:
    path = packages / "node_modules" / "@iconify-json/noto" / "icons.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="icons.json cannot be read .*install its package again"):
        build_emoji(tmp_path / "out", source=packages)
    path.write_text("[]")
    with pytest.raises(ValueError, match="icons.json is not a JSON dict"):
        build_emoji(tmp_path / "out", source=packages)


def test_npm_is_asked_once_for_exact_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for npm that writes down what it was asked and makes the package."""
    program = tmp_path / "npm"
    program.write_text(
        '#!/bin/sh\necho "$@" >> asked\nmkdir -p node_modules/thing\n'
        'echo \'{"version": "2.0.1"}\' > node_modules/thing/package.json\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    for _ in range(2):
        assert npm.fetch(tmp_path / "home", {"thing": "2.0.1"}) == {
            "thing": tmp_path / "home/node_modules/thing"
        }
    asked = (tmp_path / "home" / "asked").read_text()
    assert asked.count("\n") == 1 and "--ignore-scripts" in asked and "thing@2.0.1" in asked
    program.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    with pytest.raises(ValueError, match="npm could not fetch the packages .no network"):
        npm.fetch(tmp_path / "home", {"thing": "3.0.0"})

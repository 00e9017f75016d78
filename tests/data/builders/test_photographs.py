"""Patches from small packages: split by photograph, licensed each, continued, refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import Make
from unnoise.data.builders import debian
from unnoise.data.builders.photographs import SHELVES, build_photographs, held_out

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2001, Somebody
License: GPL-2+

Files: nature/Garden.jpg
       nature/Aqua*
Copyright: 2008, A Gardener
           2009, Her Friend
License: CC-BY-3.0
 The text of it.

Files: debian/*
Copyright: 2010, The Packager
License: MIT
"""


def doc(root: Path, package: str) -> None:
    folder = root / package / "usr/share/doc" / package
    folder.mkdir(parents=True)
    (folder / "copyright").write_text(COPYRIGHT)


@pytest.fixture
def packages(tmp_path: Path, make: Make) -> Path:
    root = tmp_path / "unpacked"
    for shelf in SHELVES:
        doc(root, shelf.package)
    mate = root / "mate-backgrounds/usr/share/backgrounds/mate"
    for k, name in enumerate(("Aqua", "Garden", "Storm")):
        make(mate / "nature" / f"{name}.jpg", (130, 200, 3), k)
    make(mate / "abstract" / "Drawing.jpg", (130, 200, 3))
    kite = root / "plasma-workspace-wallpapers/usr/share/wallpapers/Kite"
    make(kite / "contents/images/2560x1600.jpg", (100, 100, 3), 5)
    (kite / "contents/images/640x480.jpg").symlink_to("2560x1600.jpg")
    facts = {"KPlugin": {"License": "LGPLv3", "Authors": [{"Name": "A Flyer"}]}}
    (kite / "metadata.json").write_text(json.dumps(facts))
    for k in range(17):  # enough photographs for some to be held out
        name = SHELVES[2].names[k]
        make(root / "opencv-doc" / SHELVES[2].folder / name, (64, 64, 3), 10 + k)
    return root


def rows(out: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) | {"split": split}
        for split in ("train", "test")
        for line in (out / split / "metadata.jsonl").read_text().splitlines()
    ]


def test_patches_are_of_one_split_and_have_their_terms(tmp_path: Path, packages: Path) -> None:
    built = build_photographs(tmp_path / "out", size=32, source=packages)
    found = rows(tmp_path / "out")
    assert sum(sum(kinds.values()) for kinds in built.counts.values()) == len(found)
    terms = {row["photograph"]: (row["license"], row["holder"]) for row in found}
    assert terms["mate-backgrounds/nature/Garden.jpg"] == ("CC-BY-3.0", "2008, A Gardener; 2009, Her Friend")
    assert terms["mate-backgrounds/nature/Storm.jpg"] == ("GPL-2+", "2001, Somebody")
    assert terms["plasma-workspace-wallpapers/Kite/contents/images/2560x1600.jpg"] == ("LGPLv3", "A Flyer")
    assert len(terms) == 3 + 1 + 17, "no drawing, and no link to a photograph"
    for row in found:
        assert row["split"] == ("test" if held_out(row["photograph"]) else "train")
    assert {row["split"] for row in found} == {"train", "test"}


def test_a_patch_is_the_photograph_there(tmp_path: Path, packages: Path) -> None:
    build_photographs(tmp_path / "out", size=32, source=packages)
    whole = Image.open(packages / "mate-backgrounds/usr/share/backgrounds/mate/nature/Storm.jpg")
    found = [row for row in rows(tmp_path / "out") if row["photograph"].endswith("Storm.jpg")]
    assert {row["scale"] for row in found} == {1, 2, 4}
    assert len(found) == 4 * 6 + 2 * 3 + 1 * 1
    for row in found:
        patch = np.asarray(Image.open(tmp_path / "out" / row["split"] / row["file_name"]))
        pixels = np.asarray(whole.reduce(row["scale"]))
        assert (patch == pixels[row["top"] : row["top"] + 32, row["left"] : row["left"] + 32]).all()


def test_flat_patches_are_left_and_the_rest_are_bounded(tmp_path: Path, packages: Path) -> None:
    path = packages / "mate-backgrounds/usr/share/backgrounds/mate/nature/Storm.jpg"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[:, :100] = 90
    Image.fromarray(pixels).save(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)  # told by its content
    build_photographs(tmp_path / "out", size=32, source=packages, patches=5)
    found = [row for row in rows(tmp_path / "out") if row["photograph"].endswith("Storm.jpg")]
    assert len(found) == 5 and all((row["left"] + 32) * row["scale"] > 100 for row in found)


def test_it_continues_and_refuses_other_settings(tmp_path: Path, packages: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_photographs(tmp_path / "out", size=32, source=packages, on_progress=stop)
    build_photographs(tmp_path / "out", size=32, source=packages)
    build_photographs(tmp_path / "whole", size=32, source=packages)
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    with pytest.raises(ValueError, match="built with other settings or packages"):
        build_photographs(tmp_path / "out", size=64, source=packages)


def test_what_is_refused(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="size=16 is outside 32..512"):
        build_photographs(tmp_path / "out", size=16, source=packages)
    with pytest.raises(ValueError, match="patches=0 is less than 1"):
        build_photographs(tmp_path / "out", patches=0, source=packages)
    with pytest.raises(ValueError, match="lacks Debian's mate-backgrounds, plasma.*dpkg -x FILE PACKAGE"):
        build_photographs(tmp_path / "out", source=tmp_path)
    for path in (packages / "opencv-doc" / SHELVES[2].folder).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="holds none of the photographs of opencv-doc"):
        build_photographs(tmp_path / "out", source=packages)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="apt-get and dpkg are not on this machine; unpack .*--packages"):
        debian.fetch(tmp_path / "home", ["opencv-doc"])


def test_a_broken_photograph_is_left_out_and_counted(tmp_path: Path, packages: Path) -> None:
    path = packages / "mate-backgrounds/usr/share/backgrounds/mate/nature/Storm.jpg"
    path.write_bytes(path.read_bytes()[:500])
    built = build_photographs(tmp_path / "out", size=32, source=packages)
    assert [reason for reason in built.left_out if reason.startswith("mate-backgrounds/nature/Storm.jpg")]
    assert not [row for row in rows(tmp_path / "out") if row["photograph"].endswith("Storm.jpg")]

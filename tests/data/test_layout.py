"""Boxes and maps: read strictly, moved exactly as their picture is, written as tokens."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import Open
from unnoise.data.crop import center_window, cut, random_window
from unnoise.data.layout import LayoutTokens, mirrored, read_layout, through
from unnoise.data.maps import cut_map, find_maps, one_hot, read_map
from unnoise.data.split import part

A_PNG = {"id": 7, "file_name": "a.png", "width": 60, "height": 40}


def coco(path: Path, boxes: list[dict[str, Any]], **more: Any) -> Path:
    table = {
        "images": [
            A_PNG,
            {"id": 9, "file_name": "b.png", "width": 32, "height": 32},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": boxes,
    }
    path.write_text(json.dumps(table | more))
    return path


def box(corners: list[float], picture: Any = 7, kind: Any = 5) -> dict[str, Any]:
    return {"id": 1, "image_id": picture, "category_id": kind, "bbox": corners}


def test_what_is_read(tmp_path: Path) -> None:
    path = coco(tmp_path / "boxes.json", [box([6, 4, 30, 20]), box([0, 0, 60.5, 40], kind=2)])
    layout = read_layout(path, ["b.png", "a.png"])
    assert layout.classes == ("dog", "cat") and layout.sides.tolist() == [[32, 32], [60, 40]]
    assert layout.boxes[0].shape == (0, 4) and layout.kinds[1].tolist() == [1, 0]
    assert np.allclose(layout.boxes[1], [[0.1, 0.1, 0.6, 0.6], [0, 0, 1, 1]]), "cut at the edge"


@pytest.mark.parametrize(
    ("boxes", "more", "match"),
    [
        (
            [box([50, 4, 30, 20])],
            {},
            r"boxes.json: box 1 is \[50, 4, 30, 20\], outside its picture a.png of 60x40",
        ),
        ([box([-3, 0, 9, 9])], {}, "outside its picture a.png"),
        ([box([1, 1, 0, 9])], {}, "box 1 is .* write .left, top, width, height. with sides above 0"),
        ([box([1, 1, 9])], {}, "write .left, top, width, height."),
        ([box([1, 1, 9, 9], kind=3)], {}, "box 1 has the class 3, which is none"),
        ([box([1, 1, 9, 9], picture=3)], {}, "box 1 is in picture 3, which the file does not list"),
        ([], {"images": []}, "2 of 2 pictures are not in .*boxes.json .first: a.png"),
        ([], {"images": [{"id": 1, "file_name": "a.png"}]}, "picture a.png has no width and height"),
        ([], {"categories": "cat"}, "has no list of categories; it is not in COCO's form"),
        ([box([1, 1, 9, 9], kind=[5])], {}, r"box 1 has the class \[5\], which is none"),
        ([box([1, 1, 9, 9], picture={"a": 7})], {}, "box 1 is in picture {'a': 7}, which the file"),
        ([box([1, 1, 10**400, 9])], {}, "outside its picture a.png"),
        ([], {"images": [{**A_PNG, "width": 10**400}]}, "picture a.png has no width and height"),
        ([], {"images": [A_PNG, A_PNG]}, "two of its images have the id 7; use each once"),
        ([], {"images": [A_PNG, {**A_PNG, "id": 8}]}, "picture a.png is listed twice, as 7 and 8"),
    ],
)
def test_what_is_refused(tmp_path: Path, boxes: list, more: dict, match: str) -> None:
    path = coco(tmp_path / "boxes.json", boxes, **more)
    with pytest.raises(ValueError, match=match):
        read_layout(path, ["a.png", "b.png"])


@pytest.mark.parametrize("content", ["{", "", "[" * 100_000, f'{{"a": {"1" * 5000}}}'])
def test_files_that_are_no_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match="x.json cannot be read as COCO's json"):
        read_layout(tmp_path / "x.json", [])


@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_maps_move_with_their_picture(seed: int) -> None:
    """A painted rectangle is found again where its box says, after the crop and the mirror."""
    wide, high, size = 96, 64, 32
    corners = np.array([[24, 12, 72, 44]])
    levels = np.zeros((high, wide), np.uint8)
    levels[12:44, 24:72] = 1
    window = random_window(wide, high, size, random.Random(seed)) if seed else center_window(wide, high, size)
    moved, kept = through(corners / [wide, high, wide, high], (wide, high), window, size)
    assert kept.tolist() == [0]
    picture = cut(Image.fromarray(levels * 255), window, size)[..., 0] / 255.0
    for drawn, boxes in ((picture, moved), (picture[:, ::-1], mirrored(moved))):
        left, top, right, bottom = boxes[0] * size
        rows, columns = np.flatnonzero((drawn > 0.5).any(1)), np.flatnonzero((drawn > 0.5).any(0))
        assert abs(rows[0] - top) <= 1 and abs(rows[-1] + 1 - bottom) <= 1
        assert abs(columns[0] - left) <= 1 and abs(columns[-1] + 1 - right) <= 1
    found = cut_map(levels, window, size)
    assert set(np.unique(found)) <= {0, 1} and (found != (picture > 0.5)).mean() < 0.05


@pytest.mark.parametrize("crop", ["center", "random"])
def test_boxes_follow_the_pictures_of_a_data_set(tmp_path: Path, opened: Open, crop: str) -> None:
    """White rectangles in black pictures are where the boxes say, batch after batch, in a part as well."""
    rng = np.random.default_rng(0)
    sides, boxes = np.array([[90, 70], [64, 96], [80, 80], [100, 60]]), []
    for k, (wide, high) in enumerate(sides):
        left, top = rng.integers(20, wide // 2), rng.integers(20, high // 2)
        corners = np.array([[left, top, left + 20, top + 18]])
        pixels = np.zeros((high, wide, 3), np.uint8)
        pixels[top : top + 18, left : left + 20] = 255
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        boxes.append(corners / [wide, high, wide, high])
    whole = opened(tmp_path, size=32, crop=crop, flip=True)
    index = np.array([3, 1, 0])
    for data, sides_, boxes_ in (
        (whole, sides, boxes),
        (part(whole, index), sides[index], [boxes[k] for k in index]),
    ):
        places = np.arange(24)
        batch, followed = data.batch(0, places), data.follow(places, sides_)
        assert 0 < followed.flipped.sum() < 24
        for k in range(24):
            row = followed.chosen[k]
            moved, _ = through(boxes_[row], tuple(sides_[row]), followed.windows[k], 32)
            left, top, right, bottom = (mirrored(moved) if followed.flipped[k] else moved)[0] * 32
            bright = batch.pixels[k].numpy().mean(-1) > 127
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(np.array(seen) - [left, top, right, bottom]).max() <= 1.2
    with pytest.raises(ValueError, match="sides of 3 pictures were given for 4"):
        whole.follow(np.arange(2), sides[:3])


def test_boxes_that_the_crop_leaves_behind() -> None:
    boxes = np.array([[0.0, 0.0, 0.1, 1.0], [0.4, 0.2, 0.6, 0.8]])
    moved, kept = through(boxes, (64, 32), center_window(64, 32, 32), 32)
    assert kept.tolist() == [1] and np.allclose(moved, [[0.3, 0.2, 0.7, 0.8]])


def test_tokens() -> None:
    layout = LayoutTokens(classes=3, grid=4, most=2)
    boxes = np.array([[0.0, 0.0, 0.3, 0.3], [0.5, 0.25, 1.0, 1.0], [0.9, 0.9, 1.0, 1.0]])
    tokens, mask = layout.encode([boxes, boxes[:0]], [np.array([2, 0, 1]), np.zeros(0, np.int64)])
    assert len(layout) == 1 + 3 + 16 and tokens.shape == (2, layout.length) == (2, 6)
    assert tokens[0].tolist() == [1, 4 + 4 * 1 + 2, 4 + 15, 3, 4, 4 + 4 * 1 + 1], (
        "the largest first, the smallest left"
    )
    assert mask.tolist() == [[True] * 6, [False] * 6] and tokens.max() < len(layout)


def test_maps(tmp_path: Path) -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 5
    Image.fromarray(levels).save(tmp_path / "a.png")
    (path,) = find_maps(tmp_path, ["a.jpg"])
    assert (read_map(path, (4, 3), classes=5, max_pixels=100) == levels).all()
    with pytest.raises(ValueError, match="a.png is 4x3, its picture 8x6; make them alike"):
        read_map(path, (8, 6), classes=5, max_pixels=100)
    with pytest.raises(ValueError, match="a.png has class 4, but there are 4: 0..3"):
        read_map(path, (4, 3), classes=4, max_pixels=100)
    with pytest.raises(ValueError, match="1 of 2 pictures have no map .first: .*sub/b.png"):
        find_maps(tmp_path, ["a.jpg", "sub/b.jpg"])
    Image.new("RGB", (4, 3)).save(path)
    with pytest.raises(ValueError, match="has colours or over 8 bits"):
        read_map(path, (4, 3), classes=5, max_pixels=100)
    Image.fromarray(levels).save(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="cannot be read as a map"):
        read_map(path, (4, 3), classes=5, max_pixels=100)
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read as a map .not a picture"):
        read_map(path, (4, 3), classes=5, max_pixels=100)
    hot = one_hot(torch.from_numpy(levels)[None], 5)
    assert (
        hot.shape == (1, 5, 3, 4) and (hot.argmax(1)[0].numpy() == levels).all() and (hot.sum(1) == 1).all()
    )

"""Where holes are: what a brush covers, and masks as files have them."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageCms

from unnoise.config.requests import EditRequest
from unnoise.edit.holes import find_holes
from unnoise.edit.pictures import read_upright


def hole_of(picture, masks=None, **options):
    wanted = EditRequest(kind="inpaint", **options)
    return find_holes(wanted, masks)(read_upright(picture, 3, EditRequest(), "p"))


def blank(width, height):
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("points", "width"),
    [
        ([[5, 6]], 1),
        ([[5, 6]], 7),
        ([[2, 2], [17, 2]], 3),
        ([[2.5, 3], [14, 9], [1, 11]], 4.5),
        ([[-9, 5], [40, 8]], 5),
        ([[50, 50], [60, 60]], 3),
        ([[-30, -40], [-20, -20]], 3),
    ],
)
def test_a_brush_covers_what_is_near_its_line(tmp_path, points, width):
    """Against the distance to a thousand places on the line."""
    file = tmp_path / "strokes.json"
    file.write_text(json.dumps([{"width": width, "points": points}]))
    hole = hole_of(blank(20, 13), strokes=str(file))
    ends = [points * 2] if len(points) == 1 else [points[k : k + 2] for k in range(len(points) - 1)]
    y, x = np.mgrid[:13, :20]
    distance = np.full((13, 20), np.inf)
    for start, end in ends:
        for share in np.linspace(0, 1, 1000):
            at = (1 - share) * np.array(start) + share * np.array(end)
            distance = np.minimum(distance, np.hypot(x - at[0], y - at[1]))
    clear_of_the_edge = np.abs(distance - width / 2) > 0.03
    assert np.array_equal(hole[clear_of_the_edge], (distance <= width / 2)[clear_of_the_edge])


def test_a_brush_far_wider_or_longer_than_its_picture_takes_no_more_memory(tmp_path):
    file = tmp_path / "strokes.json"
    for width, points in ((900_000, [[5, 5]]), (3, [[-900_000, 6], [900_000, 6]])):
        file.write_text(json.dumps([{"width": width, "points": points}]))
        assert hole_of(blank(20, 13), strokes=str(file)).any()


@pytest.mark.parametrize(
    "content",
    ["{}", "null", "[1]", '[{"width": [2], "points": [[1, 1]]}]', "{", "[" * 100_000, f"[{'9' * 5000}]"],
)
def test_files_without_strokes(tmp_path, content):
    file = tmp_path / "strokes.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f'{file} holds no strokes; write .*"points"'):
        hole_of(blank(9, 6), strokes=str(file))
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(ValueError, match=f"strokes={path}: .*; name a json file of strokes"):
            hole_of(blank(9, 6), strokes=str(path))


@pytest.mark.parametrize(
    ("width", "points", "words"),
    [
        ("-1", "[[1, 1]]", "width -1 and 1 points"),
        ("NaN", "[[1, 1]]", "width nan"),
        ("2", "[]", "0 points"),
        ("2", "[[NaN, 1]]", "beyond 1e.06 pixels"),
        ("1e300", "[[1, 1]]", "beyond 1e.06 pixels"),
        ("2", f"[[{'9' * 400}, 1]]", "holds no strokes"),
    ],
)
def test_numbers_that_make_no_stroke(tmp_path, width, points, words):
    file = tmp_path / "strokes.json"
    file.write_text(f'[{{"width": {width}, "points": {points}}}]')
    with pytest.raises(ValueError, match=f"{file}.*{words}"):
        hole_of(blank(9, 6), strokes=str(file))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for field in ("strokes", "mask"):
        with pytest.raises(ValueError, match="pipe: a device or a pipe"):
            hole_of(blank(9, 6), **{field: str(tmp_path / "pipe")})


def test_masks_are_white_in_whatever_way_files_say_it(tmp_path):
    white = np.random.default_rng(0).random((6, 9)) < 0.4
    levels = np.where(white, 200, 90).astype(np.uint8)
    image = Image.fromarray(levels)
    ways = {
        "L": image,
        "RGB": image.convert("RGB"),
        "1": Image.fromarray(white),
        "P": Image.fromarray(levels).convert("P"),
        "I;16": Image.fromarray(levels.astype(np.uint16) * 257),
        "coloured": Image.fromarray(np.where(white[..., None], [250, 240, 200], [0, 0, 90]).astype(np.uint8)),
        "transparent": Image.fromarray(
            np.dstack([np.full((6, 9, 3), 255), np.where(white, 255, 0)]).astype(np.uint8)
        ),
    }
    for name, way in ways.items():
        way.save(tmp_path / f"{name}.png")
        assert np.array_equal(hole_of(blank(9, 6), mask=str(tmp_path / f"{name}.png")), white), name


def test_masks_are_turned_as_their_pictures_are(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.zeros((8, 6), np.uint8)
    mask[:3] = 255
    Image.fromarray(levels).save(tmp_path / "picture.png", exif=exif)
    Image.fromarray(mask).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(np.rot90(mask, -1)).save(tmp_path / "upright.png")
    for name in ("mask", "upright"):
        hole = hole_of(str(tmp_path / "picture.png"), mask=str(tmp_path / f"{name}.png"))
        assert np.array_equal(hole, np.rot90(mask, -1) > 0)


def test_a_folder_of_masks_goes_by_names(tmp_path):
    for name, column in (("a", 0), ("deep/b", 1)):
        mask = np.zeros((2, 3), np.uint8)
        mask[:, column] = 255
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    find = find_holes(EditRequest(kind="inpaint", mask=str(tmp_path)))
    picture = blank(3, 2)
    for name, column in (("a", 0), ("deep/b", 1)):
        hole = find(read_upright(picture, 3, EditRequest(), name))
        assert np.array_equal(hole[0], np.arange(3) == column)
    with pytest.raises(ValueError, match=f"c: {tmp_path} has no mask called c; add it"):
        find(read_upright(picture, 3, EditRequest(), "c"))


def profile(primaries):
    """An RGB profile whose colorants are the columns of `primaries` (XYZ), with a gamma of one."""
    head, number = bytearray(128), lambda value: round(value * 65536).to_bytes(4, "big", signed=True)
    head[8:12], head[12:16], head[16:20], head[20:24] = b"\x02\x40\0\0", b"mntr", b"RGB ", b"XYZ "
    head[36:40], head[68:80] = b"acsp", number(0.9642) + number(1) + number(0.8249)
    tags = {"wtpt": b"XYZ \0\0\0\0" + head[68:80]}
    for name, column in zip(("rXYZ", "gXYZ", "bXYZ"), np.transpose(primaries), strict=True):
        tags[name] = b"XYZ \0\0\0\0" + b"".join(map(number, column))
    for name in ("rTRC", "gTRC", "bTRC"):
        tags[name] = b"curv" + bytes(8)
    table, body, place = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name.encode() + (place + len(body)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        body += value + bytes(-len(value) % 4)
    content = head + len(tags).to_bytes(4, "big") + table + body
    content[:4] = len(content).to_bytes(4, "big")
    return bytes(content)


SRGB_D50 = [[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]


def test_colours_are_those_of_the_profile():
    """The colorants of sRGB with a gamma of one: its levels are light, which its curve makes lighter."""
    levels = np.tile(np.arange(0, 256, 17, dtype=np.uint8)[None, :, None], (2, 1, 3))
    levels[1, :, 0] = 0
    light = levels / 255
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    for mode in ("RGB", "RGBA"):
        file = io.BytesIO()
        Image.fromarray(levels).convert(mode).save(file, "PNG", icc_profile=profile(SRGB_D50))
        read = np.asarray(read_upright(file.getvalue(), 3, EditRequest()).image)
        assert np.abs(read - 255 * curve).max() <= 2
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (same, b"no profile at all"):
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "PNG", icc_profile=icc)
        assert np.array_equal(np.asarray(read_upright(file.getvalue(), 3, EditRequest()).image), levels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_profile_takes_no_orientation_away(kind):
    levels = np.zeros((8, 16, 3), np.uint8)
    levels[:, :8] = 255
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(levels).save(file, kind, exif=exif, icc_profile=profile(SRGB_D50))
    read = np.asarray(read_upright(file.getvalue(), 3, EditRequest()).image)
    assert read.shape == (16, 8, 3) and read[:7].min() > 250 and read[9:].max() < 5

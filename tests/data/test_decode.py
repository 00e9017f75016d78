"""Every format, mode, depth and rotation comes out as the 8-bit picture that a person would see."""

import io
import random
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import Make, Open
from unnoise.data import Dataset, decode
from unnoise.data.build import Budget, prepare
from unnoise.data.decode import Decoding, header, opened, upright
from unnoise.data.shape import Shape

WHITE = Decoding(3, (255, 255, 255), 10**8)


def only(data: Dataset) -> np.ndarray:
    assert len(data) == 1
    return data.take(np.array([0])).pixels[0].numpy()


def save(folder: Path, image: Image.Image, name: str = "a.png", **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **options)
    return folder


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp", "jpg", "JPEG", "ppm"])
def test_every_format_opens(suffix: str, tmp_path: Path, opened: Open) -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 16, dtype=np.uint8)[:, None, None], (16, 16, 3)).copy()
    ramp[..., 2] = 0
    options = (
        {"lossless": True}
        if suffix == "webp"
        else {"quality": 100, "subsampling": 0}
        if suffix in ("jpg", "JPEG")
        else {}
    )
    found = only(opened(save(tmp_path / "a", Image.fromarray(ramp), f"x.{suffix}", **options)))
    slack = 12 if suffix in ("jpg", "JPEG") else 0
    assert np.abs(found.astype(int) - ramp.astype(int)).max() <= slack


def test_grey_stays_grey_and_transparency_lies_over_the_background(tmp_path: Path, opened: Open) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    assert np.array_equal(only(opened(save(tmp_path / "l", Image.fromarray(grey))))[..., 0], grey)
    half = np.dstack([grey, np.full((8, 8), 0, np.uint8)])
    folder = save(tmp_path / "la", Image.fromarray(half))
    assert (only(opened(folder)) == 255).all() and opened(folder).channels == 1
    red = opened(folder, background="#ff0000")
    assert red.channels == 3 and (only(red) == [255, 0, 0]).all()
    assert opened(folder, channels=2).take(np.array([0])).pixels.numpy().tolist() == half[None].tolist()


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_rgba_over_a_colour(alpha: int, tmp_path: Path, opened: Open) -> None:
    image = Image.new("RGBA", (8, 8), (200, 100, 0, alpha))
    found = only(opened(save(tmp_path / "a", image), background="#0000ff"))
    share = alpha / 255
    expected = [200 * share, 100 * share, 255 * (1 - share)]
    assert np.abs(found[0, 0] - expected).max() <= 1
    assert opened(tmp_path / "a", channels=4).channels == 4


def test_palettes(tmp_path: Path, opened: Open) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    assert (only(opened(save(tmp_path / "p", image))) == [10, 200, 30]).all()
    folder = save(tmp_path / "clear", image, transparency=1)
    assert (only(opened(folder, background="#000080", channels=3)) == [0, 0, 128]).all()
    image.putpalette([0, 0, 0, 77, 77, 77] + [0] * 762)
    assert opened(save(tmp_path / "grey", image)).channels == 1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, opened: Open) -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for suffix in ("png", "tiff"):
        found = only(opened(save(tmp_path / suffix, Image.fromarray(levels), f"a.{suffix}")))
        assert np.array_equal(found[..., 0], np.round(levels / 257).astype(np.uint8))
    wide = Image.fromarray(levels.astype(np.int32))
    assert np.array_equal(np.asarray(decode.flatten(wide, Decoding(1, (0, 0, 0), 1))), np.round(levels / 257))


def test_cmyk_and_one_bit(tmp_path: Path, opened: Open) -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    found = only(opened(save(tmp_path / "c", cyan, "a.tiff")))
    assert found[0, 0, 0] < 30 and found[0, 0, 1] > 200
    assert (only(opened(save(tmp_path / "1", Image.new("1", (8, 8), 1)))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int, tmp_path: Path, opened: Open) -> None:
    """Each orientation, as a camera would store it, is shown upright; its sides are known beforehand."""
    scene = np.zeros((12, 12, 3), np.uint8)
    scene[:6, :6], scene[:6, 6:], scene[6:, :6] = [250, 0, 0], [0, 250, 0], [0, 0, 250]
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Pillow's transpose for the camera's turn
    stored = Image.fromarray(scene)
    if orientation != 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = save(tmp_path / "a", stored, "a.png", exif=exif)
    assert np.array_equal(only(opened(folder)), scene)
    stored.resize((12, 20)).save(folder / "tall.png", exif=exif)
    expected = (20, 12) if orientation >= 5 else (12, 20)
    seen = header(folder / "tall.png", WHITE)
    assert (seen.width, seen.height) == expected


def test_the_first_frame_of_an_animation(tmp_path: Path, opened: Open) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (40, 200)]
    folder = save(tmp_path / "a", frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert np.abs(only(opened(folder)).astype(int) - 40).max() <= 1


def test_float_and_32_bit_levels_are_refused_by_name(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "good.png")
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((8, 8), 10**6, np.int32)).save(tmp_path / "deep.tiff")
    reasons = dict(opened(tmp_path).report.broken)
    assert "float" in reasons["float.tiff"] and "32-bit" in reasons["deep.tiff"]


def test_grey_pictures_saved_as_rgb_are_grey(tmp_path: Path, make: Make, opened: Open) -> None:
    for k in range(3):
        grey = np.random.default_rng(k).integers(0, 256, (8, 8, 1), np.uint8).repeat(3, 2)
        save(tmp_path / "a", Image.fromarray(grey), f"{k}.png")
    data = opened(tmp_path / "a")
    assert data.channels == 1 and data.batch(0, np.arange(4)).pixels.shape == (4, 8, 8, 1)
    assert opened(tmp_path / "a", channels=3).channels == 3
    make(tmp_path / "a" / "colour.png")
    assert opened(tmp_path / "a").channels == 3


def test_no_other_decoder_runs(tmp_path: Path, make: Make, opened: Open) -> None:
    """A PostScript file under a picture's name never reaches Ghostscript."""
    make(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    assert opened(tmp_path).report.broken == (("bad.png", "not a picture in any known format"),)


def test_pixels_are_counted_before_decoding(tmp_path: Path, make: Make, opened: Open) -> None:
    make(tmp_path / "good.png")
    make(tmp_path / "large.png", (40, 30, 3))
    data = opened(tmp_path, size=8, max_pixels=1000)
    ((name, reason),) = data.report.broken
    assert name == "large.png" and "30x40" in reason and "1,000" in reason and "data.max_pixels" in reason


def test_decompression_bombs_are_named(tmp_path: Path, make: Make, opened: Open) -> None:
    """A few bytes that claim 100,000 x 100,000 pixels."""
    path = make(tmp_path / "bomb.png")
    data = bytearray(path.read_bytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    make(tmp_path / "good.png")
    ((name, reason),) = opened(tmp_path, size=8).report.broken
    assert name == "bomb.png" and "limit" in reason


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_a_picture(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path / "a.jpg", (8, 8, 3), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    with opened(path, 10**6) as image:
        assert upright(image, WHITE).size == (8, 8)
    assert header(path, WHITE).width == 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_any_damage_is_a_broken_picture_and_nothing_worse(kind: str) -> None:
    """Bytes changed at random, headers most of all: a picture or a reason comes out, never another error."""
    rng = random.Random(kind)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)).save(buffer, kind)
    shape, budget = Shape(16, False, Decoding(3, (255, 255, 255), 10**6)), Budget(10**6)
    reasons = set()
    with decode.quiet():
        for _ in range(150):
            data = bytearray(buffer.getvalue())
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(min(len(data), rng.choice([40, 200, len(data)])))] = rng.randrange(256)
            outcome = prepare(
                partial(bytes, data[: rng.choice([len(data), rng.randrange(len(data))])]), shape, budget
            )
            assert (outcome.pixels is None) == bool(outcome.reason)
            assert outcome.pixels is None or outcome.pixels.shape == (16, 16, 3)
            reasons.add(outcome.reason)
    assert len(reasons) > 2 and not any("\n" in reason for reason in reasons)

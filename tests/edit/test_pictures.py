"""Pictures as the model gets them: sizes, colours, rotation, transparency, names, refusals."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.config.requests import EditRequest
from unnoise.edit.pictures import find_pictures, read_picture

GREY, RGB, RGBA = (1, 8, 8), (3, 8, 8), (4, 8, 8)


def read(source, shape=RGB, **options):
    return read_picture(source, shape, EditRequest(**options)).pixels.numpy()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_every_way_to_give_a_picture_is_the_same(tmp_path):
    levels = noise(8, 8, 3)
    Image.fromarray(levels).save(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    ways = [tmp_path / "a.png", str(tmp_path / "a.png"), png, Image.fromarray(levels), levels]
    for way in [*ways, torch.from_numpy(levels)]:
        assert np.array_equal(read(way), levels)
    digests = {read_picture(way, RGB, EditRequest()).digest for way in ways}
    assert len(digests) == 1 and read_picture(ways[0], RGB, EditRequest()).name == "a"
    assert np.array_equal(read(noise(8, 8), GREY)[..., 0], noise(8, 8))


def test_exif_rotation():
    levels, file = noise(8, 8, 3), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(levels).save(file, "PNG", exif=exif)
    assert np.array_equal(read(file.getvalue()), np.rot90(levels, -1))


def test_transparency():
    levels = noise(8, 8, 4)
    levels[..., 3] = 0
    levels[:4, :, 3] = 255
    over = read(Image.fromarray(levels), background="#102030")
    assert np.array_equal(over[:4], levels[:4, :, :3]) and (over[4:] == (16, 32, 48)).all()
    assert np.array_equal(read(Image.fromarray(levels), RGBA), levels)
    assert (read(noise(8, 8, 3), RGBA)[..., 3] == 255).all()
    # Colours that cannot be seen are none.
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[..., 0] = 200
    assert (read(Image.fromarray(hidden), GREY) == 255).all()


def test_colour_is_not_dropped_unasked():
    coloured, grey = noise(8, 8, 3), np.repeat(noise(8, 8, 1), 3, 2)
    with pytest.raises(ValueError, match="has colour and the model draws in grey; option grey"):
        read(coloured, GREY)
    wanted = np.asarray(Image.fromarray(coloured).convert("L"))[..., None]
    assert np.array_equal(read(coloured, GREY, grey=True), wanted)
    assert np.array_equal(read(grey, GREY), grey[..., :1])  # RGB by name only
    assert np.array_equal(read(grey[..., 0], RGB), grey)


def test_other_sizes_are_refused_unless_said(tmp_path):
    Image.fromarray(noise(20, 12, 3)).save(tmp_path / "tall.png")
    with pytest.raises(ValueError, match=r"tall.png: it is 12x20 and the model draws 8x8; .*crop.*pad"):
        read(tmp_path / "tall.png")


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("sides", [(40, 24), (24, 41), (150, 90), (20, 18)])
def test_pictures_are_never_squeezed(fit, sides):
    """A round dot stays round: its width and height shrink alike."""
    height, width = sides
    y, x = np.mgrid[:height, :width] + 0.5
    radius = 0.35 * min(sides)
    dot = (np.hypot(y - height / 2, x - width / 2) < radius)[..., None] * np.uint8(255)
    shape = (1, 32, 32)
    inside = read(np.ascontiguousarray(dot), shape, fit=fit)[..., 0] > 127
    assert inside.shape == (32, 32)
    across, down = inside.any(0).sum(), inside.any(1).sum()
    factor = {"crop": 32 / min(sides), "pad": min(1, 32 / max(sides))}[fit]
    for side in (across, down):
        assert abs(side - 2 * radius * factor) <= 1.5


def test_padding_repeats_the_edges_and_keeps_small_pictures_whole():
    levels = noise(4, 6, 3)
    padded = read(levels, fit="pad")
    assert np.array_equal(padded[2:6, 1:7], levels)
    assert (padded[:2, 1:7] == levels[0]).all() and (padded[6:, 1:7] == levels[-1]).all()
    assert (padded[2:6, 0] == levels[:, 0]).all() and (padded[2:6, 7] == levels[:, -1]).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"words, not pixels", ["not a picture"]),
        (b"", ["an empty file; mend it, or leave it out"]),
        (None, ["truncated"]),
    ],
)
def test_broken_files(tmp_path, content, words):
    path = tmp_path / "broken.png"
    if content is None:
        Image.fromarray(noise(64, 64, 3)).save(path)
        content = path.read_bytes()[:3000]
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read(path, fit="crop")
    for word in ["broken.png", *words]:
        assert word in str(error.value)


def test_files_of_every_kind(tmp_path):
    """16 bits are scaled, inks become light, of an animation the first frame counts; floats are refused."""
    grey = noise(8, 8)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(read(tmp_path / "deep.png", GREY)[..., 0], grey)
    inks = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    inks.save(tmp_path / "inks.jpg", quality=100)
    assert np.abs(read(tmp_path / "inks.jpg").astype(int) - (0, 255, 255)).max() <= 3
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#00ff00")]
    for kind in ("gif", "webp", "png"):
        frames[0].save(tmp_path / f"moving.{kind}", save_all=True, append_images=frames[1:])
        assert np.abs(read(tmp_path / f"moving.{kind}").astype(int) - (255, 0, 0)).max() <= 3
    Image.fromarray(noise(1, 1, 3)).save(tmp_path / "dot.png")
    for fit in ("crop", "pad"):
        assert (read(tmp_path / "dot.png", fit=fit) == noise(1, 1, 3)).all()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "light.tif")
    with pytest.raises(ValueError, match=r"light\.tif: float pixels, whose range is unknown; convert it"):
        read(tmp_path / "light.tif")
    with pytest.raises(ValueError, match=f"{tmp_path}: Is a directory"):
        read(tmp_path)


def test_bombs_and_odd_arrays():
    with pytest.raises(ValueError, match="more than the limit of 50 pixels"):
        file = io.BytesIO()
        Image.fromarray(noise(8, 8, 3)).save(file, "PNG")
        read(file.getvalue(), max_pixels=50)
    for odd in (np.zeros((8, 8, 3)), noise(8, 8, 5), noise(8)):
        with pytest.raises(ValueError, match="is no picture; give uint8"):
            read(odd)
    with pytest.raises(ValueError, match="5 channels"):
        read(noise(8, 8, 3), (5, 8, 8))


def test_names(tmp_path):
    for name in ("a.png", "b.png", "b.jpg", "deep/a.png"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(8, 8, 3)).save(path)
    folder = tmp_path / "folder"
    assert list(find_pictures([folder])) == ["a", "b.jpg", "b.png", "deep/a"]
    assert list(find_pictures([folder / "b.png", folder / "deep" / "a.png"])) == ["b", "a"]
    with pytest.raises(ValueError, match="have the same name"):
        find_pictures([folder / "a.png", folder / "deep" / "a.png"])
    with pytest.raises(ValueError, match=r"c\.png does not exist"):
        find_pictures([folder / "c.png"])

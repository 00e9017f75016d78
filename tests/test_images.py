"""uint8 <-> [-1, 1] against the recorded original, grids, PNGs that remember their request, animations."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.goldens import golden
from unnoise.images import (
    grid,
    is_whole_png,
    read_request,
    save_animation,
    save_png,
    to_images,
    to_pil,
    to_pixels,
)


@golden("adm_extras", only=lambda spec: "uint8" in spec["outputs"])
def test_to_pixels_is_the_originals_rule(case):
    x, expected = case.input("x"), case.output("uint8")
    assert torch.equal(to_pixels(x.reshape(1, 1, 1, -1)).reshape(x.shape), expected)


def test_to_pixels_moves_channels_last_and_clamps():
    images = torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0]).reshape(1, 5, 1, 1).expand(2, 5, 3, 4)
    pixels = to_pixels(images.to(torch.bfloat16).contiguous(memory_format=torch.channels_last))
    assert pixels.shape == (2, 3, 4, 5) and pixels.is_contiguous()
    assert pixels[1, 2, 3].tolist() == [0, 0, 127, 255, 255]


def test_round_trips():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    images = to_images(pixels)
    assert images.shape == (1, 1, 16, 16) and images.min() == -1 and images.max() == 1
    assert torch.equal(to_pixels(images, rule="edm"), pixels)
    # The published rule truncates: x * 127.5 of some levels lands just below them.
    lost = pixels.int() - to_pixels(images).int()
    assert set(lost.flatten().tolist()) == {0, 1}
    assert torch.equal(to_images(pixels.numpy()), images)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_becomes_a_picture(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, channels), dtype=np.uint8)
    picture = to_pil(pixels)
    if channels in (1, 3, 4):
        assert np.array_equal(np.asarray(picture).reshape(6, 5, channels), pixels)
    else:
        assert np.array_equal(np.asarray(picture), np.concatenate(np.moveaxis(pixels, -1, 0), axis=1))


def test_grid_enlarges_small_pictures_without_blur_and_keeps_their_order():
    pixels = np.zeros((5, 8, 8, 1), np.uint8)
    pixels[:, :] = (np.arange(5) * 50)[:, None, None, None]
    pixels[3, 0, 0] = 255
    sheet = grid(pixels, columns=3, cell=32)
    assert sheet.shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    for index in range(5):
        y, x = 2 + index // 3 * 34, 2 + index % 3 * 34
        cell = sheet[y : y + 32, x : x + 32, 0]
        expected = pixels[index, :, :, 0].repeat(4, 0).repeat(4, 1)
        assert np.array_equal(cell, expected)
    assert grid(torch.zeros(7, 200, 100, 3, dtype=torch.uint8)).shape == (3 * 202 + 2, 3 * 102 + 2, 3)


def test_grid_writes_heads_over_columns_of_one_class_and_captions_otherwise():
    pixels = np.full((4, 28, 28, 1), 128, np.uint8)
    heads = grid(pixels, columns=2, labels=["Ankle boot", "T-shirt/top"] * 2)
    captions = grid(pixels, columns=2, labels=["Ankle boot", "Bag", "Bag", "Ankle boot"])
    assert heads.shape[0] < captions.shape[0], "one line of names against two"
    assert (heads[:15] < 100).any(), "names are above"
    assert not (captions[:80] < 100).any() and (captions[80:100] < 100).any(), "names are below"
    both = grid(pixels, columns=2, labels=["Ankle boot", "Bag"] * 2, heads=["here", "there"])
    assert (both[:15] < 100).any() and (both[95:115] < 100).any(), "heads above, and names below all the same"
    # A name far wider than a picture is cut, not written over its neighbours.
    long = grid(pixels[:2], columns=2, labels=["x" * 300, "y"], cell=60)
    plain = grid(pixels[:2], columns=2, labels=["", "y"], cell=60)
    half = long.shape[1] // 2 + 2
    assert np.array_equal(long[:, half:], plain[:, half:])


def test_png_holds_its_request(tmp_path):
    path = tmp_path / "a.png"
    request = {"seed": 7, "first": 41, "labels": ["Größe 靴"], "guidance": 1.5}
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    save_png(path, torch.from_numpy(pixels), request, about={"model": "Modell ü"})
    assert read_request(path) == request
    with Image.open(path) as file:
        assert np.array_equal(np.asarray(file), pixels)
        assert file.text["seed"] == "7" and file.text["image"] == "41" and file.text["model"] == "Modell ü"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_read_request_refuses_other_files(tmp_path):
    foreign, text = tmp_path / "foreign.png", tmp_path / "text.png"
    Image.new("L", (4, 4)).save(foreign)
    text.write_text("no picture")
    with pytest.raises(ValueError, match="holds no request"):
        read_request(foreign)
    with pytest.raises(ValueError, match="not a PNG"):
        read_request(text)


def test_a_cut_png_is_seen(tmp_path):
    path = tmp_path / "a.png"
    save_png(path, np.zeros((30, 30, 3), np.uint8), {})
    assert is_whole_png(path)
    whole = path.read_bytes()
    for length in (0, 5, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not is_whole_png(path)
    assert not is_whole_png(tmp_path / "missing.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_png(path, np.zeros((4, 4, 1), np.uint8), {"seed": 1})

    def full(self, file, **options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_png(path, np.zeros((4, 4, 1), np.uint8), {"seed": 2})
    assert read_request(path) == {"seed": 1} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_animation(tmp_path, suffix, channels):
    ramp = np.linspace(0, 255, 16 * 16).astype(np.uint8).reshape(16, 16, 1)
    frames = [np.roll(ramp, 3 * k, 0).repeat(channels, -1) for k in range(5)]
    path = tmp_path / f"a{suffix}"
    save_animation(path, frames, seconds=0.5, hold=1.0)
    with Image.open(path) as file:
        assert file.n_frames == 5
        for k in range(5):
            file.seek(k)
            shown = np.asarray(file.convert("RGB")).astype(int)
            assert np.abs(shown - frames[k].astype(int)).max() <= (2 if suffix == ".gif" else 0)
        file.load()
        assert file.info["duration"] == 1000


def test_animation_refuses_other_endings(tmp_path):
    with pytest.raises(ValueError, match=r"\.gif, \.webp, \.png"):
        save_animation(tmp_path / "a.avi", [np.zeros((2, 2, 1), np.uint8)])


def test_what_cannot_be_written_is_named_as_people_named_it(tmp_path):
    with pytest.raises(OSError) as caught:
        save_png(tmp_path / "missing" / "a.png", np.zeros((2, 2, 1), np.uint8), {})
    assert caught.value.filename == str(tmp_path / "missing" / "a.png")

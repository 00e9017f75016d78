"""ADM's resize and crop, against the recorded pictures and against itself by other routes."""

import random
import re

import numpy as np
import PIL
import pytest
from PIL import Image

from tests.goldens import Case, golden, manifest
from unnoise.data import crop


def _crops(spec: dict) -> bool:
    return any(name.startswith(("center_crop", "random_crop")) for name in spec.get("outputs", {}))


def _fraction(call: str, name: str, default: float) -> float:
    found = re.search(rf"{name}\s*=\s*([0-9.]+)", call)
    return float(found.group(1)) if found else default


@golden("adm_extras", only=_crops)
def test_crops_of_the_original(case: Case) -> None:
    (name,) = case.spec["inputs"]
    image = Image.fromarray(case.input(name).numpy())
    exact = manifest("adm_extras")["made_with"]["pillow"] == PIL.__version__
    call = case.spec.get("call", "")
    for name, recorded in case.outputs.items():
        size = recorded.shape[0]
        if name.startswith("random_crop"):
            seed = int((re.search(r"seed(\d+)", name) or re.search(r"random\.seed\((\d+)\)", call)).group(1))
            least, most = _fraction(call, "min_crop_frac", 0.8), _fraction(call, "max_crop_frac", 1.0)
            ours = crop.random_crop(image, size, random.Random(seed), least=least, most=most)
        else:
            assert name.startswith("center_crop"), name
            ours = crop.center_crop(image, size)
        ours = ours.reshape(recorded.shape)
        off = np.abs(ours.astype(int) - recorded.numpy().astype(int)).max()
        assert off <= (0 if exact else 1), f"{name}: off by {off} grey levels"


@pytest.mark.parametrize("sides", [(100, 140), (300, 200), (64, 64), (129, 257), (20, 31), (500, 90)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_stored_halvings_give_every_crop_to_the_bit(sides: tuple[int, int], mode: str) -> None:
    """A picture kept as random crops need it cuts to the same squares as the original picture."""
    noise = np.random.default_rng(1).integers(0, 256, (*sides, 4), np.uint8)
    image = Image.fromarray(noise).convert(mode)
    kept = crop.halve(image, crop.largest_shorter(32))
    assert np.array_equal(crop.center_crop(image, 32), crop.center_crop(kept, 32))
    for seed in range(40):
        ours = crop.random_crop(kept, 32, random.Random(seed))
        assert np.array_equal(ours, crop.random_crop(image, 32, random.Random(seed))), seed


@pytest.mark.parametrize("sides", [(1, 400), (20, 333), (64, 1000), (7, 7)])
def test_windows_of_long_pictures_are_the_same(
    sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The route that never makes the whole resized picture agrees with the one that does."""
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (*sides, 3), np.uint8))
    whole = [crop.random_crop(image, 16, random.Random(k)) for k in range(10)]
    monkeypatch.setattr(crop, "_WHOLE", 0)
    for k, expected in enumerate(whole):
        ours = crop.random_crop(image, 16, random.Random(k))
        assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1


def test_any_number_of_channels() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 30, 7), np.uint8)
    window = crop.center_window(30, 40, 16)
    square = crop.cut_pixels(pixels, window, 16)
    assert square.shape == (16, 16, 7)
    assert np.array_equal(square[..., 4], crop.cut_pixels(pixels[..., 4:5], window, 16)[..., 0])


def test_the_crop_is_from_the_middle() -> None:
    """A square of the right size in the middle of a wide picture comes out untouched."""
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:, 6:14] = 200
    assert (crop.center_crop(Image.fromarray(pixels), 8) == 200).all()

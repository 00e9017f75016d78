"""The TF-ported InceptionV3 against torch-fidelity's recorded taps, and its TF1 resize."""

import re
import zlib
from functools import cache

import numpy as np
import pytest
import torch

from tests.goldens import golden, manifest, state_dict_sha256
from unnoise.networks.inception import InceptionV3, published_shapes, resize_tf1

TAPS = {
    "features_64": "pool64",
    "features_192": "pool192",
    "features_768": "pool768",
    "features_2048": "pool",
    "logits_unbiased": "logits_unbiased",
    "logits": "logits",
    "spatial_first7": "spatial",
}


def recipe(key: str, shape: list[int], seed: int) -> torch.Tensor:
    """The recipe "keyed-normal-inception-v1" of inception.json."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    z = generator.standard_normal(tuple(shape), dtype=np.float32)
    f = np.float32
    if key.endswith(".bn.weight"):
        z = f(1) + f(0.1) * z
    elif key.endswith(".bn.running_var"):
        z = f(1) + f(0.1) * np.abs(z)
    elif key.endswith(".conv.weight"):
        z = z * f(np.sqrt(2 / np.prod(shape[1:])))
    elif key == "fc.weight":
        z = z * f(1 / np.sqrt(2048))
    else:
        z = f(0.1) * z
    return torch.from_numpy(z)


@cache
def recipe_state() -> dict[str, torch.Tensor]:
    spec = manifest("inception")
    return {key: recipe(key, shape, spec["seed"]) for key, shape in spec["state_dict_shapes"].items()}


@cache
def network() -> InceptionV3:
    return InceptionV3(recipe_state())


def test_weights_are_the_recorded_ones():
    floats = {k: v for k, v in recipe_state().items() if v.is_floating_point()}
    assert state_dict_sha256(floats) == manifest("inception")["state_dict_sha256"]


@golden("inception", only=lambda spec: "image_uint8" in spec["inputs"])
def test_every_tap(case):
    pixels = case.input("image_uint8")
    with torch.no_grad():
        taps = network()(pixels)
    for name, expected in case.outputs.items():
        if name.startswith("resized_"):
            assert (_slice_of(pixels, name, expected) - expected).abs().max() <= 1e-4, name
        else:
            error = (getattr(taps, TAPS[name]) - expected).abs().max()
            assert error <= 1e-4 * expected.abs().max(), name


def _slice_of(pixels: torch.Tensor, name: str, expected: torch.Tensor) -> torch.Tensor:
    """Part of the resized picture: `resized_299_every_7th`, `_last_rows`, `_last_cols`."""
    side, part = re.fullmatch(r"resized_(\d+)_(every_\d+(?:st|nd|rd|th)|last_rows|last_cols)", name).groups()
    resized = resize_tf1(pixels.float(), (int(side), int(side)))
    if part == "last_rows":
        return resized[:, :, -expected.shape[2] :]
    if part == "last_cols":
        return resized[..., -expected.shape[3] :]
    step = int(part.split("_")[1][:-2])
    return resized[:, :, ::step, ::step]


@golden("inception", only=lambda spec: "x" in spec["inputs"])
def test_resize(case):
    x = case.input("x")
    for name, expected in case.outputs.items():
        size = tuple(expected.shape[2:])
        ours = resize_tf1(x, size, align_corners=name == "align_true")
        assert (ours - expected).abs().max() <= 1e-4 * max(1, expected.abs().max()), name


def test_shape_list_is_the_published_one():
    spec = {
        k: tuple(s) for k, s in manifest("inception")["state_dict_shapes"].items() if "num_batches" not in k
    }
    assert published_shapes() == spec


def test_other_networks_are_refused():
    state = dict(recipe_state())
    state["fc.weight"] = torch.zeros(1000, 2048)
    with pytest.raises(ValueError, match=r"fc.weight .*\(1000, 2048\)"):
        InceptionV3(state)


def test_a_picture_does_not_depend_on_its_batch():
    pixels = torch.randint(
        0, 256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        together, alone = network()(pixels).pool, network()(pixels[1:2]).pool
    assert torch.allclose(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_the_fused_kernel_changes_nothing(monkeypatch):
    pixels = torch.randint(
        0, 256, (2, 3, 50, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        fused = network()(pixels)
        monkeypatch.setattr("unnoise.networks.inception.FUSED", False)
        plain = network()(pixels)
    for tap in ("pool", "spatial", "logits"):
        a, b = getattr(fused, tap), getattr(plain, tap)
        assert (a - b).abs().max() <= 1e-5 * b.abs().max(), tap

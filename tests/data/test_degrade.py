"""Small pictures: filters against their definitions, wear that is a function of seed and place."""

import time

import numpy as np
import pytest
import torch

from unnoise.data import order
from unnoise.data.degrade import FILTERS, blurred, gaussians, grey, resized, worn


def smooth(count: int = 6, side: int = 32) -> torch.Tensor:
    """Pictures of waves, in [-1, 1]."""
    k = torch.arange(count * 3).view(count, 3, 1, 1)
    x = torch.linspace(0, 6, side)
    return torch.sin(x.view(1, 1, 1, side) + 0.7 * x.view(1, 1, side, 1) + k)


def test_filters() -> None:
    images = smooth()
    assert torch.allclose(
        resized(images, 16, "area"),
        images.unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5)),
        atol=1e-6,
    )
    for name in FILTERS:
        small = resized(images, 8, name)
        assert small.shape == (6, 3, 8, 8) and small.abs().max() <= 1
        assert torch.allclose(resized(torch.full((1, 1, 32, 32), 0.3), 8, name), torch.tensor(0.3), atol=1e-6)
    with pytest.raises(ValueError, match="filter='lanczos' is unknown; use bicubic"):
        resized(images, 8, "lanczos")


def test_blurs_have_the_deviations_that_were_asked_for() -> None:
    kernels = gaussians(np.array([2.0, 1.5]), np.array([1.0, 1.5]), np.array([0.5, 0.0]))
    reach = np.arange(15) - 7.0
    cos, sin = np.cos(0.5), np.sin(0.5)
    u = cos * reach[None, :] + sin * reach[:, None]
    v = -sin * reach[None, :] + cos * reach[:, None]
    assert np.allclose(kernels.sum((1, 2)), 1)
    assert (kernels[0] * u**2).sum() == pytest.approx(4, rel=0.02)
    assert (kernels[0] * v**2).sum() == pytest.approx(1, rel=0.02)
    point = torch.zeros(2, 3, 31, 31)
    point[:, :, 15, 15] = 1
    spread = blurred(point, kernels)
    assert np.allclose(spread[:, 1, 8:23, 8:23].numpy(), kernels[:, ::-1, ::-1], atol=1e-6)


def test_each_picture_is_worn_by_its_place_alone() -> None:
    images, places = smooth(40), np.arange(40) + 1000
    small = worn(images, 16, seed=3, places=places)
    assert small.shape == (40, 3, 16, 16) and small.abs().max() <= 1
    for k in (0, 17, 39):
        alone = worn(images[k : k + 1], 16, seed=3, places=places[k : k + 1])
        # JPEG may tip by a level where convolutions of another batch round otherwise
        assert ((alone[0] - small[k]).abs() <= 2.5 / 127.5).float().mean() > 0.99
    assert torch.equal(worn(images, 16, seed=3, places=places), small)
    assert not torch.equal(worn(images, 16, seed=4, places=places), small)
    same = worn(images[:1].expand(40, -1, -1, -1), 16, seed=3, places=places)
    assert len(np.unique(same.flatten(1).numpy(), axis=0)) == 40, "every place wears in its own way"


def test_wear_costs_more_than_a_filter_and_leaves_the_picture() -> None:
    images = smooth(64)
    clean = resized(images, 16, "area")
    small = worn(images, 16, seed=0, places=np.arange(64))
    error = ((small - clean) ** 2).mean((1, 2, 3)).sqrt()
    assert 0.02 < error.median() < 0.3
    kept = torch.corrcoef(torch.stack([small.flatten(), clean.flatten()]))[0, 1]
    assert kept > 0.9


def test_grey_pictures_and_luma() -> None:
    images = smooth(4)
    assert worn(images[:, :1], 16, seed=0, places=np.arange(4)).shape == (4, 1, 16, 16)
    assert torch.allclose(grey(images[:, :1].expand(-1, 3, -1, -1)), images[:, :1], atol=1e-6)
    assert torch.allclose(grey(torch.tensor([[[[1.0]], [[-1.0]], [[-1.0]]]])), torch.tensor(2 * 0.299 - 1))


def test_it_keeps_up_with_training() -> None:
    images, places = smooth(64, 64), np.arange(64)
    worn(images, 16, seed=0, places=places)
    start = time.perf_counter()
    worn(images, 16, seed=0, places=places)
    assert time.perf_counter() - start < 2.0, "64 pictures"


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="4 channels cannot be written as JPEG"):
        worn(torch.zeros(1, 4, 8, 8), 4, seed=0, places=np.arange(1))
    with pytest.raises(ValueError, match="side=16 is no smaller than pictures of 8; use 1..8"):
        worn(torch.zeros(1, 3, 8, 8), 16, seed=0, places=np.arange(1))


def test_draws_have_their_distributions() -> None:
    places = np.arange(200)
    flat, bell = order.uniforms(0, "a", places, 101), order.normals(0, "a", places, 101)
    assert flat.shape == bell.shape == (200, 101) and 0 <= flat.min() and flat.max() < 1
    count = flat.size
    assert abs(flat.mean() - 0.5) < 4 * (1 / 12 / count) ** 0.5 and abs(flat.var() - 1 / 12) < 0.003
    assert abs(bell.mean()) < 4 / count**0.5 and abs(bell.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((bell**4).mean() - 3) < 4 * (96 / count) ** 0.5
    assert (order.uniforms(0, "a", places[5:6], 101) == flat[5:6]).all()

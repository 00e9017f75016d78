"""Changes of pictures: what the numbers say, gradients, and nothing of one picture in another."""

import pytest
import torch

from unnoise.train.augment import KINDS, NUMBERS, augmented

STILL = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0])
"""No brighter, as saturated, as much contrast, not moved."""


def images(channels: int = 3, side: int = 16) -> torch.Tensor:
    return torch.rand(4, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def numbers(*rows: int) -> torch.Tensor:
    found = torch.rand(4, NUMBERS, generator=torch.Generator().manual_seed(1))
    return found[list(rows)] if rows else found


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_changes_by_its_own_numbers(kind):
    together = augmented(images(), numbers(), [kind])
    assert together.shape == (4, 3, 16, 16) and not torch.equal(together, images())
    alone = augmented(images()[2:3], numbers(2), [kind])
    assert torch.equal(together[2:3], alone)


def test_colours_stay_where_the_numbers_are_in_the_middle():
    assert torch.allclose(augmented(images(), STILL.expand(4, -1), ["color"]), images(), atol=1e-6)
    brighter = STILL.clone()
    brighter[0] = 0.9
    assert torch.allclose(
        augmented(images(), brighter.expand(4, -1), ["color"]) - images(), torch.tensor(0.4)
    )
    grey = STILL.clone()
    grey[1] = 0.0
    found = augmented(images(), grey.expand(4, -1), ["color"])
    assert torch.allclose(found[:, 0], found[:, 1], atol=1e-6)
    assert torch.allclose(found.mean(1), images().mean(1), atol=1e-6)


def test_pictures_move_by_whole_pixels_up_to_an_eighth():
    most = torch.tensor([0.5, 0.5, 0.5, 0.999, 0.0, 0.0, 0.0])
    moved = augmented(images(), most.expand(4, -1), ["translation"])
    assert torch.equal(moved[:, :, 2:, :-2], images()[:, :, :-2, 2:])
    assert not moved[:, :, :2].any() and not moved[..., -2:].any()
    assert torch.equal(augmented(images(), STILL.expand(4, -1), ["translation"]), images())


def test_a_square_of_half_the_sides_is_cut_out_somewhere():
    middle = STILL.clone()
    middle[5:] = 0.5
    found = augmented(images(), middle.expand(4, -1), ["cutout"])
    assert not found[:, :, 4:12, 4:12].any()
    found[:, :, 4:12, 4:12] = images()[:, :, 4:12, 4:12]
    assert torch.equal(found, images())
    corner = augmented(images(), STILL.expand(4, -1), ["cutout"])
    assert not corner[:, :, :4, :4].any() and torch.equal(corner[:, :, 4:], images()[:, :, 4:])


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_pass_through_all_of_them(channels):
    x = images(channels).requires_grad_(True)
    augmented(x, numbers(), list(KINDS)).square().sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).float().mean() > 0.4

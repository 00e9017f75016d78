"""The U-Net as an upsampler: a low-resolution picture is resampled and appended."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.networks.unets import Cond, randomised
from unnoise.networks.inputs import joined
from unnoise.networks.settings import UNetSettings

SETTINGS = UNetSettings(
    in_channels=5, out_channels=2, width=64, depth=1, channel_mult=(1, 2), attention=(2,), heads=1
)


@pytest.mark.parametrize("side", [4, 8, 6])
def test_the_low_resolution_picture_is_resampled_bilinearly_by_pixel_centres(side: int) -> None:
    network = randomised(SETTINGS)
    x, low, t = torch.randn(2, 2, 16, 16), torch.randn(2, 3, side, side), torch.tensor([1.0, 500.0])
    large = F.interpolate(low.double(), (16, 16), mode="bilinear", align_corners=False).float()
    with torch.no_grad():
        assert torch.allclose(network(x, t, Cond(concat=low)), network(x, t, Cond(concat=large)), atol=1e-5)


def test_pixel_centres_by_hand() -> None:
    """Twice the size puts the new pixels a quarter of the way from one old centre to the next."""
    network = randomised(SETTINGS)
    low = torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2)
    row = joined(network.settings, torch.zeros(1, 2, 4, 4), low)[0, 2, 0]
    assert row.tolist() == [0.0, 0.25, 0.75, 1.0]


def test_a_network_without_room_for_it_refuses() -> None:
    with pytest.raises(ValueError, match="4 channels .concatenated ones included.*in_channels=5"):
        randomised(SETTINGS)(torch.zeros(1, 2, 8, 8), torch.zeros(1), Cond(concat=torch.zeros(1, 2, 4, 4)))


TOLD = replace(SETTINGS, concat_level=True)


def test_the_level_of_the_noise_is_told_and_costs_nothing_elsewhere() -> None:
    network = randomised(TOLD)
    x, low, t = torch.randn(2, 2, 16, 16), torch.randn(2, 3, 8, 8), torch.tensor([1.0, 500.0])
    with torch.no_grad():
        answers = [
            network(x, t, Cond(concat=low, level=torch.full((2,), level))) for level in (0.0, 0.01, 0.9)
        ]
    assert (answers[0] - answers[1]).abs().max() > 1e-3
    assert (answers[0] - answers[2]).abs().mean() > 0.05
    extra = set(network.state_dict()) - set(randomised(SETTINGS).state_dict())
    assert extra == {f"level_embed.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}


def test_a_level_goes_with_a_network_that_is_told_one() -> None:
    x, low, t = torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 4), torch.zeros(1)
    with pytest.raises(ValueError, match="give cond.level"):
        randomised(TOLD)(x, t, Cond(concat=low))
    with pytest.raises(ValueError, match="leave cond.level out"):
        randomised(SETTINGS)(x, t, Cond(concat=low, level=torch.zeros(1)))

"""The plain classifier's network: one answer a picture, whatever stands beside it."""

import pytest
import torch

from unnoise.networks.classifier import Classifier, StandardConv
from unnoise.networks.settings import ClassifierSettings


def network(**changes) -> Classifier:
    torch.manual_seed(0)
    made = Classifier(ClassifierSettings(**{"widths": (8, 12), "features": 10, "classes": 5} | changes))
    for name, parameter in made.named_parameters():
        if "gain" in name or "head" in name:  # as if trained: nothing is at its silent start
            torch.nn.init.normal_(parameter, 0.8, 0.2)
    return made.eval().requires_grad_(False)


def pictures(count=4, channels=3, side=16):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_taps_have_the_shapes_that_they_say():
    taps = network().taps(pictures())
    assert taps.logits.shape == (4, 5) and taps.pool.shape == (4, 10) and taps.spatial.shape == (4, 8 * 49)
    assert all(t.dtype == torch.float32 for t in (taps.logits, taps.pool, taps.spatial))
    assert torch.equal(network()(pictures()), taps.logits)


def test_a_grey_picture_is_rgb_of_equal_channels():
    grey = pictures(channels=1)
    torch.testing.assert_close(network()(grey), network()(grey.expand(-1, 3, -1, -1)))


def test_an_answer_depends_on_its_picture_alone():
    made, x = network().train(), pictures(6)
    torch.testing.assert_close(made(x)[2:3], made(x[2:3]))


def test_a_picture_in_another_place_or_mirrored_differs_and_colour_is_seen():
    made, x = network(), pictures()
    assert not torch.allclose(made(x), made(x.flip(3)), atol=1e-3)
    assert not torch.allclose(made(x), made(x[:, [2, 1, 0]]), atol=1e-3)


@pytest.mark.parametrize("side", [8, 15, 28, 33, 64])
def test_any_side_from_eight_pixels(side):
    taps = network(widths=(8, 12, 12)).taps(pictures(2, side=side))
    assert taps.spatial.shape == (2, 392) and torch.isfinite(taps.logits).all()


@pytest.mark.parametrize(("shape", "expected"), [((1, 2, 16, 16), "2 channels"), ((1, 3, 7, 16), "16x7")])
def test_pictures_that_it_cannot_see(shape, expected):
    with pytest.raises(ValueError, match=expected):
        network()(torch.zeros(shape))


@pytest.mark.parametrize(
    "changes", [{"classes": None}, {"widths": ()}, {"widths": (8, 0)}, {"depth": -1}, {"features": 0}]
)
def test_settings_that_make_no_network(changes):
    with pytest.raises(ValueError, match=r"classifier\.network"):
        network(**changes)


def test_standardised_weights_keep_the_variance_and_ignore_scale_and_offset():
    torch.manual_seed(0)
    conv = StandardConv(32, 64, 3)
    x = torch.randn(8, 32, 24, 24)
    inner = conv(x)[:, :, 1:-1, 1:-1]
    assert abs(inner.var().item() - 1) < 0.05
    with torch.no_grad():
        expected = conv(x)
        conv.weight.mul_(3).add_(2)
        torch.testing.assert_close(conv(x), expected, atol=1e-3, rtol=1e-3)


def test_signals_neither_vanish_nor_explode_with_depth():
    """Unit variance in: the last activations before pooling stay of the order of one."""
    torch.manual_seed(0)
    made = Classifier(ClassifierSettings(widths=(16, 16, 16, 16), depth=3, features=64, classes=2))
    pool = made.taps(torch.randn(32, 3, 64, 64)).pool
    assert 0.2 < pool.mean().item() < 3


def test_bfloat16_is_near():
    made, x = network(), pictures(16, side=28)
    exact = made(x)
    made.compute_dtype = torch.bfloat16
    assert made(x).dtype == torch.float32
    assert (made(x) - exact).abs().max() < 0.05 * exact.abs().max()

import dataclasses

import pytest
import torch

from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.networks.settings import EncoderUNetSettings, UNetSettings
from unnoise.networks.unet import UNet

PLAIN = UNetSettings(
    in_channels=2, out_channels=3, width=32, depth=1, channel_mult=(1, 2), attention=(4,), heads=2
)


def test_patches_make_each_level_smaller_and_the_picture_comes_back():
    torch.manual_seed(0)
    network = UNet(dataclasses.replace(PLAIN, patch=2))
    assert network.size_factor == 4
    assert network.input_blocks[0][0].weight.shape[1] == 2 * 4
    assert network.out[2].weight.shape[0] == 3 * 4
    seen = []
    network.middle_block[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    torch.nn.init.normal_(network.out[2].weight)
    x = torch.randn(1, 2, 8, 12)
    answer = network(x, torch.zeros(1))
    assert answer.shape == (1, 3, 8, 12)
    assert seen == [torch.Size([1, 64, 2, 3])]


def test_attention_is_at_the_pictures_factor():
    places = [name for name, _ in UNet(dataclasses.replace(PLAIN, patch=2)).named_modules() if "qkv" in name]
    assert "input_blocks.3.1.qkv" in places  # the second level, a quarter of the picture's side
    assert "input_blocks.1.1.qkv" not in places


def test_sides_must_hold_whole_patches():
    with pytest.raises(ValueError, match="no multiple of 4"):
        UNet(dataclasses.replace(PLAIN, patch=2))(torch.zeros(1, 2, 10, 8), torch.zeros(1))


def test_an_encoder_of_patches_is_one_of_their_pixels_side_by_side():
    settings = EncoderUNetSettings(
        image_size=8,
        in_channels=2,
        classes=3,
        width=16,
        depth=1,
        channel_mult=(1, 2),
        attention=(4,),
        head_channels=16,
        patch=2,
    )
    assert settings.size_factor == 4
    network = EncoderUNet(settings)
    wide = EncoderUNet(dataclasses.replace(settings, image_size=4, in_channels=8, attention=(2,), patch=1))
    wide.load_state_dict(network.state_dict())
    x, t = torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0])
    assert torch.equal(network(x, t), wide(torch.nn.functional.pixel_unshuffle(x, 2), t))
    with pytest.raises(ValueError, match="no multiple of 4"):
        network(torch.zeros(1, 2, 10, 10), t[:1])

"""The DDPM U-Net: recorded blocks, closed forms, what it must depend on; diffusers' where it is installed."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.goldens import Case, assert_close, golden
from tests.networks.unets import Cond, randomised
from unnoise.networks.embeddings import ddpm_timestep_embedding
from unnoise.networks.settings import DdpmUNetSettings
from unnoise.networks.unet_ddpm import AttnBlock, DdpmUNet, Downsample, ResBlock, Upsample

SMALL = DdpmUNetSettings(
    in_channels=3, out_channels=3, width=64, depth=1, channel_mult=(1, 2), attention=(2,), classes=5
)


def block_of(case: Case) -> nn.Module:
    args = case.spec["constructor_args"]
    channels = args["in_channels"]
    if case.id == "ae_resnet_block":
        return ResBlock(channels, args["out_channels"], emb=args["temb_channels"] or None)
    kinds = {"ae_attn_block": AttnBlock, "ae_downsample": Downsample, "ae_upsample": Upsample}
    return kinds[case.id](channels)


def is_block(spec: dict[str, Any]) -> bool:
    return spec["id"].startswith("ae_")


@golden("ldm_extras", only=is_block)
def test_blocks(case: Case) -> None:
    """The autoencoder of latent diffusion is made of DDPM's blocks; small inputs expose the 1e-6 of norms."""
    block = block_of(case)
    block.load_state_dict(case.state_dict(), strict=True)
    for name in case.outputs:
        given = name.replace("output", "x")
        with torch.no_grad():
            assert_close(block(case.input(given)), case.output(name), 1e-5, name)


def test_embedding_is_sine_first_and_ends_at_the_longest_period() -> None:
    t = torch.tensor([0.0, 1.0, 37.0, 999.0])
    found = ddpm_timestep_embedding(t, 6)
    angles = t[:, None] * torch.tensor([1.0, 10_000**-0.5, 1e-4])
    assert torch.allclose(found, torch.cat([angles.sin(), angles.cos()], 1), atol=1e-5)
    assert torch.equal(ddpm_timestep_embedding(t, 7), torch.cat([found, torch.zeros(4, 1)], 1))
    assert ddpm_timestep_embedding(torch.tensor([2.5]), 4)[0, 0].item() == pytest.approx(math.sin(2.5))


def test_downsampling_pads_below_and_right_alone() -> None:
    down = Downsample(1)
    nn.init.zeros_(down.conv.weight)
    nn.init.zeros_(down.conv.bias)
    down.conv.weight.data[0, 0] = torch.arange(1.0, 10.0).view(3, 3)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = x[0, 0, 3, 3] = 1
    # The first pixel meets the kernel's first weight, the last one its middle: none is padded before.
    assert down(x)[0, 0].tolist() == [[1.0, 0.0], [0.0, 5.0]]


def test_it_starts_as_zero_and_depends_on_all_that_it_is_told() -> None:
    torch.manual_seed(0)
    x, t, label = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 3.0]), torch.tensor([1, 1])
    assert DdpmUNet(SMALL)(x, t, Cond(label)).abs().max() == 0
    network = randomised(SMALL).eval()
    with torch.no_grad():
        first = network(x, t, Cond(label))
        for other in (
            network(x, t + 500, Cond(label)),
            network(x, t, Cond(label + 1)),
            network(x.flip(3), t, Cond(label)).flip(3),
        ):
            assert (other - first).abs().max() > 1e-3
        assert torch.allclose(network(x[1:], t[1:], Cond(label[1:])), first[1:], atol=1e-5)


def test_recomputing_gives_the_same_gradients() -> None:
    x, cond = torch.randn(1, 3, 8, 8), Cond(torch.tensor([0]))
    found = []
    for checkpoint in (False, True):
        network = randomised(dataclasses.replace(SMALL, checkpoint=checkpoint))
        network(x, torch.tensor([9.0]), cond).square().mean().backward()
        found.append([p.grad for p in network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def test_activations_may_be_bfloat16() -> None:
    network, x, cond = randomised(SMALL).eval(), torch.randn(1, 3, 8, 8), Cond(torch.tensor([0]))
    with torch.no_grad():
        exact = network(x, torch.tensor([9.0]), cond)
        network.compute_dtype = torch.bfloat16
        rough = network(x, torch.tensor([9.0]), cond)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 2}, "width=2 must be at least 4"),
        ({"classes": -1}, "classes=-1 must be at least 1"),
        ({"dropout": 1.5}, "dropout=1.5 is no share"),
        ({"in_channels": None}, "in_channels=None must be at least 1"),
        ({"channel_mult": ()}, "must name at least one level"),
    ],
)
def test_settings_that_make_no_network_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DdpmUNet(dataclasses.replace(SMALL, **change))


def test_inputs_that_do_not_fit_are_refused() -> None:
    network = randomised(SMALL)
    given: list[tuple[Tensor, Cond, str]] = [
        (torch.zeros(1, 3, 8, 8), Cond(), "is told a class"),
        (torch.zeros(1, 4, 8, 8), Cond(torch.tensor([0])), "in_channels=3"),
        (torch.zeros(1, 3, 7, 8), Cond(torch.tensor([0])), "no multiple of 2"),
    ]
    for x, cond, message in given:
        with pytest.raises(ValueError, match=message):
            network(x, torch.zeros(1), cond)

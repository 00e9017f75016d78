"""Encoders beside a network: what they make of the parts of a condition, and in which order."""

from dataclasses import replace

import pytest
import torch

from unnoise.diffusion.condition import Condition
from unnoise.networks.conditioned import Conditioned
from unnoise.networks.conditioner_settings import (
    ClassEmbedderSettings,
    ConditionedSettings,
    FeaturesSettings,
    PatchesSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.networks.settings import UNetSettings

TEXT = TextEncoderSettings(width=8, depth=1, vocabulary=11, length=6, heads=2, head_channels=4)
CLASS = ClassEmbedderSettings(width=8, classes=5)
PATCHES = PatchesSettings(width=8, in_channels=2, side=2)
FEATURES = FeaturesSettings(width=8, features=7)
MAP = SpatialRescalerSettings(in_channels=2, out_channels=None, stages=0)
UNET = UNetSettings(
    in_channels=4, out_channels=2, width=32, depth=1, channel_mult=(1,), attention=(1,), heads=2,
    transformer_depth=1, context_width=8,
)  # fmt: skip
SIZE = torch.Size((4, 4))


def network(*encoders, unet: UNetSettings = UNET) -> Conditioned:
    torch.manual_seed(0)
    built = Conditioned(ConditionedSettings(network=unet, encoders=encoders))
    for value in built.parameters():
        if not value.any():
            torch.nn.init.normal_(value, std=0.1)
    return built.eval()


ALL = (("text", TEXT), ("class", CLASS), ("map", PATCHES), ("style", FEATURES), ("map", MAP))


def told(batch: int = 3) -> Condition:
    torch.manual_seed(1)
    return Condition(
        label=torch.arange(batch),
        parts={
            "text": torch.randint(0, 11, (batch, 6)),
            "text_mask": torch.arange(6) < torch.tensor([6, 3, 1])[:batch, None],
            "map": torch.randn(batch, 2, 8, 8),
            "style": torch.randn(batch, 2, 7),
        },
    )


def test_tokens_and_maps_stand_in_the_order_of_the_settings():
    built, cond = network(*ALL), told()
    found = built.encode(cond, SIZE)
    text, label, patches, style, _ = built.encoders
    expected = [
        text(cond.parts["text"], cond.parts["text_mask"]),
        label(cond.label), patches(cond.parts["map"]), style(cond.parts["style"]),
    ]  # fmt: skip
    assert torch.equal(found.context, torch.cat(expected, 1)) and found.context.shape == (3, 6 + 1 + 4 + 2, 8)
    assert torch.equal(found.context_mask[:, :6], cond.parts["text_mask"]) and found.context_mask[:, 6:].all()
    assert torch.equal(found.concat, cond.parts["map"][:, :, ::2, ::2])  # nearest neighbours of x's size
    assert found.label is cond.label and found.parts is cond.parts


def test_encoding_once_is_encoding_at_every_step():
    built, cond = network(*ALL), told()
    x, t = torch.randn(3, 2, 4, 4), torch.tensor([1.0, 5.0, 9.0])
    once = built.encode(cond, SIZE)
    assert built.encode(once, SIZE) is once
    with torch.no_grad():
        assert torch.equal(built(x, t, once), built(x, t, cond))


@pytest.mark.parametrize("name", ["label", "text", "map", "style"])
def test_every_part_reaches_the_result_and_every_weight_a_gradient(name):
    built, cond = network(*ALL), told()
    x, t = torch.randn(3, 2, 4, 4), torch.tensor([1.0, 5.0, 9.0])
    before = built(x, t, cond)
    before.square().mean().backward()
    still = [key for key, value in built.named_parameters() if value.requires_grad and value.grad is None]
    assert not still
    if name == "label":
        changed = replace(cond, label=cond.label + 1)
    else:
        part = cond.parts[name]
        other = (part + 1) % 11 if part.dtype == torch.int64 else part + 1
        changed = replace(cond, parts={**cond.parts, name: other})
    assert (built(x, t, changed) - before).abs().amax((1, 2, 3)).gt(1e-4).all()


def test_a_network_with_classes_of_its_own_keeps_the_label():
    built = network(("text", TEXT), unet=replace(UNET, classes=5, in_channels=2))
    found = built.encode(told(), SIZE)
    assert found.label.tolist() == [0, 1, 2] and not built.told_label


def test_what_is_missing_or_does_not_fit_is_refused():
    built, cond = network(*ALL), told()
    with pytest.raises(ValueError, match="is told style"):
        built.encode(replace(cond, parts={k: v for k, v in cond.parts.items() if k != "style"}), SIZE)
    with pytest.raises(ValueError, match="width=16 and the network reads context_width=8"):
        network(("text", replace(TEXT, width=16)))
    with pytest.raises(ValueError, match="side=0"):
        network(("map", replace(PATCHES, side=0)))


def test_its_type_is_that_of_all_its_parts():
    built = network(*ALL)
    built.compute_dtype = torch.bfloat16
    assert (
        built.compute_dtype
        == built.network.compute_dtype
        == built.encoders[0].compute_dtype
        == torch.bfloat16
    )
    x, t = torch.randn(3, 2, 4, 4), torch.tensor([1.0, 5.0, 9.0])
    low = built(x, t, told())
    built.compute_dtype = None
    exact = built(x, t, told())
    assert low.dtype == torch.float32 and 0 < (low - exact).abs().max() < 0.05 * exact.abs().max() + 0.02

"""Every axis of the U-Net, what it refuses, and that its fast paths are the plain one."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.networks.unets import SMALL, Cond, randomised
from unnoise.networks import norm as norms
from unnoise.networks import unet as unets
from unnoise.networks.attention import SelfAttention, attend, split_heads
from unnoise.networks.embeddings import timestep_embedding
from unnoise.networks.layers import Conv2d
from unnoise.networks.precision import to_half_torso
from unnoise.networks.unet import UNet

T = torch.tensor([3.0, 999.0])


def with_(**changes):
    return dataclasses.replace(SMALL, **changes)


def pictures(channels=3, height=16, width=16, batch=2):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def outputs_and_gradients(network, x, t=T, cond=None):
    y = network(x, t, cond)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    network.zero_grad()
    (y.float() * probe).mean().backward()
    return y.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


def assert_same(one, other, tolerance=1e-5):
    (y, grads), (y2, grads2) = one, other
    assert (y - y2).abs().max() <= tolerance * max(1, y2.abs().max())
    largest = max(g.abs().max() for g in grads2.values())
    for name in grads:
        error, size = (grads[name] - grads2[name]).abs().max(), grads2[name].abs().max()
        assert error <= 10 * tolerance * size + 1e-6 * largest, name


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 32},
        {"depth": 2},
        {"channel_mult": (0.5, 1, 2)},
        {"channel_mult": (1, 1.5)},
        {"heads": 1},
        {"head_channels": 16},
        {"heads_up": 8},
        {"attention_order": "new"},
        {"attention": ()},
        {"attention": (1, 2)},
        {"updown_blocks": True},
        {"conv_resample": False},
        {"adagn": False},
        {"rescale_residual": True},
    ],
    ids=str,
)
def test_every_axis_changes_the_network(changes):
    plain, changed = randomised(SMALL), randomised(with_(**changes))
    plain_shapes, shapes = ({k: v.shape for k, v in n.state_dict().items()} for n in (plain, changed))
    y = changed(pictures(), T)
    assert y.shape == (2, 6, 16, 16) and torch.isfinite(y).all()
    if shapes == plain_shapes:
        changed.load_state_dict(plain.state_dict())
        assert (changed(pictures(), T) - plain(pictures(), T)).abs().max() > 1e-3
    assert (changed(pictures(), T)[0] - changed(pictures(), T.flip(0))[0]).abs().max() > 1e-3, "blind to t"


@pytest.mark.parametrize("width", [16, 24, 48, 50, 80])
def test_widths_that_32_groups_do_not_divide(width):
    network = randomised(with_(width=width, heads=1, adagn=False))
    y = network(pictures(), T)
    assert torch.isfinite(y).all()
    assert (y[0] - network(pictures(), T.flip(0))[0]).abs().max() > 1e-3, "blind to t"


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_channels(channels):
    network = randomised(with_(in_channels=channels, out_channels=channels))
    assert network(pictures(channels), T).shape == (2, channels, 16, 16)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (2, 2), (30, 14)])
def test_any_size_that_divides(height, width):
    network = randomised(SMALL)
    assert network(pictures(height=height, width=width), T).shape == (2, 6, height, width)


def test_other_sizes_are_refused_with_those_that_fit():
    network = UNet(with_(channel_mult=(1, 1, 2)))
    assert network.size_factor == 4
    with pytest.raises(ValueError, match="30 pixels is no multiple of 4.*28 or 32"):
        network(pictures(height=32, width=30), T)
    with pytest.raises(ValueError, match="use 4"):
        network(pictures(height=3, width=4), T)


def test_wrong_channels_and_labels_are_refused():
    with pytest.raises(ValueError, match="4 channels .* in_channels=3"):
        UNet(SMALL)(pictures(4), T)
    with pytest.raises(ValueError, match="no classes"):
        UNet(SMALL)(pictures(), T, Cond(label=torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="give cond.label"):
        UNet(with_(classes=3))(pictures(), T, Cond())
    with pytest.raises(ValueError, match="does not divide the 128 channels"):
        UNet(with_(heads=3))
    for changes, said in (
        ({"depth": 0}, "depth=0"),
        ({"classes": -1}, "classes=-1"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"head_channels": -1}, "head_channels=-1"),
        ({"heads_up": 0}, "heads_up=0"),
    ):
        with pytest.raises(ValueError, match=said):
            UNet(with_(**changes))
    with pytest.raises(ValueError, match="channel_mult"):
        UNet(with_(channel_mult=()))


def test_concat_is_appended_to_the_channels():
    network = randomised(with_(in_channels=5))
    x, more = pictures(), pictures(2)
    assert torch.equal(network(x, T, Cond(concat=more)), network(torch.cat([x, more], 1), T))


def test_labels_steer():
    network = randomised(with_(classes=3))
    a, b = (network(pictures(), T, Cond(label=torch.tensor([0, k]))) for k in (1, 2))
    assert torch.equal(a[0], b[0]) and (a[1] - b[1]).abs().max() > 1e-3


def test_a_new_network_answers_zero():
    assert not UNet(with_(classes=2))(pictures(), T, Cond(label=torch.tensor([0, 1]))).any()


def test_strict_loading_refuses_another_shape():
    with pytest.raises(RuntimeError):
        UNet(SMALL).load_state_dict(UNet(with_(depth=2)).state_dict())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(dropout):
    settings = with_(dropout=dropout, attention=(1, 2))
    plain, saving = randomised(settings), randomised(dataclasses.replace(settings, checkpoint=True))
    results = []
    for network in (plain, saving):
        torch.manual_seed(5)
        results.append(outputs_and_gradients(network.train(), pictures()))
    assert_same(*results, tolerance=1e-6)


def test_dropout_is_live_in_training_only():
    network = randomised(with_(dropout=0.5))
    assert torch.equal(network.eval()(pictures(), T), network(pictures(), T))
    network.train()
    assert not torch.equal(network(pictures(), T), network(pictures(), T))


def test_builds_on_the_meta_device():
    with torch.device("meta"):
        network = UNet(with_(width=192, classes=1000))
    assert all(p.is_meta for p in network.parameters())
    y = network(
        torch.empty(2, 3, 16, 16, device="meta"),
        T.to("meta"),
        Cond(label=torch.empty(2, dtype=torch.int64, device="meta")),
    )
    assert y.shape == (2, 6, 16, 16)


@pytest.mark.parametrize("updown", [False, True])
@pytest.mark.parametrize("order", ["legacy", "new"])
def test_fast_layout_and_kernel_equal_the_plain_operators(monkeypatch, updown, order):
    network = randomised(with_(updown_blocks=updown, attention_order=order, attention=(1, 2)))
    fast = outputs_and_gradients(network, pictures())
    monkeypatch.setattr(unets, "best_layout", lambda x: torch.contiguous_format)
    monkeypatch.setattr(norms, "is_usable", lambda x: False)
    network.to(memory_format=torch.contiguous_format)
    assert_same(fast, outputs_and_gradients(network, pictures()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_activations_stay_bfloat16_and_answers_close(monkeypatch, layout):
    if layout == torch.contiguous_format:
        monkeypatch.setattr(unets, "best_layout", lambda x: layout)
    network = randomised(with_(attention=(1, 2), updown_blocks=True))
    exact = network(pictures(), T).detach()
    network.compute_dtype = torch.bfloat16
    seen = set()
    for blocks in (network.input_blocks, network.middle_block, network.output_blocks):
        for module in blocks.modules():
            if isinstance(module, Conv2d | SelfAttention | norms.GroupNorm):
                module.register_forward_hook(lambda m, inputs, output: seen.add(output.dtype))
    y, grads = outputs_and_gradients(network, pictures())
    assert seen == {torch.bfloat16}
    assert y.dtype == torch.float32 and all(g.dtype == torch.float32 for g in grads.values())
    assert (y - exact).std() < 0.02 * exact.std()


def test_bfloat16_gradients_point_where_float32_ones_do():
    network = randomised(with_(attention=(1, 2)))
    _, exact = outputs_and_gradients(network, pictures())
    network.compute_dtype = torch.bfloat16
    _, rounded = outputs_and_gradients(network, pictures())
    a, b = (torch.cat([g.flatten() for g in grads.values()]) for grads in (exact, rounded))
    assert torch.cosine_similarity(a, b, dim=0) > 0.999


def test_autocast_around_it_is_harmless():
    network = randomised(SMALL)
    exact = network(pictures(), T)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(pictures(), T)
    assert (y - exact).std() < 0.02 * exact.std()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_type_runs(dtype):
    network = randomised(SMALL)
    exact = network(pictures(), T)
    y = network.to(dtype)(pictures().to(dtype), T)
    assert y.dtype == dtype and (y - exact).std() < 0.03 * exact.std()


def test_half_torso_keeps_the_rest_in_float32():
    network = to_half_torso(randomised(SMALL), torch.bfloat16)
    assert network.input_blocks[0][0].weight.dtype == torch.bfloat16
    assert network.out[2].weight.dtype == network.time_embed[0].weight.dtype == torch.float32


def test_head_orders_agree_with_one_head_only():
    qkv = torch.randn(1, 5, 3 * 8)
    for one, other in zip(split_heads(qkv, 1, "legacy"), split_heads(qkv, 1, "new"), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(split_heads(qkv, 2, "legacy")[0], split_heads(qkv, 2, "new")[0])
    assert all(part.stride(-1) == 1 for part in split_heads(qkv, 2, "legacy"))


@pytest.mark.parametrize("positions", [4, 256, 300])
def test_attention_is_softmax_of_scaled_products(positions):
    q, k, v = torch.randn(3, 2, 4, positions, 16)
    truth = (q.double() @ k.double().mT / 4).softmax(-1) @ v.double()
    assert torch.allclose(attend(q, k, v).double(), truth, atol=1e-5)
    rounded = attend(*(z.bfloat16() for z in (q, k, v)))
    assert (rounded - truth).abs().max() < 0.03


def test_timestep_embedding_is_cosine_then_sine():
    t = torch.tensor([0.0, 1.0, 250.5])
    y = timestep_embedding(t, 7)
    assert y.shape == (3, 7) and y.dtype == torch.float32
    frequencies = 10_000.0 ** (-torch.arange(3, dtype=torch.float64) / 3)
    angles = t.double()[:, None] * frequencies
    assert torch.allclose(y[:, :3].double(), angles.cos(), atol=2e-5)
    assert torch.allclose(y[:, 3:6].double(), angles.sin(), atol=2e-5)
    assert not y[:, 6].any()
    assert torch.equal(
        timestep_embedding(torch.tensor([999]), 8), timestep_embedding(torch.tensor([999.0]), 8)
    )


def test_parameters_are_stored_for_fast_convolution():
    network = UNet(SMALL)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_compiled_by_torch_it_gives_the_same():
    network = randomised(with_(width=32, channel_mult=(1,), attention=(1,)))
    plain = outputs_and_gradients(network, pictures())
    compiled = torch.compile(network, dynamic=False)
    y = compiled(pictures(), T)
    assert (y - plain[0]).abs().max() < 1e-4

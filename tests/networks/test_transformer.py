"""The U-Net with transformer blocks: what it reads and refuses; its fast paths are the plain one."""

import dataclasses

import pytest
import torch

from tests.networks.test_unet import T, assert_same, outputs_and_gradients, pictures
from tests.networks.unets import SMALL, Cond, randomised
from unnoise.networks import norm as norms
from unnoise.networks import unet as unets
from unnoise.networks.attention import LinearAttention, attend
from unnoise.networks.code_unet import CodeUNet
from unnoise.networks.layers import Conv2d, LayerNorm, Linear
from unnoise.networks.unet import UNet

LATENT = dataclasses.replace(SMALL, adagn=False, transformer_depth=2, context_width=24, attention=(1, 2))


POOLED = dataclasses.replace(LATENT, pooled_context=True)
READING = pytest.mark.parametrize("settings", [LATENT, POOLED], ids=["attention", "pooled"])


def with_(**changes):
    return dataclasses.replace(LATENT, **changes)


def tokens(count=5, width=24, batch=2):
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(3))


@READING
def test_every_token_counts_and_each_picture_reads_its_own(settings):
    network, context = randomised(settings), tokens()
    plain = network(pictures(), T, Cond(context=context))
    for token in range(5):
        changed = context.clone()
        changed[1, token] += 1
        other = network(pictures(), T, Cond(context=changed))
        assert torch.equal(other[0], plain[0]) and (other[1] - plain[1]).abs().max() > 1e-4


@READING
def test_order_of_tokens_does_not_count(settings):
    network, context = randomised(settings), tokens()
    one, other = (network(pictures(), T, Cond(context=c)) for c in (context, context.flip(1)))
    assert torch.allclose(one, other, atol=1e-5)


def test_pooled_tokens_are_heard_where_no_attention_is():
    network = randomised(with_(pooled_context=True, attention=()))
    network.middle_block = torch.nn.ModuleList([network.middle_block[0], network.middle_block[2]])
    one, other = (network(pictures(), T, Cond(context=c)) for c in (tokens(), 2 + tokens().flip(0)))
    assert (one - other).abs().max() > 1e-3


@READING
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_tokens_are_as_if_they_were_not_there(settings, dtype):
    network, context = randomised(settings), tokens()
    network.compute_dtype = dtype
    mask = torch.tensor([[True, True, False, False, False]] * 2)
    short = network(pictures(), T, Cond(context=context[:, :2]))
    longer = context.clone()
    longer[:, 2:] = 50.0 * tokens()[:, :3]  # no constant, which a norm over the channels would not see
    masked = network(pictures(), T, Cond(context=longer, context_mask=mask))
    assert (short - masked).abs().max() <= (1e-5 if dtype == torch.float32 else 0.05) * short.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [16, 300])
def test_without_any_token_attention_reads_zeros_and_its_gradient_is_finite(dtype, positions):
    q = torch.randn(2, 3, positions, 8, dtype=dtype, requires_grad=True)
    k, v = torch.randn(2, 2, 3, 4, 8, dtype=dtype)
    mask = torch.tensor([[False] * 4, [True, False, True, True]])
    mixed = attend(q, k, v, mask)
    assert not mixed[0].any() and mixed[1].abs().sum() > 0
    mixed.sum().backward()
    assert torch.isfinite(q.grad).all() and not q.grad[0].any()
    kept = [0, 2, 3]
    alone = attend(q[1:], k[1:, :, kept], v[1:, :, kept])
    assert torch.allclose(mixed[1:].float(), alone.float(), atol=1e-6 if dtype == torch.float32 else 0.03)


def test_a_transformer_without_context_attends_to_the_picture_twice():
    network = randomised(with_(context_width=None))
    y = network(pictures(), T)
    assert y.shape == (2, 6, 16, 16)
    far = pictures()
    far[0, :, 0, 0] += 1
    assert (network(far, T)[0, :, -1, -1] - y[0, :, -1, -1]).abs().max() > 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"transformer_depth": 1},
        {"heads": 2},
        {"head_channels": 32},
        {"heads_up": 8},
        {"adagn": True, "updown_blocks": True},
        {"classes": 4, "in_channels": 5},
        {"patch": 2, "attention": (2, 4)},
    ],
    ids=str,
)
def test_every_axis_joins_with_it(changes):
    network, plain = randomised(with_(**changes)), randomised(LATENT)
    cond = Cond(context=tokens())
    if "classes" in changes:
        cond = Cond(context=tokens(), label=torch.tensor([0, 3]), concat=pictures(2))
    y = network(pictures(), T, cond)
    assert y.shape == (2, 6, 16, 16) and torch.isfinite(y).all()
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    if shapes == {k: v.shape for k, v in plain.state_dict().items()}:
        assert (y - plain(pictures(), T, cond)).abs().max() > 1e-3


def test_checkpointing_changes_no_gradient():
    results = []
    for checkpoint in (False, True):
        network = randomised(with_(checkpoint=checkpoint)).train()
        results.append(outputs_and_gradients(network, pictures(), cond=Cond(context=tokens())))
    assert_same(*results, tolerance=1e-6)


def test_fast_layout_and_kernel_equal_the_plain_operators(monkeypatch):
    network, cond = randomised(LATENT), Cond(context=tokens())
    fast = outputs_and_gradients(network, pictures(), cond=cond)
    monkeypatch.setattr(unets, "best_layout", lambda x: torch.contiguous_format)
    monkeypatch.setattr(norms, "is_usable", lambda x: False)
    network.to(memory_format=torch.contiguous_format)
    assert_same(fast, outputs_and_gradients(network, pictures(), cond=cond))


def test_bfloat16_activations_stay_bfloat16_and_answers_close():
    network, cond = randomised(LATENT), Cond(context=tokens())
    exact = network(pictures(), T, cond).detach()
    network.compute_dtype = torch.bfloat16
    seen = set()
    for block in (*network.input_blocks, network.middle_block, *network.output_blocks):
        for name, module in block.named_modules():
            if isinstance(module, Conv2d | Linear | LayerNorm) and "emb_layers" not in name:
                module.register_forward_hook(lambda m, inputs, output: seen.add(output.dtype))
    y, grads = outputs_and_gradients(network, pictures(), cond=cond)
    assert seen == {torch.bfloat16}
    assert y.dtype == torch.float32 and all(g.dtype == torch.float32 for g in grads.values())
    assert (y - exact).std() < 0.02 * exact.std()


def test_a_new_network_answers_zero_whatever_it_reads():
    assert not UNet(LATENT)(pictures(), T, Cond(context=tokens())).any()


def test_wrong_contexts_are_refused():
    network = randomised(LATENT)
    with pytest.raises(ValueError, match=r"reads a context; give cond.context, \(B, tokens, 24\)"):
        network(pictures(), T, Cond())
    with pytest.raises(ValueError, match="context_width=24"):
        network(pictures(), T, Cond(context=tokens(width=20)))
    with pytest.raises(ValueError, match=r"mask of \(2, 4\)"):
        network(pictures(), T, Cond(context=tokens(), context_mask=torch.ones(2, 4, dtype=torch.bool)))
    with pytest.raises(ValueError, match="reads no context"):
        randomised(SMALL)(pictures(), T, Cond(context=tokens()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transformer_depth": 0}, "nothing reads a context"),
        ({"transformer_depth": -1}, "transformer_depth=-1"),
        ({"context_width": 0}, "context_width=0"),
        ({"pooled_context": True, "context_width": None}, "no tokens to pool"),
        ({"rescale_residual": True}, "rescale_residual=True"),
        ({"attention_order": "new"}, "attention_order=new"),
        ({"heads": 65}, "heads=65 does not divide the 64 channels"),
        ({"head_channels": 24}, "head_channels=24 does not divide the 64 channels"),
    ],
)
def test_settings_that_make_no_transformer_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        UNet(with_(**changes))


def test_heads_may_leave_channels_over():
    """Three heads of 64 channels are of 21 each, as in latent diffusion."""
    block = UNet(with_(heads=3)).input_blocks[1][1].transformer_blocks[0]
    assert block.attn1.to_q.weight.shape == (63, 63) and block.attn1.heads == 3
    network = randomised(with_(heads=3))
    assert network(pictures(), T, Cond(context=tokens())).isfinite().all()


def test_linear_attention_is_its_formula():
    attention = LinearAttention(8, 2, 4)
    x = torch.randn(1, 8, 3, 5)
    q, k, v = (attention.to_qkv.weight[:, :, 0, 0] @ x.flatten(2)).view(3, 2, 4, 15)
    mixed = torch.stack([(k[h].softmax(-1) @ v[h].T).T @ q[h] for h in range(2)]).reshape(8, 15)
    truth = attention.to_out.weight[:, :, 0, 0] @ mixed + attention.to_out.bias[:, None]
    assert torch.allclose(attention(x).flatten(2)[0], truth, atol=1e-5)


def test_codes_are_of_single_positions():
    assert CodeUNet(SMALL, 7)(pictures(), T).shape == (2, 7, 16, 16)
    with pytest.raises(ValueError, match="patch=2"):
        CodeUNet(dataclasses.replace(SMALL, patch=2), 7)

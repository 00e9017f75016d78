"""The encoders of conditions against latent-diffusion's (group ldm_autoencoder), and what they refuse."""

import dataclasses
from typing import Any

import pytest
import torch

from tests.goldens import Case, assert_close, golden
from tests.networks.test_autoencoder_golden import is_conditioner
from unnoise.networks.conditioner_settings import (
    ClassEmbedderSettings,
    ConditionerSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.networks.conditioners import build_conditioner


def conditioner_settings_of(args: dict[str, Any]) -> ConditionerSettings:
    """Our names for the arguments of latent-diffusion's BERTEmbedder, ClassEmbedder and SpatialRescaler."""
    if "n_layer" in args:
        return TextEncoderSettings(
            width=args["n_embed"],
            depth=args["n_layer"],
            vocabulary=args.get("vocab_size", 30522),
            length=args.get("max_seq_len", 77),
        )
    if "n_classes" in args:
        return ClassEmbedderSettings(width=args["embed_dim"], classes=args["n_classes"])
    return SpatialRescalerSettings(
        in_channels=args["in_channels"],
        out_channels=args.get("out_channels"),
        stages=args["n_stages"],
        factor=args.get("multiplier", 0.5),
        method=args.get("method", "bilinear"),
        bias=args.get("bias", False),
    )


@golden("ldm_autoencoder", only=is_conditioner)
@torch.no_grad()
def test_encoders_are_the_originals(case: Case) -> None:
    network = build_conditioner(conditioner_settings_of(case.spec["constructor_args"])).eval()
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == case.spec["state_dict_shapes"]
    network.load_state_dict(case.state_dict(), strict=True)
    (given,) = (case.input(name) for name in case.spec["inputs"])
    encoded = network(given)
    read = {
        "embeddings": lambda: encoded,
        "embedding": lambda: encoded,
        "output": lambda: encoded,
        "logits": lambda: network.logits(given),
    }
    for name, recorded in case.outputs.items():
        assert_close(read[name](), recorded, 1e-5, name)


SMALL = TextEncoderSettings(width=32, depth=2, vocabulary=20, length=9, heads=2, head_channels=16)


def text_encoder(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build_conditioner(dataclasses.replace(SMALL, **changes))


def test_a_mask_hides_padding_and_without_one_padding_is_read() -> None:
    network, tokens = text_encoder(), torch.tensor([[3, 4, 5, 0, 0, 0]])
    mask = tokens > 0
    assert torch.allclose(network(tokens, mask)[:, :3], network(tokens[:, :3]), atol=1e-6)
    assert not torch.allclose(network(tokens)[:, :3], network(tokens[:, :3]), atol=1e-4)


def test_places_and_tokens_both_count() -> None:
    network = text_encoder()
    one, other = network(torch.tensor([[3, 4]])), network(torch.tensor([[4, 3]]))
    assert not torch.allclose(one, other.flip(1), atol=1e-4)


def test_checkpointing_changes_no_gradient_and_the_unread_layer_has_none() -> None:
    results = []
    for checkpoint in (False, True):
        network = text_encoder(checkpoint=checkpoint)
        (network(torch.tensor([[3, 4, 5]])) ** 3).sum().backward()
        named = dict(network.named_parameters())
        assert {name for name, p in named.items() if p.grad is None} == {
            "transformer.to_logits.weight",
            "transformer.to_logits.bias",
        }
        results.append({name: p.grad for name, p in named.items() if p.grad is not None})
    for name, gradient in results[0].items():
        assert gradient.any() and torch.allclose(gradient, results[1][name], atol=1e-6), name


def test_bfloat16_activations_answer_close_in_float32() -> None:
    network, tokens = text_encoder(), torch.tensor([[3, 4, 5]])
    exact = network(tokens)
    network.compute_dtype = torch.bfloat16
    rounded = network(tokens)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).std() < 0.02 * exact.std()


def test_what_fits_no_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens of \(1, 10\).*length=9"):
        text_encoder()(torch.zeros(1, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="depth=0"):
        text_encoder(depth=0)
    with pytest.raises(ValueError, match="vocabulary=None.*from the data"):
        text_encoder(vocabulary=None)
    with pytest.raises(ValueError, match="classes=None"):
        build_conditioner(ClassEmbedderSettings())
    with pytest.raises(ValueError, match="factor=0"):
        build_conditioner(SpatialRescalerSettings(in_channels=2, factor=0))
    with pytest.raises(ValueError, match="map of 3 channels.*in_channels=2"):
        build_conditioner(SpatialRescalerSettings(in_channels=2))(torch.zeros(1, 3, 8, 8))


def test_a_map_may_keep_its_channels() -> None:
    network = build_conditioner(SpatialRescalerSettings(in_channels=2, out_channels=None, stages=1))
    assert not list(network.parameters())
    x = torch.arange(32.0).view(1, 2, 4, 4)
    assert torch.allclose(network(x), torch.nn.functional.avg_pool2d(x, 2))

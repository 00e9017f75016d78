"""The noisy classifier against logits and gradients of guided-diffusion (group adm_classifier)."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.goldens import Case, assert_close, golden, manifest
from tests.networks.unets import encoder_settings_of
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import classifier_guide
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.networks.precision import to_half_torso
from unnoise.networks.settings import EncoderUNetSettings


def built(case: Case) -> EncoderUNet:
    network = EncoderUNet(encoder_settings_of(case.spec["constructor_args"])).eval()
    network.load_state_dict(case.state_dict(), strict=True)
    return network


def assert_gradient(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """1e-4 of the largest entry."""
    error, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert error <= 1e-4 * size, f"off by {error:.3g} of {size:.3g}"


def is_half(spec: dict[str, Any]) -> bool:
    return bool(spec["constructor_args"].get("use_fp16"))


@golden("adm_classifier")
def test_logits_and_gradient(case: Case) -> None:
    network = built(case)
    if is_half(case.spec):
        return check_float16_torso(case, network)
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == case.spec["state_dict_shapes"]
    x, t, label = case.input("x").requires_grad_(True), case.input("timesteps"), case.input("y")
    logits = network(x, t)
    log_p = logits.log_softmax(-1).gather(1, label[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    assert_close(logits.detach(), case.output("logits"), 1e-5, "logits")
    if "log_prob_y" in case.outputs:
        assert_close(log_p.detach(), case.output("log_prob_y"), 1e-5, "log p")
    if "grad" in case.outputs:
        assert_gradient(gradient, case.output("grad"))


def check_float16_torso(case: Case, network: EncoderUNet) -> None:
    """Half-precision convolutions: within their rounding of the logits."""
    with torch.no_grad():
        logits = to_half_torso(network)(case.input("x"), case.input("timesteps"))
    assert logits.dtype == torch.float32
    assert_close(logits, case.output("logits"), 2e-2, "logits")


def has_whole_times(spec: dict[str, Any]) -> bool:
    return spec["inputs"]["timesteps"]["dtype"].startswith("int")


@golden(
    "adm_classifier",
    only=lambda spec: not is_half(spec) and "grad" in spec["outputs"] and has_whole_times(spec),
)
def test_the_guide_is_the_recorded_gradient(case: Case) -> None:
    """Through the public guide, at each picture's own time (whole steps of a 1000-step process)."""
    schedule = NoiseSchedule.from_betas(make_betas("linear", 1000))
    t = case.input("timesteps")
    x, cond = case.input("x"), Condition(label=case.input("y"))
    guide = classifier_guide(built(case), 2.0)
    assert_gradient(guide(x, schedule.at(t.long(), x), cond), 2 * case.output("grad"))


def test_coverage() -> None:
    for spec in manifest("adm_classifier")["cases"]:
        assert spec["class_"] == "EncoderUNetModel", spec["class_"]


SMALL = EncoderUNetSettings(
    image_size=8, in_channels=3, classes=4, width=32, depth=1, channel_mult=(1, 2), attention=(2,),
    head_channels=32,
)  # fmt: skip


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial", "spatial_v2"])
def test_reduced_precision_is_near(pool: str) -> None:
    torch.manual_seed(0)
    network = EncoderUNet(replace(SMALL, pool=pool)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        expected = network(x, t)
        network.compute_dtype = torch.bfloat16
        logits = network(x, t)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= 0.05 * expected.abs().max()


def test_other_sizes_fit_every_pool_but_attention() -> None:
    x, t = torch.zeros(1, 3, 8, 12), torch.zeros(1)
    assert EncoderUNet(replace(SMALL, pool="adaptive"))(x, t).shape == (1, 4)
    with pytest.raises(ValueError, match="12x8; this classifier was built for 8x8"):
        EncoderUNet(SMALL)(x, t)
    with pytest.raises(ValueError, match="no multiple of 2"):
        EncoderUNet(replace(SMALL, pool="spatial"))(torch.zeros(1, 3, 8, 7), t)
    with pytest.raises(ValueError, match="1 channels; this classifier sees 3"):
        EncoderUNet(SMALL)(torch.zeros(1, 1, 8, 8), t)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "classes=None"),
        ({"head_channels": -1, "pool": "spatial"}, "head_channels=-1 makes no network"),
        ({"patch": 0}, "patch=0 makes no network"),
        ({"dropout": 1.0}, "dropout=1 is no share"),
        ({"head_channels": 48}, "head_channels=48 does not divide the 64"),
        ({"head_channels": None}, "head_channels=None"),
        ({"image_size": 9}, "9 pixels is no multiple of 2"),
        ({"channel_mult": ()}, "at least one level"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_settings_that_make_no_network_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderUNet(replace(SMALL, **change))

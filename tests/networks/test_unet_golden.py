"""The ADM U-Net against outputs and gradients of guided-diffusion (groups adm_unet and adm_extras)."""

from typing import Any

import pytest
import torch

from tests.goldens import Case, assert_close, golden, manifest
from tests.networks.unets import Cond, settings_of
from unnoise.networks.precision import to_half_torso
from unnoise.networks.unet import UNet


def built(case: Case) -> UNet:
    """The network of a case in eval mode, its weights loaded strictly."""
    network = UNet(
        settings_of(case.spec["constructor_args"], super_res="SuperRes" in case.spec["class_"])
    ).eval()
    network.load_state_dict(case.state_dict(), strict=True)
    return network


def condition(case: Case) -> Cond:
    """Label and low-resolution picture of a case; the network resamples the latter itself (trap 11)."""
    return Cond(*(case.input(name) if case.has_input(name) else None for name in ("y", "low_res")))


def is_half(spec: dict[str, Any]) -> bool:
    return bool(spec["constructor_args"].get("use_fp16"))


@golden("adm_unet", only=lambda spec: not is_half(spec))
def test_outputs_and_gradients(case: Case) -> None:
    network = built(case)
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == case.spec["state_dict_shapes"]
    x = case.input("x").requires_grad_("loss" in case.spec)
    output = network(x, case.input("timesteps"), condition(case))
    assert_close(output.detach(), case.output("output"), 1e-5, "output")
    if "loss" in case.spec:
        check_gradients(case, network, x, output)


def check_gradients(case: Case, network: UNet, x: torch.Tensor, output: torch.Tensor) -> None:
    """Gradients of mean(output * probe), 1e-4 of the largest entry; sizes of all the others by norm."""
    loss = (output * case.input("probe")).mean()
    loss.backward()
    assert_close(loss.detach(), case.output("loss"), 1e-5, "loss")
    grads = {name: p.grad for name, p in network.named_parameters()}
    recorded = {"x": (x.grad, case.output("grad_x"))} if "grad_x" in case.outputs else {}
    for name in case.outputs:
        if name.startswith("grad."):
            recorded[name] = (grads[name.removeprefix("grad.")], case.output(name))
    for name, (ours, theirs) in recorded.items():
        error, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        assert error <= 1e-4 * size, f"{name}: off by {error:.3g} of {size:.3g}"
    largest = max(case.spec["grad_l2"].values())
    for name, norm in case.spec["grad_l2"].items():
        # Some gradients are zero but for rounding (a bias that the next norm removes): hence the floor.
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7 * largest), name


@golden("adm_unet", only=is_half)
def test_float16_torso(case: Case) -> None:
    network = built(case)
    x, t = case.input("x"), case.input("timesteps")
    cond = condition(case)
    with torch.no_grad():
        if "output_fp32" in case.outputs:
            assert_close(network(x, t, cond), case.output("output_fp32"), 1e-5, "float32")
        to_half_torso(network)
        dtypes = {k: str(v.dtype).removeprefix("torch.") for k, v in network.state_dict().items()}
        assert dtypes == case.spec["dtypes_after_conversion"]
        output = network(x, t, cond)
    assert output.dtype == torch.float32
    assert (output - case.output("output_fp16_torso")).abs().max() <= 2e-2


def is_plain_forward(spec: dict[str, Any]) -> bool:
    return "class_" in spec and "optimizer" not in spec and "classifier_args" not in spec


@golden("adm_extras", only=is_plain_forward)
def test_extras(case: Case) -> None:
    x = case.input("x")
    with torch.no_grad():
        output = built(case)(x, case.input("timesteps"), condition(case))
    assert_close(output, case.output("output"), 1e-5, "output")


def test_coverage() -> None:
    """Every case of adm_unet is of one of the two kinds tested here."""
    for spec in manifest("adm_unet")["cases"]:
        assert spec["class_"] in ("UNetModel", "SuperResModel"), spec["class_"]

"""The latent-diffusion U-Net and its parts against latent-diffusion (group ldm_unet, parts of ldm_extras)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.goldens import Case, assert_close, golden, manifest
from tests.networks.unets import Cond, ldm_settings_of
from unnoise.networks.attention import LinearAttention
from unnoise.networks.code_unet import CodeUNet
from unnoise.networks.transformer import CrossAttention, SpatialTransformer
from unnoise.networks.unet import UNet


def is_unet(spec: dict[str, Any]) -> bool:
    return "UNetModel" in spec.get("class_", "")


def kind(spec: dict[str, Any]) -> str:
    """Which part a case is of, from the arguments of its constructor."""
    names = set(spec.get("constructor_args", ()))
    if is_unet(spec):
        return "unet"
    if {"query_dim", "dim_head"} <= names:
        return "cross"
    if {"dim", "dim_head"} <= names:
        return "linear"
    return "transformer" if {"n_heads", "d_head"} <= names else ""


def load(case: Case, network: nn.Module, prefix: str = "") -> nn.Module:
    """The network in eval mode with the recorded weights, of exactly the recorded names and shapes."""
    shapes = {k.removeprefix(prefix): list(v.shape) for k, v in network.state_dict().items()}
    assert shapes == case.spec["state_dict_shapes"]
    own = {k.removeprefix(prefix): k for k in network.state_dict()}
    network.load_state_dict({own[k]: v for k, v in case.state_dict().items()}, strict=True)
    return network.eval()


def unet_of(case: Case) -> nn.Module:
    args = case.spec["constructor_args"]
    settings, codes = ldm_settings_of(args), args.get("n_embed")
    return load(case, UNet(settings)) if codes is None else load(case, CodeUNet(settings, codes), "unet.")


def several(case: Case, name: str, dim: int) -> Tensor | None:
    """The inputs name_0, name_1, ... one behind the other, as DiffusionWrapper joins them."""
    found = [key for key in case.spec["inputs"] if key.startswith(name + "_")]
    return torch.cat([case.input(key) for key in found], dim) if found else None


def condition(case: Case) -> Cond:
    known = {"x", "timesteps", "y", "probe"}
    joined = {"c_concat": several(case, "c_concat", 1), "c_crossattn": several(case, "c_crossattn", 1)}
    for name in set(case.spec["inputs"]) - known:
        assert name.rsplit("_", 1)[0] in joined, f"{name} is not read"
    label = case.input("y") if case.has_input("y") else None
    return Cond(label=label, concat=joined["c_concat"], context=joined["c_crossattn"])


@golden("ldm_unet", only=is_unet)
def test_unet(case: Case) -> None:
    network = unet_of(case)
    assert sum(p.numel() for p in network.parameters()) == case.spec["n_params"]
    x = case.input("x").requires_grad_("probe" in case.spec["inputs"])
    output = network(x, case.input("timesteps"), condition(case))
    assert_close(output.detach(), case.output("output"), 1e-5, "output")
    read = {"output"}
    if x.requires_grad:
        read |= check_gradients(case, network, x, output)
    assert read == set(case.spec["outputs"]), "not every recorded array was compared"


def check_gradients(case: Case, network: nn.Module, x: Tensor, output: Tensor) -> set[str]:
    """Gradients of mean(output * probe), 1e-4 of the largest entry, as adm_unet records them."""
    loss = (output * case.input("probe")).mean()
    loss.backward()
    ours = {f"grad.{name}": p.grad for name, p in network.named_parameters()}
    ours |= {"loss": loss.detach(), "grad_x": x.grad}
    read = set(case.spec["outputs"]) - {"output"}
    for name in read:
        error, size = (ours[name] - case.output(name)).abs().max(), case.output(name).abs().max()
        assert error <= 1e-4 * size, f"{name}: off by {error:.3g} of {size:.3g}"
    largest = max(case.spec["grad_l2"].values(), default=0)
    for name, norm in case.spec["grad_l2"].items():
        assert ours[f"grad.{name}"].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7 * largest), name
    return read


def module_of(case: Case) -> nn.Module:
    args = case.spec["constructor_args"]
    if kind(case.spec) == "cross":
        width = args["query_dim"]
        network = CrossAttention(width, args["context_dim"] or width, args["heads"], args["dim_head"])
    elif kind(case.spec) == "linear":
        network = LinearAttention(args["dim"], args["heads"], args["dim_head"])
    else:
        network = SpatialTransformer(
            args["in_channels"],
            args["n_heads"],
            args["d_head"],
            depth=args["depth"],
            context_width=args["context_dim"],
        )
    return load(case, network)


def check_outputs(case: Case) -> None:
    """Every recorded output of a part: of x or of x_small, with the mask where its name says so."""
    network = module_of(case)
    for name, recorded in case.outputs.items():
        assert name in ("output", "output_masked", "output_small")
        x = case.input("x_small" if name == "output_small" else "x")
        told = [case.input("context")] if case.has_input("context") else []
        if name == "output_masked":
            told.append(case.input("mask"))
        with torch.no_grad():
            assert_close(network(x, *told), recorded, 1e-5, name)


@golden("ldm_unet", only=lambda spec: not is_unet(spec))
def test_parts(case: Case) -> None:
    check_outputs(case)


@golden("ldm_extras", only=lambda spec: kind(spec) == "transformer")
def test_small_activations_show_the_epsilon(case: Case) -> None:
    check_outputs(case)


def test_coverage() -> None:
    """Every case of ldm_unet is of a kind tested here."""
    for spec in manifest("ldm_unet")["cases"]:
        assert kind(spec), spec["id"]

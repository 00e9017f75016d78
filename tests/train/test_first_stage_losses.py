"""Discriminators, adversarial losses and the objectives of first stages against ldm_losses."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.goldens import Case, assert_close, golden, manifest, recipe_tensor
from tests.metrics.test_lpips import recipe as lpips_recipe
from unnoise.networks.discriminator import Discriminator
from unnoise.networks.first_stage_settings import DiscriminatorSettings
from unnoise.networks.lpips import Lpips
from unnoise.networks.posterior import Posterior
from unnoise.train import first_stage_losses as losses


def kind_of(spec: dict[str, Any]) -> str:
    """Which test a case belongs to; every case has one."""
    if "optimizer_idx" in spec:
        return "objective"
    args = spec.get("constructor_args") or {}
    if "use_actnorm" in args:
        return "discriminator"
    if "logits_real" in spec["inputs"]:
        return "logits"
    assert "target" in spec["inputs"], spec["id"]
    return "lpips"  # tests/metrics/test_lpips.py


def filled(module: torch.nn.Module, shapes: dict[str, list[int]], spec: dict[str, Any], seed: int) -> Any:
    """A module with recipe weights; what the manifest names stays as built."""
    state = module.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == shapes
    drawn = {
        key: torch.from_numpy(recipe_tensor(key, shape, seed, ()))
        for key, shape in shapes.items()
        if key not in spec["left_as_built"]
    }
    module.load_state_dict(state | drawn)
    return module


@golden("ldm_losses", only=lambda spec: kind_of(spec) == "logits")
def test_discriminators_losses(case: Case) -> None:
    real, fake = case.input("logits_real"), case.input("logits_fake")
    weights = torch.tensor(
        [float(v) for v in re.search(r"weights=\[(.*?)\]", case.spec["call"])[1].split(",")]
    )
    weighted = (weights * losses.hinge(real, fake)).sum() / weights.sum()
    found = {
        "hinge": losses.hinge(real, fake).mean(),
        "vanilla": losses.vanilla(real, fake).mean(),
        "hinge_weighted": weighted,
    }
    assert found.keys() == case.outputs.keys()
    for name, value in found.items():
        assert_close(value, case.output(name), 1e-5, name)


@golden("ldm_losses", only=lambda spec: kind_of(spec) == "discriminator")
def test_discriminators(case: Case) -> None:
    args = case.spec["constructor_args"]
    settings = DiscriminatorSettings(
        width=args["ndf"], layers=args["n_layers"], norm="actnorm" if args["use_actnorm"] else "batch"
    )
    network = Discriminator(settings, args["input_nc"])
    filled(network, case.spec["state_dict_shapes"], case.spec, case.spec["seed"])
    x = case.input("x")
    with torch.no_grad():
        found = {"output_train": network.train()(x), "output_eval_after": network.eval()(x)}
    state = network.state_dict()
    for name in case.outputs:
        key = name.removeprefix("state_after/")
        assert_close(state[key] if key != name else found[name], case.output(name), 1e-5, name)


def lpips_network(seed: int) -> Lpips:
    shapes = {key: list(value.shape) for key, value in Lpips().state_dict().items()}
    return Lpips.from_state({key: lpips_recipe(key, shape, seed) for key, shape in shapes.items()})


@golden("ldm_losses", only=lambda spec: kind_of(spec) == "objective")
def test_objectives(case: Case) -> None:
    args = case.spec["constructor_args"]
    shapes = case.spec["discriminator_shapes"]
    layers = args.get("disc_num_layers", 3)
    norm = "actnorm" if args.get("use_actnorm") else "batch"
    settings = DiscriminatorSettings(width=args.get("disc_ndf", 64), layers=layers, norm=norm)
    discriminator = filled(
        Discriminator(settings, args.get("disc_in_channels", 3)),
        shapes,
        case.spec,
        case.spec["seeds"]["discriminator"],
    ).train()
    last_layer = case.input("last_layer_weight").requires_grad_()
    reconstruction = torch.tanh(F.conv2d(case.input("conv_input"), last_layer, padding=1))
    active = float(case.spec["global_step"] >= args["disc_start"]) * args.get("disc_factor", 1.0)
    if case.spec["optimizer_idx"]:
        found = discriminators_turn(case, discriminator, reconstruction.detach(), active)
    else:
        found = first_stages_turn(case, discriminator, reconstruction, last_layer, active)
    found["reconstruction"] = reconstruction
    found["grad_disc_first_conv"] = discriminator.main[0].weight.grad
    assert found.keys() == case.outputs.keys()
    for name, value in found.items():
        recorded = case.output(name)
        bound = 1e-4 * max(recorded.abs().max().item(), 1e-3)
        error = (torch.as_tensor(value).detach() - recorded).abs().max().item()
        assert error <= bound, f"{name}: off by {error:.3g}, allowed {bound:.3g}"


def discriminators_turn(case: Case, network: Any, fakes: Tensor, active: float) -> dict[str, Any]:
    real, fake = network(case.input("inputs")), network(fakes)
    kind = case.spec["constructor_args"].get("disc_loss", "hinge")
    loss = active * losses.DISCRIMINATION[kind](real, fake).mean()
    loss.backward()
    return {"loss": loss, "disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}


def first_stages_turn(
    case: Case, discriminator: Any, reconstruction: Tensor, last_layer: Tensor, active: float
) -> dict[str, Any]:
    args, call, images = case.spec["constructor_args"], case.spec["call"], case.input("inputs")
    weight = args.get("perceptual_weight", 1.0)
    distance = (
        lpips_network(case.spec["seeds"]["lpips"])(images, reconstruction) if weight else torch.zeros(1)
    )
    error = losses.errors(args.get("pixel_loss", "l1"), images, reconstruction, weight * distance)
    deceived = losses.deception(discriminator(reconstruction)).mean()
    found: dict[str, Any] = {"rec_loss": error.mean(), "g_loss": deceived, "disc_factor": active}
    if "VQ" not in case.spec["class_"]:
        logvar = torch.tensor(args.get("logvar_init", 0.0))
        nll = losses.gaussian_nll(error, logvar).mean()
        seed, shape = re.search(r"PCG64\((\d+)\)\), shape \(([\d,]+)\)", call).groups()
        drawn = np.random.Generator(np.random.PCG64(int(seed))).standard_normal(
            [int(n) for n in shape.split(",")], dtype=np.float32
        )
        kl = Posterior.of(torch.from_numpy(drawn)).kl().mean()
        extra = args.get("kl_weight", 1.0) * kl
        found |= {"kl_loss": kl, "logvar": logvar}
    else:
        nll = losses.mean_nll(error, torch.tensor(0.0)).mean()
        codebook = float(re.search(r"codebook_loss = ([\d.]+)", call)[1])
        extra = args.get("codebook_weight", 1.0) * codebook
        found |= {"quant_loss": codebook, "p_loss": distance.mean()}
    if "perplexity" in case.outputs:
        seed, most, count = re.search(r"PCG64\((\d+)\)\)\.integers\(0,(\d+),\((\d+),\)\)", call).groups()
        drawn = np.random.Generator(np.random.PCG64(int(seed))).integers(0, int(most), (int(count),))
        counts = losses.code_counts(torch.from_numpy(drawn), args["n_classes"])
        found |= {"perplexity": losses.perplexity(counts), "cluster_usage": (counts > 0).sum()}
    balance = args.get("disc_weight", 1.0) * losses.adaptive_weight(nll, deceived, last_layer)
    loss = nll + extra + balance * active * deceived
    loss.backward()
    found |= {"loss": loss, "total_loss": loss, "nll_loss": nll, "d_weight": balance}
    return found | {"grad_last_layer": last_layer.grad}


def test_every_case_is_of_a_kind_that_is_tested() -> None:
    assert {kind_of(spec) for spec in manifest("ldm_losses")["cases"]} <= {
        "objective", "discriminator", "logits", "lpips",
    }  # fmt: skip


def test_the_smallest_picture_of_a_discriminator() -> None:
    for layers in (1, 2, 3):
        network = Discriminator(DiscriminatorSettings(width=4, layers=layers), 3)
        side = network.least_side
        assert network(torch.zeros(2, 3, side, side)).shape[2] >= 1
        with pytest.raises(RuntimeError):
            network(torch.zeros(2, 3, side - 2**layers, side - 2**layers))

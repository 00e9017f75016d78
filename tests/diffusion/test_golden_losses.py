"""Group adm_losses: every loss type, the stop of its gradient, bits per dimension, loss-aware timesteps."""

from typing import Any

import torch
from torch import Tensor

from tests.diffusion.adm import Replay, assert_covered, denoiser_of, maybe_clip, schedule_of
from tests.goldens import Case, arrays, assert_close, golden
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.likelihood import (
    approximate_normal_cdf,
    bits_per_dim,
    normal_kl,
    pixel_log_likelihood,
)
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.objectives import Hybrid, Objective, Simple, Vlb
from unnoise.diffusion.timesteps import LossSecondMoment, draw


def shared(case: Case, name: str) -> Tensor:
    """An input of the case itself, else of the case "inputs" that the manifest says all losses share."""
    return (
        case.input(name) if case.has_input(name) else torch.from_numpy(arrays(case.group)[f"inputs/{name}"])
    )


def objective_of(spec: dict[str, Any], steps: int) -> tuple[Objective, float]:
    """The loss type as an objective, and the factor of "vb" in its record."""
    kind, learned = spec["loss_type"], spec["model_var_type"].startswith("LEARNED")
    if kind in ("KL", "RESCALED_KL"):
        return Vlb(vlb_weight=1 / steps if kind == "KL" else 1.0), 1.0
    if not learned:
        return Simple(), 1.0
    weight = {"MSE": 1 / steps, "RESCALED_MSE": 0.001}[kind]
    return Hybrid(vlb_weight=weight), weight * steps


def assert_losses(actual: Tensor, recorded: Tensor, first: Tensor, floor: float, what: str) -> None:
    """1e-5 of each value, 1e-4 where it is the decoder's; `floor` in bits (golden/README.md)."""
    relative = torch.where(first, 1e-4, 1e-5)
    error = (actual.double() - recorded.double()).abs()
    bound = relative * recorded.double().abs() + floor
    assert (error <= bound).all(), f"{what}: off by {error.tolist()}, allowed {bound.tolist()}"


@golden("adm_losses", only=lambda spec: spec["call"].startswith("training_losses"))
def test_training_losses(case: Case) -> None:
    spec = case.spec["diffusion"]
    schedule = schedule_of(spec)
    objective, factor = objective_of(spec, schedule.steps)
    x0, t = shared(case, "x_start"), torch.tensor(case.spec["t"]) if "t" in case.spec else case.input("t")
    denoiser = denoiser_of(spec)
    losses = objective(
        denoiser,
        x0,
        schedule.at(t, x0),
        eps=shared(case, "noise"),
        cond=Condition(label=shared(case, "y")),
    )
    ours = {"loss": losses["loss"], "model_t": torch.stack(denoiser.network.seen)[0]}
    if "mse" in losses:
        ours["mse"] = losses["mse"]
    if "vlb" in losses:
        ours["vb"] = losses["vlb"] * factor
    total = schedule.steps if spec["loss_type"] == "RESCALED_KL" else 1
    none = torch.zeros_like(t, dtype=torch.bool)
    for key, recorded in case.outputs.items():
        if key == "model_t":
            assert_close(ours[key], recorded, 1e-6, key)
            continue
        variational = key == "vb" or (key == "loss" and "vlb" in losses)
        assert_losses(ours[key], recorded, (t == 0) if variational else none, 5e-7 * total * variational, key)


@golden("adm_losses", only=lambda spec: "backward()" in spec["call"])
def test_gradient_of_the_bound_stops_at_the_mean(case: Case) -> None:
    spec = case.spec["diffusion"]
    schedule, x0 = schedule_of(spec), case.input("x_start")
    output = case.input("model_output").requires_grad_()
    denoiser = denoiser_of(spec, Replay(output))
    objective, factor = objective_of(spec, schedule.steps)
    at = schedule.at(case.input("t"), x0)
    losses = objective(denoiser, x0, at, eps=case.input("noise"), cond=Condition())
    losses["loss"].mean().backward()
    ours = {"loss": losses["loss"].detach(), "grad_wrt_model_output": output.grad}
    if "mse" in losses:
        ours["mse"] = losses["mse"].detach()
    if "vlb" in losses:
        ours["vb"] = losses["vlb"].detach() * factor
    for key, recorded in case.outputs.items():
        scale = recorded.abs().max().item()
        assert_close(ours[key] / scale, recorded / scale, 1e-5, key)


@golden("adm_losses", only=lambda spec: spec["call"].startswith("calc_bpd_loop"))
def test_bits_per_dim(case: Case) -> None:
    schedule, x0 = schedule_of(case.spec["diffusion"]), case.input("x_start")
    bits = bits_per_dim(
        maybe_clip(denoiser_of(case.spec["diffusion"]), case.spec["clip_denoised"]),
        x0,
        schedule,
        cond=Condition(label=case.input("y")),
        noise=RecordedNoise({(k, 0): z for k, z in enumerate(case.input("noise"))}),
    )
    first = torch.arange(schedule.steps).flip(0) == 0
    ours = {
        # The record runs from the noisiest entry down (trap 24).
        "vb": bits.vlb.flip(1),
        "xstart_mse": bits.x0_mse.flip(1),
        "mse": bits.eps_mse.flip(1),
        "prior_bpd": bits.prior,
        "total_bpd": bits.total,
    }
    for key, recorded in case.outputs.items():
        decoder = first if key == "vb" else torch.tensor(key == "total_bpd")
        assert_losses(ours[key], recorded, decoder, 5e-7, key)


@golden("adm_losses", only=lambda spec: spec["call"].startswith("normal_kl"))
def test_helpers(case: Case) -> None:
    a = case.input("a")
    ours = {
        "normal_kl": normal_kl(a, 0.3 * a - 1, 0.5 * a, -0.7),
        "cdf": approximate_normal_cdf(case.input("z")),
        "disc_loglik": pixel_log_likelihood(case.input("x"), case.input("means"), case.input("log_scales")),
    }
    for key, recorded in case.outputs.items():
        assert_close(ours[key], recorded, 1e-5, key)


@golden("adm_losses", only=lambda spec: "history_per_term" in spec)
def test_second_moment(case: Case) -> None:
    steps = case.spec["num_timesteps"]
    sampler = LossSecondMoment(steps, case.spec["history_per_term"], case.spec["uniform_prob"])
    recorded = case.output("weights_after_each_update")
    first = case.spec["first_update_with_non_uniform_weights"]
    for k, (i, losses) in enumerate(zip(case.input("ts"), case.input("losses"), strict=True)):
        sampler.update(i, losses)
        ours = sampler.probabilities()
        torch.testing.assert_close(ours, recorded[k] / recorded[k].sum(), rtol=1e-9, atol=0)
        assert bool((ours == ours[0]).all()) == (k < first)
    middles = sampler.probabilities().cumsum(0) - sampler.probabilities() / 2
    i, weight = sampler.sample(middles)
    assert i.tolist() == list(range(steps))
    torch.testing.assert_close(weight, case.output("importance_weight_per_t").float())
    assert draw(sampler.probabilities(), torch.tensor([1 - 1e-16]))[0].item() == steps - 1


def test_every_case_is_understood() -> None:
    """What no test above reads may only be inputs that others share."""

    def known(spec: dict[str, Any]) -> bool:
        call = spec["call"]
        tested = call.startswith(("training_losses", "calc_bpd_loop", "normal_kl")) or "backward()" in call
        return tested or "history_per_term" in spec or not spec["outputs"]

    assert_covered("adm_losses", known)

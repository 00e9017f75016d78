"""Four training steps against guided-diffusion: losses, gradients, AdamW, EMA, annealing (adm_extras)."""

from typing import Any

import pytest
import torch

from tests.diffusion.adm import denoiser_of
from tests.diffusion.test_golden_losses import objective_of
from tests.goldens import Case, golden
from tests.networks.unets import settings_of
from unnoise.config.schema import EmaConfig, OptimizerConfig
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.networks.unet import UNet
from unnoise.train.ema import Ema, weights_of
from unnoise.train.optim import gradient_norm, learning_rate, make_optimizer, set_learning_rate


def schedule_of(diffusion: dict[str, Any]) -> NoiseSchedule:
    betas = make_betas(diffusion["noise_schedule"], diffusion["steps"])
    return NoiseSchedule.from_betas(betas, rescale=bool(diffusion.get("rescale_timesteps")))


def optimizer_config(spec: dict[str, Any]) -> OptimizerConfig:
    recorded = spec["optimizer"]
    return OptimizerConfig(
        lr=recorded["lr"],
        weight_decay=recorded["weight_decay"],
        betas=tuple(recorded["betas"]),
        eps=recorded["eps"],
        decay="linear" if spec["lr_anneal_steps"] else "none",
        clip_norm=None,
    )


@golden("adm_extras", only=lambda spec: "optimizer" in spec)
def test_training(case: Case) -> None:
    spec = case.spec
    schedule = schedule_of(spec["diffusion"])
    objective, vlb_factor = objective_of(spec["diffusion"], schedule.steps)
    network = UNet(settings_of(spec["constructor_args"])).train()
    network.load_state_dict(case.state_dict())
    denoiser = denoiser_of(spec["diffusion"], network)
    config = optimizer_config(spec)
    optimizer = make_optimizer(network.parameters(), config)
    average = Ema(weights_of(network), EmaConfig(rates=tuple(spec["ema_rates"]), warmup=False))
    recorded = case.outputs
    faint = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in network.named_parameters()}

    for step, (x0, t, eps) in enumerate(
        zip(case.input("x"), case.input("t"), case.input("noise"), strict=True)
    ):
        label = case.input("y")[step] if case.has_input("y") else None
        losses = objective(denoiser, x0, schedule.at(t, x0), eps=eps, cond=Condition(label=label))
        assert losses["loss"].tolist() == pytest.approx(recorded["losses"][step].tolist(), rel=1e-4)
        if "mse" in recorded:
            assert losses["mse"].tolist() == pytest.approx(recorded["mse"][step].tolist(), rel=1e-4)
        if "vb" in recorded:
            ours = (losses["vlb"] * vlb_factor).tolist()
            assert ours == pytest.approx(recorded["vb"][step].tolist(), rel=1e-4, abs=1e-7)
        losses["loss"].mean().backward()
        norm = gradient_norm(network.parameters()).item()
        assert norm == pytest.approx(recorded["grad_norm"][step].item(), rel=1e-4)
        mark_faint(network, faint)
        set_learning_rate(optimizer, learning_rate(config, step, spec["lr_anneal_steps"]))
        optimizer.step()
        optimizer.zero_grad()
        average.update(network.parameters())

    drift = 2 * config.lr * len(recorded["losses"])
    final = dict(network.named_parameters())
    check_weights(final, spec["final_parameter_norm_and_sum"], recorded, "final.", faint, drift)
    for index, rate in enumerate(spec["ema_rates"]):
        sizes = spec["ema_norm_and_sum"][str(rate)]
        check_weights(average.weights(index), sizes, recorded, f"ema{rate}.", faint, drift)


def mark_faint(network: UNet, faint: dict[str, torch.Tensor]) -> None:
    """Note gradients that are rounding noise beside the largest; Adam scales them to full steps all the same.

    Such as those of a bias that the next norm takes out again, with one channel a group.
    """
    largest = max(p.grad.abs().max().item() for p in network.parameters())
    for name, p in network.named_parameters():
        faint[name] |= (p.grad != 0) & (p.grad.abs() <= 3e-7 * largest)


def check_weights(
    weights: dict[str, torch.Tensor],
    sizes: dict[str, list[float]],
    recorded: dict[str, torch.Tensor],
    prefix: str,
    faint: dict[str, torch.Tensor],
    drift: float,
) -> None:
    """Recorded tensors to 2e-5 absolute; the others' norms and sums to what such errors add up to.

    Where the gradient was faint a weight may have gone either way: `drift` is the most that makes.
    """
    for name in recorded:
        if name.startswith(prefix):
            key = name.removeprefix(prefix)
            error = ((weights[key] - recorded[name]).abs() * ~faint[key]).max().item()
            assert error <= 2e-5, f"{name}: off by {error:.3g}"
    for name, (norm, total) in sizes.items():
        w, lost = weights[name].double(), faint[name].sum().item()
        kept = w.numel() - lost
        room = 2e-5 * kept**0.5 + drift * lost**0.5, 2e-5 * kept + drift * lost
        assert w.norm().item() == pytest.approx(norm, abs=room[0]), f"norm of {prefix}{name}"
        assert w.sum().item() == pytest.approx(total, abs=room[1]), f"sum of {prefix}{name}"

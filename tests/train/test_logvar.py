"""Learned log variances: latent diffusion's recorded losses, learned, kept in checkpoints, off by default."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion.ldm import Toy, schedule_of
from tests.diffusion.test_golden_ldm_p_losses import condition, shared
from tests.goldens import Case, golden
from tests.train.tiny import assert_same_run, tiny_config, tiny_run, weights
from unnoise.config.load import from_dict
from unnoise.config.schema import ObjectiveConfig
from unnoise.diffusion.denoiser import Denoiser
from unnoise.generate import sample
from unnoise.model import load_model
from unnoise.train.check import check
from unnoise.train.diffusion import make_objective
from unnoise.train.events import StepDone
from unnoise.train.logvar import WithLogvar, inner

LEARNED = {
    "model": {"variance": "fixed_small"},
    "objective": {"name": "simple", "learn_logvar": True, "logvar_init": 0.25},
    "optimizer": {"lr": 0.01},
}


@golden("ldm_p_losses", only=lambda spec: "p_losses" in spec["call"])
def test_the_settings_make_the_recorded_loss_and_its_gradient(case: Case) -> None:
    """What of the group concerns log variances; tests/diffusion compares the rest."""
    settings = case.spec["settings"]
    config = from_dict(
        ObjectiveConfig,
        {
            "name": "simple",
            "error": settings["loss_type"],
            "simple_weight": settings["l_simple_weight"],
            "elbo_weight": settings["original_elbo_weight"],
            "learn_logvar": True,
            "logvar_init": settings["logvar_init"],
        },
    )
    x0, eps, t = shared("x_start"), shared("noise"), shared("t")
    network = WithLogvar(Toy(x0.shape[1]), settings["timesteps"], config.logvar_init)
    denoiser = Denoiser(network, predicts=settings["parameterization"], v_posterior=settings["v_posterior"])
    at, cond = schedule_of(settings).at(t, x0), condition(settings["conditioning_key"])
    said = make_objective(config)(denoiser, x0, at, eps=eps, cond=cond, logvar=network.at(t))
    loss = said["loss"].mean()
    loss.backward()
    ours = {"loss": loss, "ld_val_loss": loss, "ld_logvar": network.logvar.mean()}
    ours["grad_logvar_at_t"] = network.logvar.grad[t]
    compared = ours.keys() & case.outputs.keys()
    assert "loss" in compared and ("grad_logvar_at_t" in compared) == settings["learn_logvar"]
    for key in compared:
        torch.testing.assert_close(ours[key].detach(), case.outputs[key], rtol=1e-5, atol=0)


def test_they_are_learned_logged_and_kept_in_checkpoints_alone(tmp_path: Path) -> None:
    tiny_run(tmp_path / "run", tiny_config(**LEARNED))
    (newest,) = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1:]
    held = {key for file in newest.glob("*.safetensors") for key in load_file(file) if "logvar" in key}
    assert held
    plain = tiny_config(model=LEARNED["model"], objective={"name": "simple"})
    tiny_run(tmp_path / "plain", plain)
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "plain").keys()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert abs(lines[0]["logvar"] - 0.25) > 1e-4 and "logvar/q0" in lines[-1]
    assert sample(load_model(tmp_path / "run"), n=1, steps="2").pixels.shape == (1, 8, 8, 1)


def test_a_run_cut_off_ends_in_the_same_bits(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 7:
            raise Stop

    config = tiny_config(**LEARNED)
    tiny_run(tmp_path / "whole", config)
    with pytest.raises(Stop):
        tiny_run(tmp_path / "cut", config, on_event=stop)
    tiny_run(tmp_path / "cut", config)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_its_minimum_is_the_log_of_the_error() -> None:
    torch.manual_seed(0)
    network = WithLogvar(Toy(3), 20, 0.0)
    x0, eps = torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4)
    schedule = schedule_of(
        {"beta_schedule": "linear", "timesteps": 20, "linear_start": 0.01, "linear_end": 0.2}
    )
    at, i = schedule.at(torch.arange(8), x0), torch.arange(8)
    objective, cond = make_objective(ObjectiveConfig(name="simple", learn_logvar=True)), condition(None)
    error = objective(Denoiser(network), x0, at, eps=eps, cond=cond)["mse"].detach()
    with torch.no_grad():
        network.logvar[:8] = error.log()
    objective(Denoiser(network), x0, at, eps=eps, cond=cond, logvar=network.at(i))["loss"].sum().backward()
    torch.testing.assert_close(network.logvar.grad, torch.zeros(20), atol=1e-6, rtol=0)


def test_weights_of_the_network_alone() -> None:
    network = WithLogvar(torch.nn.Linear(2, 2), 5, 0.0)
    assert inner(network.state_dict()).keys() == network.network.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"name": "vlb", "learn_logvar": True}}, "learn_logvar=True means nothing to .*vlb"),
        ({"objective": {"name": "hybrid", "learn_logvar": True}}, "learn_logvar=True means nothing"),
        (
            {**LEARNED, "objective": {"name": "simple", "logvar_init": 1.0}},
            "logvar_init=1 .*learn_logvar=true",
        ),
    ],
)
def test_what_means_nothing_is_refused(changes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(tiny_config(**changes), processes=1)

"""A whole latent diffusion model, read from its checkpoint, from picture to picture (group ldm_extras)."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.goldens import Case, assert_close, golden, manifest
from tests.networks.first_stages import first_stage_settings_of
from tests.networks.test_conditioners import conditioner_settings_of
from tests.networks.test_ldm_unet_golden import kind
from tests.networks.test_unet_ddpm import is_block
from tests.networks.unets import ldm_settings_of
from tests.test_tiles import is_patchwise
from tests.weights.latents import latent_preset, publish, saved, stage_preset
from unnoise.config.model import ModelConfig, ScheduleConfig, ToldConfig
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import classifier_free
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.objectives import Simple
from unnoise.diffusion.samplers import Ddim
from unnoise.diffusion.schedule import make_betas
from unnoise.diffusion.spacing import grid
from unnoise.diffusion.walk import run
from unnoise.images import to_pixels
from unnoise.model import Model, load_model

WALK = re.compile(r"DDIM (\d+) steps eta ([\d.]+) with guidance ([\d.]+)")
KNOWN = {
    *("first_stage", "unet", "cond_stage", "linear_start", "linear_end", "timesteps", "scale_factor"),
    "conditioning_key",
}


def is_whole(spec: dict[str, Any]) -> bool:
    return "first_stage" in spec.get("settings", {})


def loaded(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of a case, by way of a file of Lightning's."""
    settings = case.spec["settings"]
    assert set(settings) == KNOWN and settings["conditioning_key"] == "crossattn"
    schedule = ScheduleConfig(
        name="scaled_linear",
        steps=settings["timesteps"],
        beta_start=settings["linear_start"],
        beta_end=settings["linear_end"],
    )
    arguments = settings["first_stage"]["params"]
    size = arguments["ddconfig"]["resolution"]
    stage = stage_preset(first_stage_settings_of(arguments), size)
    encoder = conditioner_settings_of(settings["cond_stage"])
    told = (ToldConfig(what="class", encoder=encoder, dropout=0.0),)
    network = ldm_settings_of(settings["unet"])
    model = ModelConfig(network=network, variance="fixed_small", schedule=schedule, told=told)
    scale = settings["scale_factor"]
    publish(monkeypatch, [latent_preset("whole", model, size, classes=encoder.classes, scale=scale)], stage)
    state = {key: value for key, value in case.state_dict().items() if key not in case.spec["left_as_built"]}
    state["betas"] = make_betas(
        schedule.name, schedule.steps, start=schedule.beta_start, end=schedule.beta_end
    ).float()
    return load_model(saved(folder / "model.ckpt", {"state_dict": state}))


@golden("ldm_extras", only=is_whole)
@torch.no_grad()
def test_a_whole_model(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(case, tmp_path, monkeypatch)
    stage, network = model.first_stage, model.network
    assert stage is not None
    z = stage.encode(case.input("image_nhwc").permute(0, 3, 1, 2), case.input("posterior_noise"))
    cond, untold = (
        network.encode(Condition(label=case.input(name)), z.shape[2:])
        for name in ("class_label", "unconditional_label")
    )
    steps, eta, scale = WALK.search(case.spec["call"]).groups()
    schedule, x = grid(f"ldm{steps}", model.schedule), case.input("x_T")
    walk = run(
        Ddim(eta=float(eta)),
        classifier_free(model.denoiser, lambda cond: untold, float(scale)),
        x,
        schedule.path(x),
        cond=cond,
        noise=RecordedNoise({}),
    )
    latents = [x, *(step.x for step in walk)]
    image = model.decode(latents[-1])
    objective = Simple(error="l2", elbo_weight=1.0)
    losses = objective(
        model.denoiser, z, model.schedule.at(case.input("t"), z), eps=case.input("loss_noise"), cond=cond
    )
    ours = {
        "z_scaled": z,
        "reconstruction": model.decode(z),
        "conditioning": cond.context,
        "unconditional_conditioning": untold.context,
        "latents": torch.stack(latents),
        "final_latent": latents[-1],
        "final_image": image,
        "image_uint8": to_pixels(image).permute(0, 3, 1, 2),
        "loss": losses["mse"].mean(),
        "loss_vlb": losses["elbo"].mean(),
    }
    tolerance = float(case.spec["tolerance"].split()[0])
    for name, recorded in case.outputs.items():
        if name == "image_uint8":  # cut off, so that a value beside a step may fall on its other side
            difference = (ours[name].int() - recorded.int()).abs()
            assert difference.max() <= 1 and difference.float().mean() < 0.01
        else:
            assert_close(ours[name], recorded, tolerance, name)


def test_every_kind_is_known() -> None:
    for spec in manifest("ldm_extras")["cases"]:
        kinds = [is_whole(spec), is_patchwise(spec), is_block(spec), kind(spec) == "transformer"]
        assert sum(kinds) == 1, spec["id"]

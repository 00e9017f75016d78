"""Group adm_diffusion_loops: whole ancestral and DDIM walks with the recorded noise."""

import torch

from tests.diffusion.adm import denoiser_of, maybe_clip, schedule_of, toy_guide
from tests.goldens import Case, assert_close, golden
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.samplers import Ddim, Ddpm
from unnoise.diffusion.walk import run


@golden("adm_diffusion_loops")
def test_loop(case: Case) -> None:
    function = case.spec["call"].split("(")[0]
    sampler = {"p_sample_loop": lambda eta: Ddpm(), "ddim_sample_loop": lambda eta: Ddim(eta=eta)}[function](
        case.spec["eta"]
    )
    schedule, x = schedule_of(case.spec["diffusion"]), case.input("x_T")
    denoiser = denoiser_of(case.spec["diffusion"])
    steps = list(
        run(
            sampler,
            maybe_clip(denoiser, case.spec["clip_denoised"]),
            x,
            schedule.path(x),
            cond=Condition(label=case.input("y")),
            noise=RecordedNoise({(k, 0): z for k, z in enumerate(case.input("noise"))}),
            guide=toy_guide() if case.spec["guided"] else None,
        )
    )
    ours = {
        "final": steps[-1].x,
        "samples": torch.stack([step.x for step in steps]),
        "pred_xstart": torch.stack([step.prediction.x0 for step in steps]),
        "model_t": torch.stack(denoiser.network.seen),
    }
    ancestral, spec = function == "p_sample_loop", case.spec["diffusion"]
    # The original works DDIM's coefficients out in float32: it shows where x0 is what is predicted (trap 57).
    tolerance = 5e-5 if ancestral or spec["model_mean_type"] == "EPSILON" else 1e-4
    for key, recorded in case.outputs.items():
        assert_close(ours[key], recorded, 1e-6 if key == "model_t" else tolerance, key)
    if ancestral:
        assert_close(ours["samples"][:3], case.output("samples")[:3], 1e-5, "the first steps")

"""Group adm_diffusion_steps: q, the posterior, a step of every sampler, for every mean and variance type."""

import torch

from tests.diffusion.adm import assert_covered, denoiser_of, maybe_clip, schedule_of, toy_guide
from tests.goldens import Case, assert_close, golden
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import fold_guide
from unnoise.diffusion.likelihood import prior_bits
from unnoise.diffusion.prediction import posterior_mean, reverse
from unnoise.diffusion.samplers import Ddim, DdimInversion, Ddpm
from unnoise.diffusion.schedule import add_noise


@golden("adm_diffusion_steps", only=lambda spec: "q_sample" in spec["call"])
def test_forward(case: Case) -> None:
    schedule, x0 = schedule_of(case.spec["diffusion"]), case.input("x_start")
    at = schedule.at(case.input("t"), x0)
    x = add_noise(x0, case.input("noise"), at)
    ours = {
        "x_t": x,
        "q_mean": at.scales.alpha * x0,
        "q_variance": at.scales.sigma**2,
        "q_log_variance": at.cast((1 - at.alpha_bar).log()),
        "post_mean": posterior_mean(x0, case.output("x_t"), at),
        "post_variance": at.scales.variance,
        "post_log_variance_clipped": at.scales.log_variance,
        "prior_bpd": prior_bits(x0, schedule),
    }
    for key, recorded in case.outputs.items():
        assert_close(ours[key].expand_as(recorded), recorded, 1e-5, key)


@golden("adm_diffusion_steps", only=lambda spec: "p_mean_variance" in spec["call"])
def test_one_step(case: Case) -> None:
    spec = case.spec["diffusion"]
    schedule, x, t, noise = schedule_of(spec), case.input("x_t"), case.input("t"), case.input("noise")
    at, below, above = (schedule.at(i, x) for i in (t, t - 1, t + 1))
    cond = Condition(label=case.input("y"))
    network_seen, guide_seen = [], []
    denoiser = denoiser_of(spec)
    denoiser.network.seen = network_seen
    denoise, guide = maybe_clip(denoiser, case.spec["clip_denoised"]), toy_guide(guide_seen)
    folded = fold_guide(denoise, guide)

    def step(sampler, draw, *, denoise=denoise, to=below, guide=None):
        def drawn(like):
            return noise[draw]

        moved, prediction, _ = sampler.step(
            denoise, x, at, to, sampler.start(), cond=cond, noise=drawn, guide=guide
        )
        return moved, prediction.x0

    prediction = denoise(x, at, cond)
    reversal = reverse(prediction, x, at)
    ours = {
        "mean": reversal.mean,
        "variance": reversal.variance,
        "log_variance": reversal.log_variance,
        "pred_xstart": prediction.x0,
        "model_t": network_seen[0],
        "p_sample": step(Ddpm(), 0)[0],
        "p_sample_cond": step(Ddpm(), 1, guide=guide)[0],
        "p_sample_cond_pred_xstart": step(Ddpm(), 1, guide=guide)[1],
        "cond_t": guide_seen[0],
        "ddim_eta0": step(Ddim(), 2)[0],
        "ddim_eta05": step(Ddim(eta=0.5), 3)[0],
        "ddim_eta05_cond": step(Ddim(eta=0.5), 4, denoise=folded)[0],
        "ddim_eta05_cond_pred_xstart": step(Ddim(eta=0.5), 4, denoise=folded)[1],
        "ddim_reverse": step(DdimInversion(), 0, to=above)[0],
    }
    # The original works DDIM's coefficients out in float32 (golden/README.md, trap 57).
    ddim = 1e-5 if spec["model_mean_type"] == "EPSILON" else 1e-4
    for key, recorded in case.outputs.items():
        tolerance = ddim if key.startswith("ddim_") else 1e-6 if key in ("model_t", "cond_t") else 1e-5
        assert_close(torch.as_tensor(ours[key]).expand_as(recorded), recorded, tolerance, key)


def test_every_case_is_understood() -> None:
    assert_covered(
        "adm_diffusion_steps", lambda spec: "q_sample" in spec["call"] or "p_mean_variance" in spec["call"]
    )

"""Group adm_extras, end to end: tiny U-Net and classifier, guided walks with the recorded noise, uint8."""

from dataclasses import replace
from typing import Any

import torch

from tests.goldens import Case, assert_close, golden, recipe_state_dict
from tests.networks.unets import encoder_settings_of, settings_of
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import classifier_guide
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.prediction import Denoise
from unnoise.diffusion.samplers import Ddim, Ddpm
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.spacing import space
from unnoise.diffusion.transforms import clip_x0
from unnoise.diffusion.walk import run
from unnoise.images import to_pixels
from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.networks.unet import UNet


def networks(spec: dict[str, Any]) -> tuple[UNet, EncoderUNet]:
    """Both networks of a case, their weights by the recipe."""
    unet, classifier = (
        UNet(settings_of(spec["unet_args"])),
        EncoderUNet(encoder_settings_of(spec["classifier_args"])),
    )
    for name, network in (("unet", unet), ("classifier", classifier)):
        keys = spec["embedding_keys"] if name == "unet" else ()
        network.load_state_dict(recipe_state_dict(spec[f"{name}_shapes"], spec["seeds"][name], keys))
        network.eval()
    return unet, classifier


def is_ddim(spec: dict[str, Any]) -> bool:
    """The text of "call" names both loops: what tells them apart is the respacing, or the case's own name."""
    return str(spec["timestep_respacing"]).startswith("ddim") or "ddim" in spec["id"]


def told(unet: UNet) -> Denoise:
    """Of a U-Net without classes: the classifier alone is told them."""
    denoise = Denoiser(
        unet,
        predicts="eps",
        variance="learned_range"
        if unet.settings.out_channels == 2 * unet.settings.in_channels
        else "fixed_large",
    )
    if unet.settings.classes is not None:
        return denoise
    return lambda x, at, cond: denoise(x, at, replace(cond, label=None))


@golden("adm_extras", only=lambda spec: "classifier_args" in spec)
def test_guided_sampling_is_the_originals(case: Case) -> None:
    spec = case.spec
    unet, classifier = networks(spec)
    schedule = NoiseSchedule.from_betas(make_betas("linear", 1000))
    if spec["timestep_respacing"]:
        schedule = schedule.respaced(space(str(spec["timestep_respacing"]), 1000))
    x = case.input("x_T")
    with torch.no_grad():
        steps = list(
            run(
                Ddim(eta=0.0) if is_ddim(spec) else Ddpm(),
                clip_x0(told(unet)),
                x,
                schedule.path(x),
                cond=Condition(label=case.input("y")),
                noise=RecordedNoise({(k, 0): z for k, z in enumerate(case.input("noise"))}),
                guide=classifier_guide(classifier, spec["classifier_scale"]),
            )
        )
    samples, recorded = torch.stack([step.x for step in steps]), case.output("samples")
    assert_close(samples[0], recorded[0], 1e-4, "the first step")
    assert_close(samples, recorded, 1e-3, "all steps")
    pixels = to_pixels(samples[-1])
    assert (pixels.int() - case.output("uint8_nhwc").int()).abs().max() <= 1

"""What a report says of a first stage: how near its pictures come, and the health of what it learns by."""

from collections.abc import Mapping, Sequence
from typing import Any

from unnoise import html
from unnoise.config.schema import AutoencoderConfig
from unnoise.train.courses import Course, figures

HEADING = "Reconstructions"
CAPTION = "Held-out pictures, each beside what the average makes of it."
SEEN_BY = (
    "Held-out pictures are put through the average of the weights, those learned from through the weights "
    "of each step."
)
HELD_OUT = "validation/"
"""Before the names of what is measured of held-out pictures."""
PSNR = Course(
    curves={f"{HELD_OUT}psnr": "held out", "psnr": "learned from"},
    label="dB",
    caption="Peak signal-to-noise ratio of reconstructions: higher is better",
)
SSIM = Course(
    curves={f"{HELD_OUT}ssim": "held out"},
    label="SSIM",
    caption="Structural similarity to held-out pictures: higher is better, 1 for equal ones",
)
HEALTH = (
    Course(
        curves={"adversary/margin": "margin"},
        label="margin",
        caption="How much higher the discriminator scores pictures than reconstructions: 0 when it cannot "
        "tell them apart",
    ),
    Course(
        curves={"adversary/weight": "weight"},
        label="weight",
        caption="Adaptive weight of the adversarial loss, which balances gradients at the last layer",
    ),
    Course(
        curves={"latents/mean": "mean", "latents/std": "deviation"},
        label="value",
        caption="Mean and deviation of a picture's latents, before any scale",
    ),
    Course(
        curves={f"{HELD_OUT}codebook/usage": "held out", "codebook/usage": "learned from"},
        label="share",
        caption="Share of the codes that are chosen: of the last steps' pictures, and of held-out ones",
    ),
    Course(
        curves={f"{HELD_OUT}codebook/perplexity": "held out", "codebook/perplexity": "learned from"},
        label="codes",
        caption="Perplexity: as many codes, used equally, would say as much",
    ),
)
LOGVAR = Course(
    curves={"logvar": "log variance"},
    label="log variance",
    caption="Log variance of reconstructions, which is learned: the smaller, the more their error counts",
)


def sections(settings: AutoencoderConfig, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """How near reconstructions come, then the read-outs of health; those that the run has."""
    health = (*HEALTH, LOGVAR) if settings.learn_logvar else HEALTH
    near = figures(log, (PSNR, SSIM, *_of_features(log)))
    return [
        html.section("How near they come", html.paragraph(SEEN_BY), near),
        html.section("Health", figures(log, health)),
    ]


def _of_features(log: Sequence[Mapping[str, Any]]) -> list[Course]:
    """The perceptual distance, beside that of the pictures learned from, and the Frechet distance.

    Their names in the log say by which features.
    """
    known = {"psnr", "ssim", "codebook/usage", "codebook/perplexity"}
    names = {name.removeprefix(HELD_OUT): None for line in log for name in line if name.startswith(HELD_OUT)}
    courses = []
    for name in names:
        if name in known:
            continue
        curves = {HELD_OUT + name: "held out"}
        caption = f"Perceptual distance, {name}: lower is better, 0 for equal pictures"
        if name.startswith("FD["):
            caption = (
                f"Frechet distance of held-out pictures and theirs, {name}: few of them, so biased alike"
            )
        else:
            curves["loss/perceptual"] = "learned from"
        courses.append(Course(curves=curves, label="distance", caption=caption))
    return courses

"""What steers a model besides its conditions: a noisy classifier, a weaker model to be guided away from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from unnoise.config.model import LatentConfig
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.guidance import Guide, Strength, classifier_guide
from unnoise.model import Model, load_model
from unnoise.modelfile import find_model
from unnoise.noisy_classifier import NoisyClassifier, load_noisy_classifier

OF_ITS_LATENTS = "train one with --first-stage MODEL, whose first stage and scale it then knows"
"""The way out for companions that know other latents than the model draws."""


@dataclass(frozen=True, eq=False)
class Steering:
    """The companions that a request names, loaded where the model is and checked against it."""

    classifier: NoisyClassifier | None = None
    weaker: Model | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that pictures depend on, by the field of the request that names them."""


def load_steering(model: Model, request: GenerateRequest, dtype: torch.dtype) -> Steering:
    """Load the request's classifier and weaker model; ValueError when they do not fit the model.

    A companion whose scale is off is not loaded.
    """
    _check(request)
    classifier, weaker, files = None, None, {}
    if request.classifier and request.scale != 0:
        classifier = load_noisy_classifier(request.classifier, model.device)
        check_classifier(model, classifier, request.classifier)
        classifier.network.compute_dtype = None if dtype == torch.float32 else dtype
        files["classifier"] = _hash(request.classifier)
    if request.weaker and request.weaker_scale != 1:
        weaker = load_model(request.weaker, model.device)
        check_weaker(model, weaker, request.weaker)
        files["weaker"] = _hash(request.weaker)
    return Steering(classifier, weaker, files)


def _check(request: GenerateRequest) -> None:
    """Refuse options that have nothing to act on."""
    if request.scale is not None and not request.classifier:
        raise ValueError(
            f"scale={request.scale:g} is a classifier's, and none is named; name one with classifier, or use "
            "guidance, which needs none"
        )
    if request.guide_at != "x_t" and not request.classifier:
        raise ValueError(
            f"guide_at={request.guide_at} is where a classifier is asked, and none is named; name one with "
            "classifier, or leave it out"
        )
    if request.weaker_scale != GenerateRequest().weaker_scale and not request.weaker:
        raise ValueError(
            f"weaker_scale={request.weaker_scale:g} leads away from a weaker model, and none is named; name "
            "one with weaker, or leave it out"
        )
    if not request.conditional and request.guidance != 1:
        raise ValueError(
            f"guidance={request.guidance:g} compares drawing with and without a class, and conditional=False "
            "tells none; leave one of them out"
        )


def strength(request: GenerateRequest) -> Strength:
    """At which noise levels the request's guidance acts, and how much."""
    low, high = request.guidance_interval or (0.0, float("inf"))
    return Strength(low, high, request.guidance_course)


FOLDED_BELOW = 300.0
"""sigma/alpha above which a score is not shifted unless an interval is given. Where next to nothing is left
of the picture, as at the first step of a cosine schedule (640), one step multiplies the gradient by the ratio
of two alphas (40 in 25 steps), and no trained classifier's is small enough for that. ADM's linear schedule
ends at 157.
"""


def guide(request: GenerateRequest, steering: Steering, *, folded: bool) -> Guide | None:
    """The classifier's gradient, None without a classifier. folded: it shifts the score, not the mean."""
    if steering.classifier is None:
        return None
    scale = 1.0 if request.scale is None else request.scale
    when = strength(request)
    if folded and request.guidance_interval is None:
        when = replace(when, high=FOLDED_BELOW)
    return classifier_guide(steering.classifier.network, scale, strength=when)


def check_classifier(model: Model, classifier: NoisyClassifier, name: str) -> None:
    """Refuse a classifier that was made for other pictures, other noise or other classes."""
    settings, config = classifier.config.network, model.config
    _same_latents(name, "classifier", model, classifier.config.latent, classifier.config.latent_scale)
    channels, side, _ = config.shape
    pixels = 1 if config.latent is None else config.latent.factor
    if not classifier.config.noised:
        raise ValueError(
            f"{name}: the classifier learned from clean pictures alone (noisy_classifier.noised=false); name "
            "one trained with noise"
        )
    _same(name, "classifier", "a side of", (settings.image_size or 0) * pixels, side * pixels, "pixels")
    _same(name, "classifier", "", settings.in_channels, channels, "channels")
    _same_noise(name, "classifier", model, classifier)
    rows = config.class_rows
    if rows is not None:
        known = model.classes or tuple(map(str, range(rows - (model.null_label is not None))))
        _same_classes(
            name, "classifier", classifier.classes, settings.classes or 0, known, bool(model.classes)
        )


def check_weaker(model: Model, weaker: Model, name: str) -> None:
    """Refuse a weaker model that draws other pictures or latents, learned other noise or other classes."""
    scale = () if weaker.first_stage is None else weaker.first_stage.scale
    _same_latents(name, "weaker model", model, weaker.config.latent, scale)
    _same(name, "weaker model", "a side of", weaker.config.image_size, model.config.image_size, "pixels")
    _same(name, "weaker model", "", weaker.config.channels, model.config.channels, "channels")
    kinds = [(m.config.low_res, m.config.low_res_noise > 0) for m in (weaker, model)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{name}: only an upsampler guides an upsampler, from the same size, and both trained with noise "
            "on the small pictures or both without; name such a one"
        )
    _same_noise(name, "weaker model", model, weaker)
    rows = weaker.config.class_rows
    if rows is None:
        return
    if model.config.class_rows is None:
        raise ValueError(
            f"{name}: the weaker model is told classes and the model knows none; name an unconditional one"
        )
    if (rows, weaker.null_label) != (model.config.class_rows, model.null_label):
        raise ValueError(
            f"{name}: the weaker model has {rows} class rows (null class {weaker.null_label}), the model "
            f"{model.config.class_rows} (null class {model.null_label}); name one trained on the same "
            "classes with the same label dropout"
        )
    known, other = model.classes, weaker.classes
    _same_classes(name, "weaker model", other, len(other), known, bool(known))


def _same_latents(
    name: str, what: str, model: Model, theirs: LatentConfig | None, scale: tuple[float, ...]
) -> None:
    """Refuse a companion that knows pixels beside latents, those of another first stage, or otherwise scaled.

    theirs, scale: what it knows.
    """
    ours, stage = model.config.latent, model.first_stage
    if theirs == ours:
        return
    if theirs is None or ours is None or stage is None:
        knows, draws = ("latents", "pixels") if ours is None else ("pixels", "latents")
        raise ValueError(f"{name}: the {what} knows {knows} and the model draws {draws}; {OF_ITS_LATENTS}")
    fitting = theirs.channels == ours.channels and theirs.factor == ours.factor
    if fitting and replace(stage, scale=scale or (1.0,)).hash == theirs.first_stage:
        raise ValueError(
            f"{name}: the {what} knows latents scaled by {_numbers(scale)} and the model draws them "
            f"scaled by {_numbers(stage.scale)}; {OF_ITS_LATENTS}"
        )
    raise ValueError(
        f"{name}: the {what} knows the latents of another first stage ({theirs.first_stage}) than the model "
        f"draws ({ours.first_stage}); {OF_ITS_LATENTS}"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _same(name: str, what: str, prefix: str, theirs: int | None, ours: int | None, unit: str) -> None:
    if theirs != ours:
        before = f"{prefix} " if prefix else ""
        raise ValueError(
            f"{name}: the {what} is for {before}{theirs} {unit} and the model for {before}{ours}; "
            "name one that was trained on the same pictures"
        )


def _same_noise(name: str, what: str, model: Model, other: Model | NoisyClassifier) -> None:
    a, b = model.schedule, other.schedule
    if (
        a.steps != b.steps
        or not torch.allclose(a.betas, b.betas)
        or not torch.equal(a.timesteps, b.timesteps)
    ):
        ours, theirs = model.config.schedule, other.config.schedule
        raise ValueError(
            f"{name}: the {what} knows the noise of a {theirs.name} schedule of {theirs.steps} steps and the "
            f"model that of {ours.name} with {ours.steps}; train one with the model's schedule"
        )


def _same_classes(
    name: str, what: str, theirs: Sequence[str], count: int, ours: Sequence[str], named: bool
) -> None:
    if count != len(ours):
        raise ValueError(
            f"{name}: the {what} knows {count} classes and the model {len(ours)}; name one of the same ones"
        )
    for index, (other, own) in enumerate(zip(theirs, ours, strict=False)):
        if named and other != own:
            raise ValueError(
                f"{name}: class {index} is {other!r} to the {what} and {own!r} to the model; name one of the "
                "same classes in the same order"
            )


def _hash(path: str) -> str:
    with open(find_model(Path(path)), "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

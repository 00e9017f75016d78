"""A request made ready for one model: the only place that puts guidance, clipping and sampler together."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unnoise.classes import find_class
from unnoise.config.load import from_dict, nearest, to_dict
from unnoise.config.model import ModelConfig
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.guidance import Guide, classifier_free, two_models
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.schedule import At, NoiseSchedule
from unnoise.diffusion.spacing import grid, plain_count
from unnoise.diffusion.transforms import clip_x0, dynamic_threshold
from unnoise.gan import GanModel
from unnoise.gan_planning import GanPlan, plan_gan
from unnoise.images import to_pixels
from unnoise.low_res import LowRes, SmallPictures, find_low_res, labels_shown
from unnoise.model import Model
from unnoise.networks.precision import compute_dtype
from unnoise.patchwise import patchwise
from unnoise.steering import Steering, guide, load_steering, strength
from unnoise.telling import Telling, open_telling
from unnoise.tiles import Tiling
from unnoise.untold import Untold, nulls, why_no_null

DECODED = 2**20
"""Pixels that a first stage decodes at once: larger pictures are decoded in tiles."""
TILE = 256
"""Side of those tiles, pixels."""
SAMPLER_OPTIONS = ("eta", "temperature", "solver_order", "guide_at")
"""Fields of GenerateRequest that belong to the samplers that have a field of this name."""
TRAILING = ("dpmpp-2m", "dpmpp-3m", "unipc")
"""Samplers for which a plain count of steps is a trailing one. Even steps end with one from t = 0 to the
picture, in log-SNR several times as long as the one before, through which these extrapolate."""
LARGEST = 2**30
"""Pixels of a picture."""
LAST = 2**62
"""Index of a first picture, which data sets count in 64 bits."""
Transform = Callable[[Denoise], Denoise]


@dataclass(frozen=True, eq=False)
class Plan:
    """A request made ready for one model: everything checked, nothing drawn."""

    request: GenerateRequest
    """With the guidance and the steps that it means."""
    model: Model
    sampler: Any
    schedule: NoiseSchedule
    labels: tuple[int, ...]
    """Classes that the pictures take in turn; empty where nothing knows classes."""
    classes: tuple[str, ...]
    """Names of all classes, their numbers where they have none; empty without classes."""
    low_res: LowRes | None
    """The small pictures that an upsampler enlarges."""
    telling: Telling | None
    """What the model is told besides the class."""
    denoise: Denoise
    guided: Denoise
    """The same before its x0 is clipped, which leaves no gradient."""
    clip: Transform
    """That clipping."""
    guide: Guide | None
    """A classifier's gradient."""
    files: Mapping[str, str]
    """SHA-256 of each file besides the model's that the pictures depend on, by the field that names it."""
    shape: tuple[int, int, int]
    """(C, H, W) of what is drawn: a picture, or its latents."""
    dtype: torch.dtype
    """Type that the network computes in."""

    @property
    def steps(self) -> int:
        """Steps from noise to picture."""
        return self.schedule.steps

    @property
    def precision(self) -> str:
        """Name of the type that the network computes in."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.device

    @property
    def picture(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        _, height, width = self.shape
        latent, channels = self.model.config.latent, self.model.config.channels
        factor = 1 if latent is None else latent.factor
        assert channels, "settings are complete"
        return channels, height * factor, width * factor

    def to_pixels(self, x: Tensor) -> Tensor:
        """uint8 (B, H, W, C) on the CPU of what was drawn."""
        return torch.cat([to_pixels(images).cpu() for images in self.decode(x)])

    def decode(self, x: Tensor) -> Iterator[Tensor]:
        """Images (b, C, H, W), nominally in [-1, 1], of what was drawn, few at once where they are large."""
        _, height, width = self.picture
        some = max(1, DECODED // (height * width))
        tile = self.request.patch or (None if height * width <= DECODED else TILE)
        return (self.model.decode(part, tile=tile) for part in x.split(some))

    @property
    def step(self) -> int:
        """Pixels: both sides of a picture are a multiple of this."""
        return size_step(self.model.config)

    @property
    def purpose(self) -> str:
        """Of the noise: that of an upsampler is another than that of the model before it, at one seed."""
        return "noise" if self.low_res is None else f"noise at {self.model.config.image_size}"

    @property
    def ids(self) -> range:
        """The pictures asked for."""
        return range(self.request.first, self.request.first + self.request.n)

    def label(self, k: int) -> int | None:
        """The class of picture k."""
        return self.labels[k % len(self.labels)] if self.labels else None

    def name(self, k: int) -> str:
        """The class name of picture k; "" without a class."""
        label = self.label(k)
        return "" if label is None or label >= len(self.classes) else self.classes[label]

    @property
    def turn(self) -> list[str]:
        """Names of the classes that pictures take in turn; empty where small pictures bring their own."""
        if self.low_res is not None and not self.request.labels:
            return []
        return [name for k in range(len(self.labels)) if (name := self.name(k))]


def plan(
    model: Model | GanModel,
    request: GenerateRequest,
    *,
    low_res: LowRes | None = None,
    telling: Telling | None = None,
) -> Plan | GanPlan:
    """Check a request against a model. ValueError says what does not fit and what would.

    `low_res` gives an upsampler small pictures other than those that the request names, `telling` what any
    model is told.
    """
    request = from_dict(GenerateRequest, to_dict(request))
    _check_numbers(request)
    request = _advised(model, request)
    if isinstance(model, GanModel):
        return plan_gan(model, request)
    _check_sampler(request)
    request = _spaced(request)
    config = model.config
    low_res = find_low_res(config, request, low_res)
    dtype = compute_dtype(request.precision, model.device)
    shape = _drawn_shape(config, request)
    sampler, schedule = _sampler(request), grid(request.steps, model.schedule)
    steering = load_steering(model, request, dtype)
    teller = telling.teller if telling else model.teller_with(request.text_encoder)
    telling = telling or open_telling(teller, request)
    untold = {} if request.guidance == 1 else nulls(model, teller, request.guidance)
    classes = _classes(model, steering)
    nobody = None if steering.classifier else model.null_label
    own = low_res is None or request.labels
    guided, clip = _guided(model, request, dtype, steering, shape, untold), _clip(model, request)
    if request.labels and not (request.conditional or request.classifier):
        raise ValueError(
            f"label {request.labels[0]!r}: conditional=False tells the model no class, and no classifier "
            "leads towards it; leave one of them out, or name a classifier"
        )
    if own and (request.conditional or nobody is None):
        labels = _labels(classes, request.labels)
    else:
        labels = (nobody,) if own else labels_shown(low_res, classes, nobody)
    return Plan(
        request=request,
        model=model,
        sampler=sampler,
        schedule=schedule,
        labels=labels,
        classes=classes,
        low_res=low_res,
        telling=telling,
        denoise=clip(guided),
        guided=guided,
        clip=clip,
        guide=guide(request, steering, folded=not sampler.shifts_mean),
        files=steering.files if telling is None else {**steering.files, **telling.files},
        shape=shape,
        dtype=dtype,
    )


def every_small_picture(ready: Plan | GanPlan) -> Plan | GanPlan:
    """The plan to enlarge each small picture that there is once, from the first one asked for."""
    low_res, first = ready.low_res, ready.request.first
    if not isinstance(low_res, SmallPictures) or first >= low_res.count:
        return ready
    return replace(ready, request=replace(ready.request, n=low_res.count - first))


def _advised(model: Model | GanModel, request: GenerateRequest) -> GenerateRequest:
    """The request with the guidance that the model advises, where it names none."""
    if request.guidance is not None:
        return request
    other = request.classifier or request.weaker or not request.conditional
    return replace(request, guidance=1.0 if other else model.info.guidance)


def _spaced(request: GenerateRequest) -> GenerateRequest:
    """The request with its steps spaced as its sampler wants them, where it says nothing but how many."""
    count = plain_count(request.steps)
    if count is None or request.sampler not in TRAILING:
        return request
    return replace(request, steps=f"trailing{count}")


def _in_dtype(model: Model, dtype: torch.dtype) -> Denoise:
    """The model's denoiser, computing in `dtype` whatever the network is set to; its answers are float32."""
    network = model.network

    def typed(x: Tensor, at: At, cond: Condition) -> Prediction:
        before = network.compute_dtype
        network.compute_dtype = None if dtype == torch.float32 else dtype
        try:
            return model.denoiser(x, at, cond)
        finally:
            network.compute_dtype = before

    return typed


def _check_numbers(request: GenerateRequest) -> None:
    for name, least in (("n", 1), ("first", 0), ("batch_size", 1)):
        value = getattr(request, name)
        if value < least:
            raise ValueError(f"{name}={value} is too small; use {least} or more")
    if request.first > LAST:
        raise ValueError(f"first={request.first} is too large; use up to {LAST}")
    for text in request.prompts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"prompt {text!r} has bytes that are no UTF-8; write it in UTF-8") from None


def _check_sampler(request: GenerateRequest) -> None:
    if request.truncation is not None:
        raise ValueError(
            f"truncation={request.truncation:g} is for GANs; this is a diffusion model, which trades "
            "diversity for quality by guidance: leave it out"
        )
    if request.sampler not in SAMPLERS or SAMPLERS[request.sampler].ascends:
        known = [name for name, kind in SAMPLERS.items() if not kind.ascends]
        raise ValueError(
            f"sampler={request.sampler!r} does not draw pictures{nearest(request.sampler, known)} "
            f"(there are: {', '.join(known)})"
        )


def _sampler(request: GenerateRequest) -> Any:
    """The sampler with its options; an option that it does not have must be left at its default."""
    kind = SAMPLERS[request.sampler]
    has = {field.name for field in dataclasses.fields(kind)}
    for name in SAMPLER_OPTIONS:
        if name not in has and getattr(request, name) != getattr(GenerateRequest(), name):
            raise ValueError(
                f"{name}={getattr(request, name)} means nothing to sampler {request.sampler}; "
                f"leave it out, or use {' or '.join(_samplers_with(name))}"
            )
    return kind(**{name: getattr(request, name) for name in SAMPLER_OPTIONS if name in has})


def _samplers_with(option: str) -> list[str]:
    return [
        name
        for name, kind in SAMPLERS.items()
        if not kind.ascends and option in {field.name for field in dataclasses.fields(kind)}
    ]


def _classes(model: Model, steering: Steering) -> tuple[str, ...]:
    """Names of the classes that can be asked for, numbers where they have none; empty without classes."""
    if model.config.class_rows is not None:
        return model.class_names
    classifier = steering.classifier
    if classifier is None:
        return ()
    return classifier.classes or tuple(map(str, range(classifier.config.network.classes or 0)))


def size_step(config: ModelConfig) -> int:
    """Pixels: both sides of what a model draws are a multiple of this."""
    return (1 if config.latent is None else config.latent.factor) * config.network.size_factor


def _drawn_shape(config: ModelConfig, request: GenerateRequest) -> tuple[int, int, int]:
    """(C, H, W) of what is drawn for a request. ValueError for sides that the model cannot draw."""
    channels, *sides = config.shape
    factor = 1 if config.latent is None else config.latent.factor
    step = size_step(config)
    for number, (name, side) in enumerate((("height", request.height), ("width", request.width))):
        if side is None:
            continue
        if config.low_res is not None:
            raise ValueError(f"{name}={side}: this model is an upsampler, its size is fixed; leave it out")
        if side < step or side % step:
            fitting = max(1, side // step) * step
            raise ValueError(f"{name}={side} is no multiple of {step}, as this model needs; use {fitting}")
        sides[number] = side // factor
    pixels = sides[0] * sides[1] * factor**2
    if pixels > LARGEST:
        raise ValueError(f"height x width is {pixels:,} pixels; use sides of up to {LARGEST:,} together")
    return channels, sides[0], sides[1]


def _squares(model: Model, patch: int) -> Tiling:
    """Squares of `patch` pixels that overlap by half."""
    config = model.config
    factor = 1 if config.latent is None else config.latent.factor
    step = 2 * size_step(config)
    if patch < step or patch % step:
        nearest_one = max(1, patch // step) * step
        raise ValueError(f"patch={patch} is no multiple of {step}, as this model needs; use {nearest_one}")
    size = patch // factor
    return Tiling(size=size, stride=size // 2)


def _labels(classes: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    """Class indices that the pictures take in turn."""
    if wanted and not classes:
        raise ValueError(
            f"label {wanted[0]!r}: this model is unconditional, it knows no classes; leave labels out, or "
            "name a classifier that guides it"
        )
    return tuple(find_class(label, classes) for label in wanted) or tuple(range(len(classes)))


def _guided(
    model: Model,
    request: GenerateRequest,
    dtype: torch.dtype,
    steering: Steering,
    shape: tuple[int, int, int],
    untold: Mapping[str, Any],
) -> Denoise:
    """The network beside a weaker one, under classifier-free guidance."""
    denoise = _told(model, request, dtype, shape)
    if request.patch is not None:
        denoise = patchwise(denoise, _squares(model, request.patch))
    if steering.weaker is not None:
        weaker = _told(steering.weaker, request, dtype, shape)
        denoise = two_models(denoise, weaker, request.weaker_scale, strength=strength(request))
    assert request.guidance is not None, "it is advised by now"
    if request.guidance != 1:
        nothing = Untold(model, untold, shape)
        denoise = classifier_free(denoise, nothing, request.guidance, strength=strength(request))
    return denoise


def _clip(model: Model, request: GenerateRequest) -> Transform:
    """How a predicted picture is confined: outside of all guidance, whose predictions leave [-1, 1] most."""
    if request.clip == "none" or (request.clip == "auto" and model.first_stage is not None):
        return lambda denoise: denoise
    if model.first_stage is not None:
        raise ValueError(
            f"clip={request.clip} confines pictures, and this model draws latents, which have no bounds; use "
            "none, or leave it out"
        )
    if request.clip != "dynamic":
        return clip_x0
    return lambda denoise: dynamic_threshold(denoise, request.clip_percentile)


def _told(model: Model, request: GenerateRequest, dtype: torch.dtype, shape: tuple[int, int, int]) -> Denoise:
    """The model's denoiser, told the class only if the model knows classes and the request wants it told."""
    denoise = _in_dtype(model, dtype)
    if model.config.class_rows is None:
        return lambda x, at, cond: denoise(x, at, replace(cond, label=None))
    if request.conditional:
        return denoise
    if model.null_label is None:
        raise ValueError(f"conditional=False cannot work with this model: {why_no_null(model)}; leave it out")
    untold = Untold(model, {"label": model.null_label}, shape)
    return lambda x, at, cond: denoise(x, at, untold(cond))

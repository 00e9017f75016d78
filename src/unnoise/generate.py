"""From a request to pictures: a plan walked batch by batch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import from_dict
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import Constraint
from unnoise.diffusion.guidance import fold_guide
from unnoise.diffusion.low_res import with_low_res
from unnoise.diffusion.noise import Noise, SeededNoise
from unnoise.diffusion.particles import KnownPart, run_particles
from unnoise.diffusion.schedule import At
from unnoise.diffusion.walk import Sampler, run
from unnoise.distributed import choose_device
from unnoise.gan import GanModel
from unnoise.gan_planning import GanPlan
from unnoise.images import ImageBatch
from unnoise.low_res import hold_low_res
from unnoise.model import Model
from unnoise.networks.conditioned import Conditioned
from unnoise.planning import Plan, every_small_picture, plan

EXACT_BATCH = 8
"""Pictures that go through the network together when a request is `exact`, whatever its batch size."""


@dataclass(frozen=True, eq=False)
class Progress:
    """One step done for one batch; raise an exception in the callback to stop."""

    ids: tuple[int, ...]
    step: int
    """Steps done, from 1."""
    steps: int
    x: Tensor
    """(B, C, H, W) after the step, still noisy but at the last one."""
    x0: Tensor
    """(B, C, H, W), the picture that the step moved towards."""


OnStep = Callable[[Progress], None]


def generate(
    model: Model | GanModel,
    request: GenerateRequest,
    *,
    ids: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """Draw the pictures of a request, or those of its `ids`, batch by batch in order.

    Refuses at once, draws as it is iterated. `on_step` is called after every step of every batch. The network
    is in evaluation mode while pictures are drawn; it moves to the device that the request names.
    """
    if request.device != "auto":
        model.to(choose_device(request.device))
    ready = plan(model, request)
    return draw(ready, ready.ids if ids is None else ids, on_step)


def sample(model: Model | GanModel, *, on_step: OnStep | None = None, **options: Any) -> ImageBatch:
    """All pictures of a request at once; `options` are the fields of GenerateRequest, labels one or many.

    An upsampler's `low_res` may also be pictures: an ImageBatch, or uint8 (N, H, W, C). It enlarges each once
    when `n` is left out.
    """
    labels = options.get("labels", ())
    options["labels"] = [labels] if isinstance(labels, str | int) else list(labels)
    low_res = None
    if not isinstance(options.get("low_res", ""), str):
        low_res = hold_low_res(model.config, options.pop("low_res"))
    request = from_dict(GenerateRequest, options)
    if request.device != "auto":
        model.to(choose_device(request.device))
    ready = plan(model, request, low_res=low_res)
    if "n" not in options:
        ready = every_small_picture(ready)
    batches = list(draw(ready, ready.ids, on_step))
    labelled = [b.labels for b in batches if b.labels is not None]
    return ImageBatch(
        torch.cat([b.pixels for b in batches]),
        torch.cat(labelled) if labelled else None,
        sum((b.ids for b in batches), ()),
        sum((b.names for b in batches), ()),
    )


def draw(ready: Plan | GanPlan, ids: Sequence[int], on_step: OnStep | None = None) -> Iterator[ImageBatch]:
    """The pictures `ids` (increasing) of a plan, batch by batch, drawn as they are asked for."""
    # An exact request draws whole blocks of neighbours, every picture always in the same place of its block:
    # kernels round differently with the shape of a batch and the place in it.
    exact = ready.request.exact
    size = EXACT_BATCH if exact else ready.request.batch_size
    rest = list(ids)
    while rest:
        if exact:
            block = rest[0] // size
            wanted = [k for k in rest[:size] if k // size == block]
            drawn = list(range(block * size, (block + 1) * size))
        else:
            wanted = drawn = rest[:size]
        rest = rest[len(wanted) :]
        pixels = _draw(ready, drawn, on_step)
        kept = [drawn.index(k) for k in wanted]
        labels = [ready.label(k) for k in wanted] if ready.labels else None
        names = tuple(ready.name(k) for k in wanted)
        yield ImageBatch(
            pixels[kept],
            None if labels is None else torch.tensor(labels),
            tuple(wanted),
            names if any(names) else (),
        )


def _draw(ready: Plan | GanPlan, ids: list[int], on_step: OnStep | None) -> Tensor:
    """The pictures `ids` side by side through all steps; uint8 (B, H, W, C) on the CPU."""
    if isinstance(ready, GanPlan):
        images = ready.draw(ids)
        if on_step is not None:
            on_step(Progress(tuple(ids), 1, 1, images, images))
        return ready.to_pixels(images)
    like = torch.empty(len(ids), *ready.shape, device=ready.device)
    noise = SeededNoise(ready.request.seed, ids, ready.purpose)
    x = walk(
        ready, noise(like, step=-1, draw=0), ready.schedule.path(like),
        ids=ids, cond=condition(ready, ids, noise), noise=noise, on_step=on_step,
    )  # fmt: skip
    return ready.to_pixels(x)


def walk(
    ready: Plan,
    x: Tensor,
    path: Sequence[At],
    *,
    ids: Sequence[int],
    cond: Condition,
    noise: Noise,
    sampler: Sampler | None = None,
    constraint: Constraint | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Where a path leads from x (B, C, H, W), as the plan says: all of `draw` but where it begins.

    `sampler` is walked instead of the plan's, `constraint` holds a part of x; `ids` are the pictures'
    numbers, for progress and errors.
    """
    steps = len(path) - 1
    with _evaluating(ready.model):
        for step in run(
            sampler or ready.sampler, ready.denoise, x, path,
            cond=cond, noise=noise, guide=ready.guide, constraint=constraint,
        ):  # fmt: skip
            x = step.x
            if on_step is not None:
                on_step(Progress(tuple(ids), step.index + 1, steps, x, step.prediction.x0))
    return _finite(x, ids)


def walk_particles(
    ready: Plan,
    held: KnownPart,
    path: Sequence[At],
    count: int,
    *,
    like: Tensor,
    ids: Sequence[int],
    cond: Condition,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Tensor:
    """Where `count` particles a picture lead, and one is drawn of each: pictures shaped as `like`.

    The network is asked about as many pictures at once as the request's batches have.
    """
    x = noise(like[:, None].expand(-1, count, *like.shape[1:]), step=-1, draw=0)
    denoise = ready.guided if ready.guide is None else fold_guide(ready.guided, ready.guide)
    with _evaluating(ready.model):
        for cloud in run_particles(
            denoise, held, x, path, cond=cond, noise=noise, rows=ready.request.batch_size
        ):
            if on_step is not None:
                x0 = cloud.x0[:, 0]
                on_step(Progress(tuple(ids), cloud.index + 1, len(path) - 1, cloud.x[:, 0], x0))
    return _finite(cloud.drawn(noise), ids)


def _finite(x: Tensor, ids: Sequence[int]) -> Tensor:
    """x. FloatingPointError names the pictures of it that are not numbers."""
    broken = (~torch.isfinite(x)).flatten(1).any(1).tolist()
    if any(broken):
        names = ", ".join(str(k) for k, bad in zip(ids, broken, strict=True) if bad)
        raise FloatingPointError(f"not a number in picture {names}; try precision float32, or less guidance")
    return x


def condition(ready: Plan, ids: list[int], noise: Noise) -> Condition:
    """What the network is told about the pictures `ids`."""
    device = ready.device
    label = torch.tensor([ready.label(k) for k in ids], device=device) if ready.labels else None
    cond = Condition(label=label)
    if ready.telling is not None:
        cond = replace(cond, parts=ready.telling.parts(ids, device))
    cond = encoded(ready, cond)
    return cond if ready.low_res is None else enlarging(ready, cond, ready.low_res.take(ids), noise)


def encoded(ready: Plan, cond: Condition) -> Condition:
    """The condition with context and concat made of its parts, once for all steps."""
    network = ready.model.network
    if not isinstance(network, Conditioned):
        return cond
    # A class that a classifier alone knows is no part of what the network is told.
    told = cond if ready.model.config.class_rows is not None else replace(cond, label=None)
    found: Condition = replace(network.encode(told, torch.Size(ready.shape[1:])), label=cond.label)
    return found


def enlarging(ready: Plan, cond: Condition, low: Tensor, noise: Noise) -> Condition:
    """The condition of an upsampler: with small pictures (B, C, h, w), as noisy as the request says."""
    low = low.to(ready.device)
    if not ready.model.config.low_res_noise:
        return with_low_res(cond, low)
    level = torch.full((len(low),), ready.request.low_res_noise, device=ready.device)
    return with_low_res(cond, low, level=level, z=noise(low, step=-1, draw=3))


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Dropout off meanwhile, and as it was afterwards."""
    training = model.network.training
    model.network.eval()
    try:
        yield
    finally:
        model.network.train(training)

"""A cascade: a model draws small pictures, upsamplers enlarge them, batch by batch, all from one seed.

Ho et al. 2021 (arXiv 2106.15282); Dhariwal & Nichol 2021 (arXiv 2105.05233), section 4.4: guidance at the
lowest resolution alone.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise import distributed
from unnoise.classes import match_classes
from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest, UpsamplerOptions
from unnoise.generate import OnStep, draw
from unnoise.images import ImageBatch, to_images
from unnoise.job import GRID, Job, check_count, planned, run_job, save_grid
from unnoise.model import Model
from unnoise.planning import Plan, plan
from unnoise.store import RECORD, NpzFile, PngFolder, claim, identity, request_of

SHARED = ("n", "first", "seed", "batch_size", "exact", "precision")
"""Fields of the first model's request that hold for the upsamplers too."""


@dataclass(frozen=True, eq=False)
class Link:
    """One model of a cascade; `name` is what people call it."""

    model: Model
    name: str
    weights: str = ""
    """SHA-256 of its file."""


@dataclass(eq=False)
class Drawn:
    """Small pictures that the model before draws when they are asked for; a `LowRes`."""

    plan: Plan
    weights: str
    on_step: OnStep | None = None
    store: NpzFile | PngFolder | None = None
    """Where they are kept."""
    missing: set[int] = field(default_factory=set)
    """Those that the store still lacks and this process writes."""
    shown: tuple[str, ...] = ()

    def take(self, ids: Sequence[int]) -> Tensor:
        """Draw the pictures of these ids, and keep those that are missing."""
        batches = list(draw(self.plan, ids, self.on_step))
        for batch in batches:
            kept = [row for row, k in enumerate(batch.ids) if k in self.missing]
            if self.store is not None and kept:
                ids_kept = tuple(batch.ids[row] for row in kept)
                self.store.add(replace(batch, pixels=batch.pixels[kept], ids=ids_kept))
                self.missing -= set(ids_kept)
        return to_images(torch.cat([batch.pixels for batch in batches]))

    def identity(self, own: dict[str, Any]) -> dict[str, Any]:
        """The first model's, with the upsamplers in order."""
        options = {key: own[key] for key in (*to_dict(UpsamplerOptions()), "precision", "model_sha256")}
        return _appended(identity(self.plan, self.weights), options)

    def request(self, own: dict[str, Any], k: int) -> dict[str, Any]:
        """The first model's, with the options of the upsamplers in order."""
        options = {key: own[key] for key in to_dict(UpsamplerOptions())}
        return _appended(request_of(self.plan, k), options)


def _appended(before: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return before | {"upsamplers": [*before.get("upsamplers", []), options]}


def chain(links: Sequence[Link], request: GenerateRequest, options: Sequence[UpsamplerOptions]) -> list[Plan]:
    """The plan of every stage, the last one drawing on all before it; ValueError when two do not fit.

    request: of the first model; options: one for each of the others.
    """
    if len(links) < 2:
        raise ValueError("a cascade needs a model and one upsampler at least; name the upsampler too")
    if len(options) != len(links) - 1:
        raise ValueError(f"{len(options)} options are given for {len(links) - 1} upsamplers; give one each")
    _check_first(links[0], links[1])
    plans = [plan(links[0].model, request)]
    shared = {name: getattr(plans[0].request, name) for name in SHARED}
    for before, link, how in zip(links, links[1:], options, strict=False):
        _check_pair(before, link)
        wanted = GenerateRequest(**shared, **to_dict(how), labels=_labels(plans[0], links[0], link))
        try:
            plans.append(plan(link.model, wanted, low_res=Drawn(plans[-1], before.weights)))
        except ValueError as error:
            raise ValueError(f"{link.name}: {error}") from None
    return plans


def cascade(
    models: Sequence[Model], request: GenerateRequest, upsamplers: Sequence[UpsamplerOptions] | None = None
) -> Iterator[ImageBatch]:
    """The pictures of a request, drawn by the first model and enlarged by the others, batch by batch.

    upsamplers: the options of the others; None takes the defaults. Refuses at once, draws as it is iterated.
    """
    links = [Link(model, f"model {number}") for number, model in enumerate(models, 1)]
    options = [UpsamplerOptions() for _ in models[1:]] if upsamplers is None else upsamplers
    if request.device != "auto":
        for model in models:
            model.to(distributed.choose_device(request.device))
    last = chain(links, request, options)[-1]
    return draw(last, last.ids)


def _check_first(first: Link, second: Link) -> None:
    if first.model.config.low_res:
        side = first.model.config.low_res
        raise ValueError(
            f"{first.name} is an upsampler from {side}x{side}, so {second.name} cannot follow it alone; "
            "name a model that draws first, or enlarge pictures that are there: unnoise sample --low-res"
        )


def _check_pair(before: Link, after: Link) -> None:
    """Sizes and channels of two stages must chain."""
    small, large = before.model.config, after.model.config
    if large.low_res is None:
        raise ValueError(
            f"{after.name} is no upsampler, so it cannot enlarge what {before.name} draws; name an upsampler "
            f"from {small.image_size}x{small.image_size}"
        )
    if (large.low_res, large.channels) != (small.image_size, small.channels):
        raise ValueError(
            f"{before.name} draws {_shape(small.image_size, small.channels)} pictures, {after.name} enlarges "
            f"{_shape(large.low_res, large.channels)} ones; name models that chain"
        )


def _shape(side: int | None, channels: int | None) -> str:
    kind = {1: "grey", 3: "RGB"}.get(channels or 0, f"{channels}-channel")
    return f"{side}x{side} {kind}"


def _labels(first: Plan, source: Link, link: Link) -> tuple[str, ...]:
    """What an upsampler is told of the classes that the first model draws; () when it needs no telling."""
    model = link.model
    if not model.config.class_rows:
        return ()
    if not first.labels and model.null_label is None:
        raise ValueError(
            f"{source.name} draws without classes, {link.name} needs one for every picture; name models of "
            "the same classes"
        )
    theirs, ours = first.classes, model.class_names
    if _named(theirs) and _named(ours):
        try:
            found = match_classes(first.turn, ours, whose=source.name)
        except ValueError as error:
            raise ValueError(f"{error} ({link.name}); name models of the same classes") from None
        return tuple(ours[index] for index in found)
    if first.labels and len(theirs) != len(ours):  # numbers mean the same only where there are as many
        raise ValueError(
            f"{source.name} knows {len(theirs)} classes, {link.name} {len(ours)}, and not both have names to "
            "match; name models of the same classes"
        )
    return tuple(ours[label] for label in first.labels)


def _named(classes: Sequence[str]) -> bool:
    """Whether classes have names of their own, not just their numbers."""
    return list(classes) != [str(number) for number in range(len(classes))]


def run_cascade(
    plans: Sequence[Plan], job: Job, *, on_step: Callable[[int], OnStep | None] = lambda stage: None
) -> Path:
    """Draw and write whatever is missing; returns the folder, or the npz file.

    The last stage's pictures go into `job.out`, as `run_job` writes them; those of each stage before into a
    folder in it, called after their size. `on_step` gives the listener of a stage before the last. What an
    interrupted job left is kept.
    """
    last = plans[-1]
    check_count(last.request.n)
    stages = [p.low_res for p in plans[1:] if isinstance(p.low_res, Drawn)]
    store = NpzFile(job.out, last) if job.npz else PngFolder(job.out, last, job.about)
    for number, stage in enumerate(stages):
        stage.store, stage.on_step = _store(stage, job), on_step(number)
    files = itertools.chain(planned(store, job.out), *(_planned(stage, job) for stage in stages))
    distributed.on_main(lambda: claim(job.out, identity(last, job.weights), files), last.device)
    for stage in stages:
        _keep(stage, job)
    written = run_job(last, job)
    if distributed.is_main():
        for stage in stages:
            assert stage.store is not None
            stage.store.finish()
            if job.grid:
                save_grid(stage.plan, stage.store, _folder(stage, job) / GRID, job.about)
    return written


def _folder(stage: Drawn, job: Job) -> Path:
    _, height, width = stage.plan.picture
    return job.out / f"{height}x{width}"


def _store(stage: Drawn, job: Job) -> NpzFile | PngFolder:
    ready, out = stage.plan, _folder(stage, job)
    return (
        NpzFile(out, ready)
        if job.npz
        else PngFolder(out, ready, {**job.about, "model-sha256": stage.weights})
    )


def _planned(stage: Drawn, job: Job) -> Iterator[Path]:
    """All that is written into the folder of a stage."""
    out = _folder(stage, job)
    assert stage.store is not None
    return itertools.chain((out / RECORD,), planned(stage.store, out))


def _keep(stage: Drawn, job: Job) -> None:
    """Make the folder of a stage its own, and tell it what that lacks."""
    ready, store, out = stage.plan, stage.store, _folder(stage, job)
    assert store is not None
    claimed = identity(ready, stage.weights)
    distributed.on_main(lambda: claim(out, claimed, planned(store, out)), ready.device)
    mine = [ready.ids[position] for position in distributed.share(ready.request.n)]
    stage.missing = set(store.missing(mine))

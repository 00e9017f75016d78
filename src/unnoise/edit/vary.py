"""Variations: a picture is noised as far as `strength` says, and drawn from there again.

Meng et al. 2022 (SDEdit), arXiv:2108.01073, section 3, on whole pictures.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.schedule import add_noise
from unnoise.edit.pictures import Picture, Readable, read_picture
from unnoise.edit.plan import Edit, Start, descend, plan_edit
from unnoise.generate import OnStep
from unnoise.images import ImageBatch
from unnoise.model import Model


@dataclass(frozen=True, eq=False)
class Job:
    """A picture, its class, and which of its variants are wanted."""

    picture: Picture
    label: int | None
    wanted: Sequence[int]


@dataclass(frozen=True, eq=False)
class Variant:
    """What became of a picture."""

    picture: Picture
    label: int | None
    index: int
    pixels: Tensor
    """uint8 (H, W, C)."""


def vary(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """The variants of one picture after the other; refuses at once, draws as it is iterated.

    Variant k meets the noise of picture k of the same seed: at strength 1 it is that picture.
    """
    edit = plan_edit(model, request)
    known = [read_picture(picture, edit.picture, edit.request) for picture in pictures]
    ids = tuple(edit.ready.ids)
    jobs = [Job(p, label, ids) for p, label in zip(known, edit.labels(len(known)), strict=True)]
    return _grouped(edit, variants(edit, jobs, on_step), ids)


def _grouped(edit: Edit, drawn: Iterator[Variant], ids: tuple[int, ...]) -> Iterator[ImageBatch]:
    rows: list[Tensor] = []
    for variant in drawn:
        rows.append(variant.pixels)
        if len(rows) == len(ids):
            yield edit.batch(rows, [variant.label] * len(ids), ids)
            rows = []


def variants(edit: Edit, jobs: Iterable[Job], on_step: OnStep | None = None) -> Iterator[Variant]:
    """All that the jobs want, in order."""
    top, like = edit.top, torch.empty(1, *edit.shape)

    def starts() -> Iterator[Start]:
        for job in jobs:
            for k in job.wanted:
                noise = SeededNoise(edit.request.generate.seed, [k])
                x = _noised(edit, job.picture, noise(like, step=-1, draw=0), top)
                yield Start(x, noise, job.label, k, job.picture)

    for start, x in descend(edit.ready, starts(), top, on_step):
        assert start.picture is not None
        pixels = start.picture.pixels if top < 0 else edit.pixels(x[None])[0]
        yield Variant(start.picture, start.label, start.index, pixels)


def _noised(edit: Edit, picture: Picture, eps: Tensor, top: int) -> Tensor:
    """x at entry `top`: the picture with eps, and at strength 1 eps alone, as a plain sample starts."""
    if top < 0:
        return edit.walked(picture.images)
    if edit.request.strength == 1:
        return eps
    return add_noise(edit.walked(picture.images), eps, edit.ready.schedule.at(top, eps))

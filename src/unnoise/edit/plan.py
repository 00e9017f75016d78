"""An edit made ready for one model: the request checked, classes found, the way down from a noise level."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.config.load import from_dict, to_dict
from unnoise.config.requests import EditRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import Noise, RowNoise
from unnoise.distributed import choose_device
from unnoise.edit.pictures import Picture
from unnoise.generate import EXACT_BATCH, OnStep, walk
from unnoise.images import ImageBatch, to_pixels
from unnoise.model import Model
from unnoise.planning import Plan, plan

MEANT_FOR = {
    "strength": ("vary", "interpolate"),
    "mix": ("interpolate",),
    "seeds": ("interpolate",),
    "frames": ("interpolate",),
    "corrections": ("interpolate", "invert"),
}
"""Fields of EditRequest that belong to some kinds of edit only."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A request made ready for one model: everything checked, nothing drawn."""

    request: EditRequest
    ready: Plan

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what is walked: a picture, or its latents."""
        return self.ready.shape

    @property
    def picture(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        return self.ready.picture

    def walked(self, images: Tensor) -> Tensor:
        """What is walked, (B, C, H, W), of images in [-1, 1], where the images are."""
        return self.ready.model.encode(images.to(self.ready.device)).to(images.device)

    def pixels(self, x: Tensor, *, rule: str = "openai") -> Tensor:
        """uint8 (B, H, W, C) on the CPU of what was walked, rounded by `images.to_pixels`'s rule."""
        return to_pixels(self.ready.model.decode(x.to(self.ready.device)), rule=rule).cpu()

    @property
    def batch_size(self) -> int:
        """Pictures that are inverted side by side; one for `exact`, as kernels then always round alike."""
        return 1 if self.request.generate.exact else self.request.generate.batch_size

    @property
    def top(self) -> int:
        """The entry of the grid that `strength` takes pictures to: -1 leaves them, S - 1 is the noisiest."""
        return entry(self.ready, self.request.strength)

    def labels(self, count: int) -> list[int | None]:
        """The classes of `count` pictures."""
        wanted = self.request.generate.labels
        if len(wanted) > 1 and len(wanted) != count:
            raise ValueError(
                f"{len(wanted)} labels for {count} {'picture' if count == 1 else 'pictures'}; "
                "give one for all of them, or one each"
            )
        if wanted:
            found = self.ready.labels
            return list(found) if len(found) > 1 else [found[0]] * count
        return [_without_a_class(self.ready)] * count

    def name(self, label: int | None) -> str:
        """A class as people call it; "" for none, the null class too."""
        classes = self.ready.classes
        return classes[label] if label is not None and label < len(classes) else ""

    def batch(self, pixels: Sequence[Tensor], labels: Sequence[int | None], ids: Sequence[int]) -> ImageBatch:
        """Results, uint8 (H, W, C) each, as one batch."""
        names = tuple(self.name(label) for label in labels)
        known = [label for label, name in zip(labels, names, strict=True) if label is not None and name]
        whole = len(known) == len(ids)
        return ImageBatch(
            torch.stack(list(pixels)),
            torch.tensor(known) if whole else None,
            tuple(ids),
            names if whole else (),
        )

    def refuse_noise(self, why: str) -> None:
        """ValueError when the sampler adds noise."""
        request = self.request.generate
        if self.ready.sampler.order is None or request.eta > 0:
            with_eta = f" with eta={request.eta:g}" if request.eta else ""
            raise ValueError(
                f"sampler {request.sampler}{with_eta} adds noise, and {why}; use ddim with eta=0, or another "
                "one without noise"
            )


def plan_edit(model: Model, request: EditRequest) -> Edit:
    """Check a request against a model, which moves to the device that it names. ValueError says what does not
    fit.
    """
    request = from_dict(EditRequest, to_dict(request))
    for name, kinds in MEANT_FOR.items():
        if request.kind not in kinds and getattr(request, name) != getattr(EditRequest(), name):
            raise ValueError(
                f"{name}={getattr(request, name)!r} means nothing to {request.kind}; leave it out "
                f"(it belongs to {' and '.join(kinds)})"
            )
    if not 0 <= request.strength <= 1:
        raise ValueError(
            f"strength={request.strength:g} is outside 0 to 1; 0 leaves a picture as it is, 1 nothing of it"
        )
    if request.kind == "interpolate" and request.mix == "x_T" and request.strength != EditRequest().strength:
        raise ValueError(
            f"strength={request.strength:g} means nothing to interpolate in x_T, which goes all the way to "
            "noise; leave it out, or use mix x_t"
        )
    if request.corrections < 0:
        raise ValueError(f"corrections={request.corrections} is too small; use 0 (none) or more")
    if request.frames < 2:
        raise ValueError(f"frames={request.frames} is too small; use 2 (the ends alone) or more")
    side = model.config.low_res
    if side:
        raise ValueError(
            f"this model is an upsampler: it enlarges pictures of {side}x{side} and edits none; name a model "
            "that draws without one"
        )
    if request.generate.device != "auto":
        model.to(choose_device(request.generate.device))
    edit = Edit(request, plan(model, request.generate))
    edit.labels(max(1, len(request.generate.labels)))  # refuses at once where no class cannot be
    return edit


def entry(ready: Plan, strength: float) -> int:
    """The noisiest entry of the plan's grid whose t is at most `strength` times the last t of training.

    -1, the picture itself, for strength 0 alone.
    """
    if strength == 0:
        return -1
    reached = strength * ready.model.schedule.timesteps[-1].item()
    count = int((ready.schedule.timesteps <= reached + 1e-9).sum())
    if strength == 1:
        count = ready.schedule.steps
    if count == 0:
        least = ready.schedule.timesteps[0].item() / ready.model.schedule.timesteps[-1].item()
        raise ValueError(
            f"strength={strength:g} is less than the first of steps={ready.request.steps}; use 0, or "
            f"{least:.2g} or more, or more steps"
        )
    return count - 1


def _without_a_class(ready: Plan) -> int | None:
    """What an edit that names no class tells the network; ValueError where that cannot be."""
    model, request = ready.model, ready.request
    if request.guidance != 1 or ready.guide is not None:
        raise ValueError("guidance leads towards a class, and none is named; name one with label")
    if model.config.class_rows is None:
        return None
    if model.null_label is None:
        raise ValueError(
            "this model was trained without label dropout, so it cannot draw without a class; name one with "
            "label"
        )
    return model.null_label


@dataclass(frozen=True, eq=False)
class Start:
    """One result that is to be drawn."""

    x: Tensor
    """(1, C, H, W) at the noise level that it starts from."""
    noise: Noise
    """Of a batch of one."""
    label: int | None
    index: int
    """Its number among the results of its picture."""
    picture: Picture | None = None
    """What it is made of; None where it is made of several."""


def descend(
    ready: Plan, starts: Iterable[Start], top: int, on_step: OnStep | None = None
) -> Iterator[tuple[Start, Tensor]]:
    """Every start and what it becomes, (C, H, W), walking down from entry `top`; drawn as it is asked for."""
    for rows, kept in _batches(starts, ready.request.batch_size, exact=ready.request.exact):
        if top < 0:
            yield from ((rows[k], rows[k].x[0]) for k in kept)
            continue
        x = torch.cat([start.x for start in rows]).to(ready.device)
        drawn = walk(
            ready, x, ready.schedule.path(x, start=top),
            ids=[start.index for start in rows], cond=condition(ready, [start.label for start in rows]),
            noise=RowNoise([start.noise for start in rows]), on_step=on_step,
        )  # fmt: skip
        yield from ((rows[k], drawn[k]) for k in kept)


def condition(ready: Plan, labels: Sequence[int | None]) -> Condition:
    """The classes of a batch, all of them set or none."""
    if any(label is None for label in labels):
        assert all(label is None for label in labels), "a model knows classes or does not"
        return Condition()
    return Condition(label=torch.tensor(labels, device=ready.device))


def _batches(starts: Iterable[Start], size: int, *, exact: bool) -> Iterator[tuple[list[Start], list[int]]]:
    """Rows for the network and those of them that count: as many as it takes, or for `exact` a batch of fixed
    size with each result in its fixed place, and copies in the others.
    """
    rows: list[Start] = []
    for start in starts:
        if rows and (_place(start) <= _place(rows[-1]) if exact else len(rows) == size):
            yield _in_places(rows) if exact else (rows, list(range(len(rows))))
            rows = []
        rows.append(start)
    if rows:
        yield _in_places(rows) if exact else (rows, list(range(len(rows))))


def _place(start: Start) -> int:
    return start.index % EXACT_BATCH


def _in_places(starts: Sequence[Start]) -> tuple[list[Start], list[int]]:
    rows = [starts[0]] * EXACT_BATCH
    for start in starts:
        rows[_place(start)] = start
    return rows, [_place(start) for start in starts]

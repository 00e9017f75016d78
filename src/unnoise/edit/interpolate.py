"""From one picture to the next: between seeds, inverted pictures, or pictures noised half-way.

In x_T: Song, Meng, Ermon 2021 (DDIM), arXiv:2010.02502, appendix D.5. In x_t: Ho, Jain, Abbeel 2020 (DDPM),
arXiv:2006.11239, section 4.3.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.config.load import LARGEST_SEED
from unnoise.config.requests import EditRequest
from unnoise.diffusion.interpolation import SlerpNoise, mix_noised, slerp
from unnoise.diffusion.noise import SeededNoise
from unnoise.edit.descent import Route, Start, descend
from unnoise.edit.invert import Code, batches, check_code, encode
from unnoise.edit.pictures import Picture, Readable, read_picture
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.telling import Told
from unnoise.generate import OnStep
from unnoise.images import ImageBatch
from unnoise.model import Model
from unnoise.planning import Plan


@dataclass(frozen=True, eq=False)
class End:
    """One of the pictures that are gone between."""

    name: str
    x: Tensor
    """(1, C, H, W): x_T; for a mix in x_t the picture."""
    noise: SeededNoise
    """What a sampler that adds noise meets here; in x_t also what the picture is noised with."""
    told: Told


def interpolate(
    model: Model,
    ends: Sequence[Readable | Picture | Code],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> ImageBatch:
    """The pictures from one end to the next, `request.frames` between two, both counted.

    Ends are the pictures and codes given, then those of `request.seeds`.
    """
    edit = plan_edit(model, request)
    known = [end if isinstance(end, Code) else read_picture(end, edit.picture, edit.request) for end in ends]
    return between(edit, known, on_step)


def between(edit: Edit, given: Sequence[Picture | Code], on_step: OnStep | None = None) -> ImageBatch:
    """The pictures between ends that are read already."""
    request = edit.request
    check_ends(edit, given)
    ends = find_ends(edit, given, on_step)
    top = edit.top if request.mix == "x_t" else edit.ready.schedule.steps - 1
    starts = list(_starts(edit, ends, top))

    def route(ready: Plan, rows: Sequence[Start], x: Tensor) -> Route:
        return Route(ready.schedule.path(x, start=top))

    pixels = [edit.pixels(x[None])[0] for _, x in descend(edit, starts, route, on_step)]
    return edit.batch(pixels, [start.told.label for start in starts], [start.index for start in starts])


def check_ends(edit: Edit, given: Sequence[Picture | Code]) -> None:
    """ValueError when these ends cannot be joined as the request says."""
    request, pictures = edit.request, [end for end in given if isinstance(end, Picture)]
    count = len(given) + len(request.seeds)
    if count < 2:
        raise ValueError(
            f"interpolate goes from one end to another, and {count or 'none'} is given; "
            "name two or more pictures, noise files or seeds"
        )
    if request.mix == "x_t" and len(pictures) < count:
        raise ValueError(
            "mix x_t joins pictures on their way to noise; seeds and noise files are joined in x_T"
        )
    if request.mix == "x_T" and given:
        edit.refuse_noise("under it an inverted picture does not come back")
    _, height, width = edit.picture
    pixels = request.frames * height * width
    if pixels > request.max_pixels:
        raise ValueError(
            f"frames={request.frames}: side by side they have {pixels:,} pixels, more than max_pixels="
            f"{request.max_pixels:,}; use fewer, or allow more"
        )
    for text in request.seeds:
        seed_of(text)
    for end in given:
        if isinstance(end, Code):
            check_code(edit, end)


def seed_of(text: str) -> tuple[int, int]:
    """Seed and picture of "7" or "7:3"."""
    found = re.fullmatch(r"\s*(\d+)(?::(\d+))?\s*", text)
    if not found:
        raise ValueError(f"seeds={text!r} is no seed; write 7, or 7:3 for picture 3 of seed 7")
    seed, k = int(found[1]), int(found[2] or 0)
    if max(seed, k) > LARGEST_SEED:
        raise ValueError(f"seeds={text!r}: a number is too large; use up to {LARGEST_SEED}")
    return seed, k


def find_ends(edit: Edit, given: Sequence[Picture | Code], on_step: OnStep | None = None) -> list[End]:
    """The ends where they are joined: pictures inverted for x_T."""
    request, ends = edit.request, []
    names = [end.name for end in given] + [f"seed {text}" for text in request.seeds]
    told = edit.told(names)
    own = [SeededNoise(request.generate.seed, [k]) for k in range(len(given))]
    codes = _codes(edit, given, told, on_step) if request.mix == "x_T" else {}
    for k, end in enumerate(given):
        x = end.x_T[None] if isinstance(end, Code) else codes[k] if k in codes else edit.walked(end.images)
        ends.append(End(end.name, x, own[k], told[k]))
    like = torch.empty(1, *edit.shape)
    for text, each in zip(request.seeds, told[len(given) :], strict=True):
        seed, k = seed_of(text)
        noise = SeededNoise(seed, [k])
        ends.append(End(f"seed {text}", noise(like, step=-1, draw=0), noise, each))
    return ends


def _codes(
    edit: Edit, given: Sequence[Picture | Code], told: Sequence[Told], on_step: OnStep | None
) -> dict[int, Tensor]:
    """x_T of the pictures among the ends, by their place."""
    places = [k for k, end in enumerate(given) if isinstance(end, Picture)]
    codes: dict[int, Tensor] = {}
    for some in batches(places, edit.batch_size):
        pictures = [end for k in some if isinstance(end := given[k], Picture)]
        noise = encode(edit, pictures, [told[k] for k in some], on_step).float().cpu()
        codes |= dict(zip(some, noise.split(1), strict=True))
    return codes


def _starts(edit: Edit, ends: Sequence[End], top: int) -> Iterator[Start]:
    """Every picture of the way. Where two ends have different classes or words, these change half-way."""
    frames = edit.request.frames
    for index in range((len(ends) - 1) * (frames - 1) + 1):
        first = min(index // (frames - 1), len(ends) - 2)
        share = index / (frames - 1) - first
        a, b = ends[first], ends[first + 1]
        told = a.told if share < 0.5 else b.told
        yield Start(_mixed(edit, a, b, share, top), SlerpNoise(a.noise, b.noise, share), told, index)


def _mixed(edit: Edit, a: End, b: End, share: float, top: int) -> Tensor:
    if edit.request.mix == "x_T":
        return slerp(a.x, b.x, share)
    at = edit.ready.schedule.at(top, a.x)
    eps, other = (end.noise(a.x, step=-1, draw=0) for end in (a, b))
    return mix_noised(a.x, b.x, at, share, eps=eps, eps_other=other)

"""Inversion: from a picture to the x_T that draws it, by DDIM walked upwards, and back.

Song, Meng, Ermon 2021 (DDIM), arXiv:2010.02502, section 5.4. Between pictures: appendix D.5.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.diffusion.noise import RecordedNoise
from unnoise.diffusion.samplers import DdimInversion
from unnoise.edit.pictures import Picture, Readable, read_picture
from unnoise.edit.plan import Edit, plan_edit
from unnoise.edit.telling import Told, condition
from unnoise.generate import OnStep, Progress, walk
from unnoise.images import ImageBatch
from unnoise.metrics.reconstruction import psnr
from unnoise.model import Model
from unnoise.tensorfile import write_tensors

Row = TypeVar("Row")
METADATA_KEY = "unnoise-x_T"
NONE = RecordedNoise({})
"""Nothing is drawn on the way up, or down without noise."""


@dataclass(frozen=True, eq=False)
class Code:
    """The noise that a picture is drawn from."""

    name: str
    x_T: Tensor
    """(C, H, W) float32 on the CPU."""
    alpha_bar: float
    """The noise level that it stands at: that of the grid's noisiest entry."""
    label: str = ""
    """The class that it was told on the way; "" for none."""

    @property
    def digest(self) -> str:
        """SHA-256 of the noise."""
        return hashlib.sha256(self.x_T.contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture, its noise, and what is drawn from that."""

    picture: Picture
    code: Code
    back: Tensor
    """uint8 (H, W, C)."""

    @property
    def trip(self) -> "RoundTrip":
        """What was lost on the way there and back."""
        real, fake = self.picture.pixels[None], self.back[None]
        error = (real.int() - fake.int()).abs()
        return RoundTrip(psnr(real=real, fake=fake).item(), error.float().mean().item(), int(error.max()))


@dataclass(frozen=True)
class RoundTrip:
    """By how much a picture and what is drawn from its noise differ."""

    psnr: float
    """In dB; infinite where they do not."""
    mean: float
    """Grey levels, over all pixels."""
    largest: int
    """Grey levels of the worst pixel."""


def invert(
    model: Model,
    pictures: Iterable[Readable | Picture],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[Inversion]:
    """The noise of one picture after the other and what comes back from it; refuses at once, works as it is
    iterated.
    """
    edit = plan_edit(model, request)
    known = [read_picture(picture, edit.picture, edit.request) for picture in pictures]
    return inversions(edit, zip(known, edit.told([each.name for each in known]), strict=True), on_step)


def inversions(
    edit: Edit, rows_of: Iterable[tuple[Picture, Told]], on_step: OnStep | None = None
) -> Iterator[Inversion]:
    """Pictures with their classes to noise and back, batch by batch.

    Back to pixels by rounding (EDM's rule): truncation would add half a grey level to every round trip.
    """
    edit.refuse_noise("from there no picture comes back")
    ready = edit.ready
    moves = ready.schedule.steps

    def upwards(progress: Progress) -> None:
        if on_step is not None:
            on_step(replace(progress, steps=2 * moves))

    def downwards(progress: Progress) -> None:
        if on_step is not None:
            on_step(replace(progress, step=moves + progress.step, steps=2 * moves))

    for rows in batches(rows_of, edit.batch_size):
        pictures, told = [picture for picture, _ in rows], [each for _, each in rows]
        noise = encode(edit, pictures, told, upwards)
        x = walk(
            ready, noise, ready.schedule.path(noise), ids=range(len(rows)), cond=condition(ready, told),
            noise=NONE, on_step=downwards,
        )  # fmt: skip
        back = edit.pixels(x, rule="edm")
        codes = noise.float().cpu()
        for k, (picture, each) in enumerate(rows):
            code = Code(picture.name, codes[k], level(edit), edit.name(each.label))
            yield Inversion(picture, code, back[k])


def draw_codes(
    model: Model,
    codes: Iterable[Code],
    request: EditRequest,
    *,
    on_step: OnStep | None = None,
) -> Iterator[ImageBatch]:
    """What each noise becomes under the request's classes, sampler and guidance, batch by batch.

    With the class that it was inverted under it is the picture again, with another class what that makes of
    the same noise.
    """
    edit = plan_edit(model, request)
    known = list(codes)
    for code in known:
        check_code(edit, code)
    return drawn(edit, list(zip(known, edit.told([each.name for each in known]), strict=True)), on_step)


def drawn(
    edit: Edit, rows_of: Iterable[tuple[Code, Told]], on_step: OnStep | None = None
) -> Iterator[ImageBatch]:
    """Noises with their classes to pictures; row k is the k-th of all."""
    edit.refuse_noise("under it no inverted picture comes back")
    ready, first = edit.ready, 0
    for rows in batches(rows_of, edit.batch_size):
        told, ids = [each for _, each in rows], range(first, first + len(rows))
        x = torch.stack([code.x_T for code, _ in rows]).to(ready.device)
        x = walk(
            ready, x, ready.schedule.path(x), ids=ids, cond=condition(ready, told), noise=NONE,
            on_step=on_step,
        )  # fmt: skip
        labels = [each.label for each in told]
        yield edit.batch(list(edit.pixels(x, rule="edm")), labels, ids)
        first += len(rows)


def encode(
    edit: Edit, pictures: Sequence[Picture], told: Sequence[Told], on_step: OnStep | None = None
) -> Tensor:
    """x_T (B, C, H, W) of pictures, told their classes and words, on the model's device."""
    ready = edit.ready
    x = edit.walked(torch.cat([picture.images for picture in pictures]).to(ready.device))
    return walk(
        ready, x, ready.schedule.ascent(x, start=-1),
        ids=range(len(pictures)), cond=condition(ready, told), noise=NONE,
        sampler=DdimInversion(edit.request.corrections), on_step=on_step,
    )  # fmt: skip


def level(edit: Edit) -> float:
    """alpha_bar of the noisiest entry that the edit's steps visit."""
    return float(edit.ready.schedule.alpha_bar[-1])


def check_code(edit: Edit, code: Code) -> None:
    """ValueError when the noise is not one that this edit's steps begin from."""
    if tuple(code.x_T.shape) != edit.shape:
        there, here = ("x".join(map(str, shape)) for shape in (code.x_T.shape, edit.shape))
        raise ValueError(f"{code.name}: its noise is {there} and the model draws {here}; invert it anew")
    begin = level(edit)
    if not abs(code.alpha_bar - begin) <= 1e-3 * begin + 1e-9:
        raise ValueError(
            f"{code.name}: its noise stands at alpha_bar {code.alpha_bar:.3g}, and steps="
            f"{edit.request.generate.steps} begins at {begin:.3g}; use the steps that it was inverted with"
        )


def batches(rows_of: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """The rows, `size` at a time."""
    rows: list[Row] = []
    for row in rows_of:
        rows.append(row)
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows


def save_code(path: Path | str, code: Code, facts: dict[str, str]) -> None:
    """Write a safetensors file of one tensor, x_T, atomically; `facts` are texts for its metadata."""
    header = {"name": code.name, "alpha_bar": code.alpha_bar, "label": code.label}
    write_tensors(Path(path), {"x_T": code.x_T}, {METADATA_KEY: json.dumps(header), **facts})


def load_code(path: Path | str) -> Code:
    """The noise that `save_code` wrote. ValueError when the file is another, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            if not isinstance(header, dict) or list(file.keys()) != ["x_T"]:
                raise ValueError(f"{path} holds no inverted picture; name a file that `edit invert` wrote")
            x_T = file.get_tensor("x_T")
            if x_T.dtype != torch.float32 or not torch.isfinite(x_T).all():
                raise ValueError(f"{path}: its noise is no finite float32 numbers; invert the picture anew")
            return Code(str(header["name"]), x_T, float(header["alpha_bar"]), str(header["label"]))
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file of `edit invert` ({error}); invert the picture anew"
        ) from None

"""Where an upsampler's small pictures come from: files, or memory. (A cascade draws them: cascade.py.)"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unnoise.classes import match_classes
from unnoise.config.model import ModelConfig
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.diffusion.low_res import shrink
from unnoise.images import ImageBatch, Pixels, to_images


class LowRes(Protocol):
    """The small pictures of a request: picture k is enlarged from the k-th."""

    @property
    def shown(self) -> Sequence[str]:
        """Class that pictures 0, 1, ... show, in turn, by name; empty where nobody knows."""
        ...

    def take(self, ids: Sequence[int]) -> Tensor:
        """The pictures of these ids, (B, C, h, h) float32 in [-1, 1]."""
        ...

    def identity(self, own: dict[str, Any]) -> dict[str, Any]:
        """What decides every picture, given what decides the enlarging (see store.identity)."""
        ...

    def request(self, own: dict[str, Any], k: int) -> dict[str, Any]:
        """The request that draws picture k alone, given the enlarging's own."""
        ...


@dataclass(frozen=True, eq=False)
class SmallPictures:
    """Pictures that are at hand; taken in turn when more are asked for."""

    count: int
    read: Callable[[Sequence[int]], Tensor]
    """Indices below `count` -> (B, C, h, h) float32 in [-1, 1]."""
    shown: Sequence[str] = ()
    content: str = ""
    """Hash of the pictures and their classes."""

    @staticmethod
    def held(images: Tensor, shown: Sequence[str] = ()) -> "SmallPictures":
        """Pictures in memory, (N, C, h, h)."""
        return SmallPictures(len(images), lambda chosen: images[list(chosen)], shown)

    def take(self, ids: Sequence[int]) -> Tensor:
        """The pictures of these ids."""
        return self.read([k % self.count for k in ids])

    def identity(self, own: dict[str, Any]) -> dict[str, Any]:
        """The content stands for the source, which may be moved."""
        return own | {"low_res": self.content}

    def request(self, own: dict[str, Any], k: int) -> dict[str, Any]:
        """It names the source already."""
        return own


def find_low_res(model: ModelConfig, request: GenerateRequest, given: LowRes | None) -> LowRes | None:
    """The small pictures of an upsampler, None for another model; refuses what the other kind needs.

    `given` ones stand in for those that the request names.
    """
    side, most = model.low_res, model.low_res_noise
    if side is None:
        for name in ("low_res", "shrink", "low_res_noise"):
            if getattr(request, name):
                raise _no_upsampler(f"{name}={getattr(request, name)}")
        return None
    if not 0 <= request.low_res_noise <= most:
        limit = f"use 0..{most:g}" if most else "use 0: this one was trained without"
        raise ValueError(
            f"low_res_noise={request.low_res_noise:g} is not what this upsampler was trained on; {limit}"
        )
    if given is not None:
        return given
    if not request.low_res:
        raise ValueError(
            f"this model is an upsampler: it enlarges pictures of {side}x{side} and draws none alone; name "
            "some with --low-res, or draw them with a model before it (unnoise cascade)"
        )
    return open_low_res(model, request)


def open_low_res(model: ModelConfig, request: GenerateRequest) -> SmallPictures:
    """The small pictures that a request names, for an upsampler. ValueError for those that do not fit it."""
    from unnoise.data import open_data

    side, large, channels = model.low_res, model.image_size, model.channels
    wanted = large if request.shrink else side
    assert side and wanted and channels
    # Labels of the source do not matter, and need not make sense, where the request has its own.
    labels = "none" if request.labels else "auto"
    data = open_data(DataConfig(source=request.low_res, size=wanted, labels=labels))
    report = data.report
    if report.broken:
        name, why = report.broken[0]
        raise ValueError(
            f"{len(report.broken)} pictures of {request.low_res} are broken, the first is {name} ({why}); "
            "repair them, or take them away"
        )
    if request.shrink and report.upscaled:
        raise ValueError(
            f"{report.upscaled} pictures of {request.low_res} are smaller than the {large}x{large} that are "
            "shrunk; leave shrink out if they are small pictures already"
        )
    if not request.shrink and set(report.sizes) != {f"{side}x{side}"}:
        raise ValueError(
            f"{request.low_res} has pictures of {' and '.join(list(report.sizes)[:3])}, this model enlarges "
            f"{side}x{side}; name such ones, or shrink larger ones with --shrink"
        )
    if data.channels not in (1, channels):
        raise ValueError(
            f"{request.low_res} has pictures of {data.channels} channels, this model enlarges {channels}; "
            "name such ones"
        )

    def read(chosen: Sequence[int]) -> Tensor:
        images = to_images(data.take(np.asarray(chosen, np.int64)).pixels).expand(-1, channels, -1, -1)
        return shrink(images, side) if request.shrink else images

    shown = () if data.labels is None else [data.classes[label] for label in data.labels.tolist()]
    return SmallPictures(len(data), read, shown, data.fingerprint)


def hold_low_res(model: ModelConfig, pictures: ImageBatch | Pixels) -> SmallPictures:
    """Small pictures in memory, for an upsampler: drawn ones with their classes, or uint8 (N, h, h, C)."""
    side, channels = model.low_res, model.channels
    if side is None:
        raise _no_upsampler("low_res")
    batch = pictures if isinstance(pictures, ImageBatch) else None
    pixels = torch.as_tensor(pictures if batch is None else batch.pixels)
    fits = pixels.dtype == torch.uint8 and pixels.ndim == 4 and len(pixels) > 0
    if not fits or tuple(pixels.shape[1:]) != (side, side, channels):
        raise ValueError(
            f"low_res is {_word(pixels.dtype)} {tuple(pixels.shape)}, this model enlarges "
            f"uint8 (N, {side}, {side}, {channels}); give it such pictures"
        )
    return SmallPictures.held(to_images(pixels), () if batch is None else batch.names)


def labels_shown(low_res: LowRes, classes: Sequence[str], null_label: int | None) -> tuple[int, ...]:
    """Indices of the classes that small pictures show in turn; `null_label` where nobody knows.

    ValueError for a class that is not among `classes`, and without a null class where one would be needed.
    """
    if not classes:
        return ()
    if low_res.shown:
        known = list(dict.fromkeys(low_res.shown))
        try:
            place = dict(zip(known, match_classes(known, classes, whose="the small pictures"), strict=True))
        except ValueError as error:
            raise ValueError(f"{error}; say with --label what they show") from None
        return tuple(place[name] for name in low_res.shown)
    if null_label is None:
        raise ValueError(
            "the small pictures have no classes, and nothing can be drawn here without one; say with --label "
            "what they show"
        )
    return (null_label,)


def _no_upsampler(option: str) -> ValueError:
    return ValueError(f"{option} is for upsamplers, which this model is not; leave it out")


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

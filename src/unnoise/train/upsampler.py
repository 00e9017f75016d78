"""What training an upsampler needs besides the diffusion job: noise on the small pictures, and its grid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset, order
from unnoise.diffusion.low_res import shrink
from unnoise.diffusion.noise import seeded_generator
from unnoise.generate import draw
from unnoise.images import grid, save_png, to_images, to_pixels
from unnoise.low_res import SmallPictures
from unnoise.metrics.reconstruction import psnr
from unnoise.model import Model
from unnoise.planning import plan

HEADS = ("low", "drawn", "real")
MOST_DB = 100.0
"""A PSNR is cut there, as that of equal pictures is infinite."""


def draw_augmentation(config: TrainConfig, step: int, positions: range) -> tuple[Tensor, Tensor]:
    """How noisy each small picture of a step is, and its noise: functions of (seed, place in the sequence).

    Levels (B,) float32, uniform from 0 to `model.low_res_noise`; unit noise (B, C, low_res, low_res).
    """
    model, size = config.model, config.batch_size
    assert model.low_res and model.channels
    u = torch.rand(size, generator=seeded_generator(config.seed, "levels", step))
    z = torch.empty(len(positions), model.channels, model.low_res, model.low_res)
    for row, position in zip(z, positions, strict=True):
        row.normal_(generator=seeded_generator(config.seed, "low_res", step * size + position))
    return model.low_res_noise * u[positions.start : positions.stop], z


def enlarge_some(
    model: Model,
    dataset: Dataset,
    config: TrainConfig,
    path: Path,
    *,
    count: int,
    on_step: Callable[[], None],
) -> dict[str, float]:
    """Write a grid of low | drawn | real for `count` training pictures, the same ones every time.

    Returns, for the log, the PSNR in dB of the drawn pictures against the real ones, and of both after
    shrinking: how well the drawn ones keep to what they were given.
    """
    side, large = config.model.low_res, config.model.image_size
    assert side and large
    chosen = dataset.take(order.pictures(config.seed, len(dataset), np.arange(count)))
    real = to_images(chosen.pixels)
    small = shrink(real, side)
    shown = [] if chosen.label is None else [dataset.classes[label] for label in chosen.label.tolist()]
    request = GenerateRequest(
        n=count, steps=str(config.sample_steps), seed=config.seed, precision=config.precision
    )
    ready = plan(model, request, low_res=SmallPictures.held(small, shown))
    drawn = torch.cat([batch.pixels for batch in draw(ready, ready.ids, lambda _: on_step())])
    before = to_pixels(F.interpolate(small, (large, large), mode="nearest-exact"))
    rows = torch.stack([before, drawn, chosen.pixels], dim=1).flatten(0, 1)
    columns = 3 * max(1, round(count**0.5 / 2))
    save_png(path, grid(rows, columns, HEADS * count), to_dict(request))
    return {
        "sample/psnr": _psnr(real, to_images(drawn)),
        "sample/psnr_low": _psnr(small, shrink(to_images(drawn), side)),
    }


def _psnr(real: Tensor, fake: Tensor) -> float:
    """Mean over pictures (B, C, H, W) in [-1, 1], dB."""
    a, b = ((images.permute(0, 2, 3, 1) + 1) * 127.5 for images in (real, fake))
    return float(psnr(real=a, fake=b).clamp(max=MOST_DB).mean())

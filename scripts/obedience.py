"""Does a model do what it is told? Pictures drawn for the conditions of real ones, against shuffled ones.

    python scripts/obedience.py runs/text emoji64/test --guidance 2 -n 256 --sheet text.png
    python scripts/obedience.py runs/layout scenes/pictures --boxes scenes/boxes.json

Picture k is told what real picture k says: its class, its caption, its boxes, its map, a part of itself. It
should then be nearer to that real picture than to another one, whose condition it was not told: the share of
pairs in which it is would be 50 % for a model that does not listen. Distances are of the features of
unnoise-small, of pixels, and where pictures are told in small or in grey, of what was told.

The most sensitive of all needs no drawing: real pictures are noised and denoised, told their own condition
and another one's. "denoised" is the share that comes out nearer when told its own, over ten noise levels.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.data import open_data, order
from unnoise.data.degrade import grey, resized
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.schedule import add_noise
from unnoise.distributed import choose_device
from unnoise.generate import condition, draw
from unnoise.images import save_png, to_images
from unnoise.job import sheet
from unnoise.metrics.extractors import open_features
from unnoise.model import load_model
from unnoise.planning import Plan, plan
from unnoise.telling import open_telling

LEVELS = 10


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Root mean square of the differences of rows: (N,)."""
    return (one.flatten(1) - other.flatten(1)).square().mean(1).sqrt()


def said(name: str, drawn: Tensor, real: Tensor, shuffled: Tensor) -> None:
    """One line: how often a row is nearer to its own real one than to the shuffled one; how far both are."""
    own, another = distances(drawn, real), distances(drawn, shuffled)
    share = 100 * (own < another).float().mean()
    print(f"{name:<10} nearer to its own {share:5.1f} %   {own.mean():.4f} against {another.mean():.4f}")


@torch.no_grad()
def denoised(ready: Plan, images: Tensor) -> None:
    """One line: how often a noised picture comes out nearer when told its own condition than another one's.

    The mean of squares of x0's error, each noise level's in units of its mean over the pictures.
    """
    ids = list(ready.ids)
    noise = SeededNoise(ready.request.seed, ids)
    model, others = ready.model, ids[len(ids) // 2 :] + ids[: len(ids) // 2]
    x0 = model.encode(images.to(ready.device))
    conditions = [condition(ready, which, noise) for which in (ids, others)]
    rows = []
    for number, i in enumerate(torch.linspace(0.15, 0.85, LEVELS).mul(model.schedule.steps).long()):
        at = model.schedule.at(i.expand(len(ids)), x0)
        x = add_noise(x0, noise(x0, step=number, draw=0), at)
        both = [(model.denoiser(x, at, cond).x0 - x0).square().flatten(1).mean(1) for cond in conditions]
        rows.append(torch.stack(both) / both[0].mean())
    own, another = torch.stack(rows).mean(0).cpu()
    share = 100 * (own < another).float().mean()
    print(
        f"{'denoised':<10} nearer told its own  {share:5.1f} %   "
        f"{own.mean():.4f} against {another.mean():.4f}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--boxes", default="")
    parser.add_argument("--maps", default="")
    parser.add_argument("-n", type=int, default=256)
    parser.add_argument("--steps", default="25")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    model = load_model(chosen.model, choose_device("auto"))
    told = [each.what for each in model.config.told if each.what != "class"]
    data = open_data(
        DataConfig(source=chosen.data, size=model.config.image_size, channels=model.config.channels)
    )
    n = min(chosen.n, len(data))
    request = GenerateRequest(
        n=n, steps=chosen.steps, guidance=chosen.guidance, given=chosen.data if told else "",
        given_boxes=chosen.boxes, given_maps=chosen.maps,
    )  # fmt: skip
    which = order.pictures(request.seed, len(data), np.arange(n))
    if data.labels is not None and model.config.class_rows:
        request = replace(request, labels=tuple(data.classes[label] for label in data.labels[which]))
    telling = open_telling(model.teller, request)
    ready = plan(model, request, telling=telling and replace(telling, shuffled=True))
    pixels = torch.cat([batch.pixels for batch in draw(ready, ready.ids)])
    # Another one for each: half of the way round the shuffled ones.
    real = data.take(which).pixels
    shuffled = real.roll(n // 2, 0)
    things = ", ".join(told or ["the class"])
    print(f"{chosen.model}: told {things}; {n} pictures, guidance {chosen.guidance:g}")
    network = open_features("unnoise-small")
    denoised(ready, to_images(real))
    said("features", *(network(each).pool for each in (pixels, real, shuffled)))
    images = [to_images(each) for each in (pixels, real, shuffled)]
    said("pixels", *images)
    if "grey" in told:
        said("luma", *(grey(each) for each in images))
    if "low_res" in told:
        factor = next(each.factor for each in model.config.told if each.what == "low_res")
        said("in small", *(resized(each, each.shape[2] // factor, "area") for each in images))
    if chosen.sheet:
        save_png(chosen.sheet, sheet(ready, pixels[:32].numpy()), {})


if __name__ == "__main__":
    main()

"""How much memory an evaluation takes: the peak of this process after every stage.

    python scripts/evaluate_memory.py --samples 50000 --reference 10000

Pictures of 256x256 are made up as they are asked for, and go through a projection that gives as many features
as Inception (2048, 2023 and 1008): what is measured is what unnoise keeps, not how fast a network is.
`--inception` measures the network itself instead, with random weights, on a few batches.
"""

import argparse
import json
import resource
import sys
import tempfile
import time

import torch
from torch import Tensor

from unnoise.config.requests import EvaluateRequest
from unnoise.metrics.collect import collect
from unnoise.metrics.features import PUBLISHED_INCEPTION, Features, Names
from unnoise.metrics.measures import Side, measure
from unnoise.metrics.sources import Pictures
from unnoise.networks.inception import InceptionV3, published_shapes

SIDE, POOLED = 256, 8
POOL, SPATIAL, CLASSES = 2048, 2023, 1008


class Projection:
    """A stand-in for Inception: random directions of the picture in small, clipped at 0."""

    name = PUBLISHED_INCEPTION
    weights_hash = "made up"
    preprocess = "area to 8x8"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3 * POOLED**2, POOL + SPATIAL + CLASSES, generator=generator) / 8

    def __call__(self, pixels: Tensor) -> Features:
        """Features of uint8 (B, H, W, C)."""
        part = SIDE // POOLED
        small = pixels[:, part // 2 :: part, part // 2 :: part].float().flatten(1) / 64
        pool, spatial, logits = (small @ self.weight).split([POOL, SPATIAL, CLASSES], 1)
        return Features(pool.clamp_min(0), spatial.clamp_min(0), logits.softmax(1))


def pictures(name: str, n: int, seed: int) -> Pictures:
    """n pictures of noise, made when taken."""

    def take(ids: range) -> Tensor:
        generator = torch.Generator().manual_seed(seed + ids[0])
        return torch.randint(0, 256, (len(ids), SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)

    return Pictures(name, n, (SIDE, SIDE, 3), f"{name}-{seed}", take)


def peak() -> int:
    """Peak memory of this process, MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def say(what: str, began: float) -> None:
    """One line."""
    print(f"{what}: peak {peak():,} MB, {time.monotonic() - began:.0f} s", flush=True)


def evaluation(samples: int, reference: int, neighbours: int | None) -> None:
    """Both sides and every metric."""
    began = time.monotonic()
    say("imports", began)
    network = Projection()
    request = EvaluateRequest(neighbours=neighbours)
    with tempfile.TemporaryDirectory() as cache:
        sides = {}
        for name, n, seed in (("reference", reference, 1), ("samples", samples, 10**7)):
            sides[name] = collect(pictures(name, n, seed), network, cache=cache)
            say(f"features of {n:,} {name}", began)
        real, fake = sides["reference"], sides["samples"]
        side = Side(real.frechet, real.spatial, real.table, None, {}, "", reference)
        found, _ = measure(request, Names(network.name), side, fake)
        say("every metric", began)
        print(json.dumps({m.name: round(m.value, 4) for m in found}))


def inception() -> None:
    """The network on four batches of 32."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.rand(shape, generator=generator) / 100 + 0.001 for key, shape in published_shapes().items()
    }
    network = InceptionV3(state)
    say("Inception", began)
    source = pictures("samples", 128, 0)
    with torch.no_grad():
        for begin in range(0, source.n, 32):
            network(source.take(range(begin, begin + 32)).permute(0, 3, 1, 2))
    say("four batches of 32", began)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--reference", type=int, default=10_000)
    parser.add_argument("--neighbours", type=int)
    parser.add_argument("--inception", action="store_true")
    chosen = parser.parse_args()
    if chosen.inception:
        inception()
    else:
        evaluation(chosen.samples, chosen.reference, chosen.neighbours)


if __name__ == "__main__":
    main()

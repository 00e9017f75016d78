"""The part `bfloat16`: what lower precision in a feature network would do to the numbers.

Every network with trained weights on this machine, and Inception with random ones where the published are
missing. "both" sides in bfloat16 is what a choice of precision would mean, "one" side alone what a reference
kept in float32 would make of it; "itself" is the distance between the same pictures in the two precisions,
which would be 0. The floor, real against other real pictures, says what differences mean anything.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.metrics_inception import some_state
from unnoise.config.schema import DataConfig
from unnoise.data import open_data
from unnoise.metrics.extractors import open_features
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.statistics import Moments
from unnoise.networks.inception import InceptionV3

Network = Callable[[Tensor], tuple[Tensor, Tensor]]
"""uint8 (B, H, W, C) -> features of the kernel distance and of the Frechet distance."""
PICTURES = {"unnoise-small": 2000, "effnet-lite0": 192, "inception": 64}
"""A side; few where a processor without bfloat16 would take minutes."""


def networks() -> Iterator[tuple[str, int, Network]]:
    """Name, pictures a side, network."""
    for name in ("unnoise-small", "effnet-lite0"):
        try:
            network = open_features(name)
        except ValueError as missing:
            print(f"{name}: {missing}")
            continue

        def call(pixels: Tensor, network=network) -> tuple[Tensor, Tensor]:
            found = network(pixels)
            return found.pool.float(), found.frechet.float()

        yield name, PICTURES[name], call
    state, which = some_state()
    inception = InceptionV3(state)

    def pool(pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = inception(pixels.expand(-1, -1, -1, 3).permute(0, 3, 1, 2)).pool
        return found, found

    yield f"inception, {which}", PICTURES["inception"], pool


def measured(network: Network, pixels: Tensor) -> dict[str, tuple[list[Tensor], float]]:
    """Precision -> both kinds of features of the pictures, and seconds."""
    out = {}
    for precision in ("float32", "bfloat16"):
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            parts = [network(x) for x in pixels.split(32)]
        out[precision] = ([torch.cat(x) for x in zip(*parts, strict=True)], time.perf_counter() - began)
    return out


def pictures(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real pictures, as many other real ones, and those again with noise: samples of a middling model."""
    data = open_data(DataConfig(source="fashion-mnist-10k"))
    pixels = data.take(torch.arange(2 * n)).pixels
    real, other = pixels[:n], pixels[n:]
    z = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
    return real, other, (other + 12 * z).clamp(0, 255).byte()


def frechet(a: Tensor, b: Tensor) -> float:
    return frechet_distance(real=Moments.of(a).gaussian(), fake=Moments.of(b).gaussian())


def kernel(a: Tensor, b: Tensor) -> float:
    return kernel_distance(real=a, fake=b, subset_size=min(1000, len(a))).mean


def run(args: argparse.Namespace) -> None:
    """One row a network and distance."""
    print(
        f"\nbfloat16 in the feature network, Fashion-MNIST against itself with noise, {args.threads} threads"
    )
    print(f"{'':34}{'N':>6}{'float32':>12}{'both':>12}{'one':>12}{'itself':>12}{'floor':>12}{'speed':>8}")
    for name, n, network in networks():
        sides = [measured(network, pixels) for pixels in pictures(n)]
        (real, other, fake), (real_b, _, fake_b) = (
            [side[precision][0] for side in sides] for precision in ("float32", "bfloat16")
        )
        seconds = [sum(side[precision][1] for side in sides) for precision in ("float32", "bfloat16")]
        for kind, (distance, i) in {"FD": (frechet, 1), "KID": (kernel, 0)}.items():
            pairs = ((real, fake), (real_b, fake_b), (real, fake_b), (real, real_b), (real, other))
            values = "".join(f"{distance(a[i], b[i]):12.5f}" for a, b in pairs)
            print(f"{kind + ' ' + name:34}{n:6}{values}{seconds[0] / seconds[1]:7.2f}x", flush=True)

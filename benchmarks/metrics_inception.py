"""`python -m benchmarks.metrics_inception`: images/s of the Inception network beside torch-fidelity's, same
weights, same pictures.

Without the published weights random ones do: speed and agreement do not depend on them. Also prints what
bfloat16 would do to the features.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.metrics_rivals import load
from benchmarks.metrics_timing import Contestant, race
from unnoise.metrics import weights as store
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.statistics import Moments
from unnoise.networks.inception import InceptionV3, published_shapes


def some_state() -> tuple[dict[str, torch.Tensor], str]:
    """The published weights when they are here, else random ones of sensible size."""
    try:
        return store.read(store.find(store.INCEPTION, download=False)), "published weights"
    except ValueError:
        generator = torch.Generator().manual_seed(0)
        state = {}
        for key, shape in published_shapes().items():
            z = torch.randn(shape, generator=generator)
            if key.endswith("running_var"):
                z = 1 + 0.1 * z.abs()
            elif key.endswith(".bn.weight"):
                z = 1 + 0.1 * z
            elif z.ndim > 1:
                z = z * (2 / z[0].numel()) ** 0.5
            else:
                z = 0.1 * z
            state[key] = z
        for key in [k for k in state if k.endswith("running_var")]:
            state[key.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
        return state, "random weights"


def speed(batch: int, side: int, rounds: int) -> None:
    state, which = some_state()
    ours = InceptionV3(state)
    pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    contestants = []
    module = load("torch_fidelity", "feature_extractor_inceptionv3")
    if module is None:
        print("torch-fidelity is not installed; pip install --no-deps -r benchmarks/requirements-metrics.txt")
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.pth"
            torch.save(state, path)
            theirs = module.FeatureExtractorInceptionV3(
                "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            )
        contestants.append(Contestant("torch-fidelity float32", lambda: theirs(pixels)[0]))
    contestants.append(Contestant("unnoise float32", lambda: ours(pixels).pool))
    with torch.no_grad():
        for c in contestants:
            c.call()
        race(contestants, rounds)
    print(f"\nInception, batch {batch} of {side}x{side}, {torch.get_num_threads()} threads, {which}")
    base, mine = contestants[0], contestants[-1]
    for c in contestants:
        ratio = statistics.median(a / b for a, b in zip(base.wall, c.wall, strict=True))
        cpu = statistics.median(a / b for a, b in zip(base.cpu, c.cpu, strict=True))
        print(f"{c.name:28}{batch / statistics.median(c.wall):8.2f} images/s{ratio:8.2f}x{cpu:8.2f}x (cpu)")
    error = (base.answer - mine.answer).abs().max() / base.answer.abs().max()
    print(f"agreement of the 2048 features: {error:.1e} of the largest", flush=True)


def bfloat16(n: int, batch: int = 16) -> None:
    """What bfloat16 autocast does to the features and to the distance between two sets of pictures."""
    state, which = some_state()
    network = InceptionV3(state)
    generator = torch.Generator().manual_seed(1)
    found: dict[str, list[list[torch.Tensor]]] = {"float32": [[], []], "bfloat16": [[], []]}
    with torch.no_grad():
        for set_ in range(2):
            for _ in range(0, n, batch):
                low = torch.rand(batch, 3, 6, 6, generator=generator)
                pixels = torch.nn.functional.interpolate(low, (32, 32), mode="bicubic")
                pixels = (pixels * (255 - 40 * set_)).clamp(0, 255).byte()
                found["float32"][set_].append(network(pixels).pool)
                with torch.autocast("cpu", torch.bfloat16):
                    found["bfloat16"][set_].append(network(pixels).pool)
    distances = {
        name: frechet_distance(
            real=Moments.of(torch.cat(a)).gaussian(), fake=Moments.of(torch.cat(b)).gaussian()
        )
        for name, (a, b) in found.items()
    }
    exact, rough = (torch.cat(found[k][0]) for k in ("float32", "bfloat16"))
    print(f"\nbfloat16 autocast, {n} pictures a side, {which}")
    print(f"features off by {((exact - rough).norm() / exact.norm()):.2e} (relative norm)")
    print(f"FID {distances['float32']:.5f} in float32, {distances['bfloat16']:.5f} in bfloat16")


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_inception", description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--bfloat16", type=int, default=128, metavar="N", help="pictures a side; 0 leaves it out"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    speed(args.batch, args.side, args.rounds)
    if args.bfloat16:
        bfloat16(args.bfloat16)


if __name__ == "__main__":
    main()

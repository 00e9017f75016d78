"""The part `inception`: images/s of the network of FID beside torch-fidelity's, same weights, same pictures.

Without the published weights random ones do: speed and agreement do not depend on them.
"""

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.metrics_rivals import INSTALL, has_torchvision, load
from benchmarks.metrics_timing import Contestant, race
from unnoise.metrics import weights as store
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


def fidelity(state: dict[str, Tensor]) -> Callable[[Tensor], Tensor] | None:
    """torch-fidelity's network: uint8 (B, 3, H, W) -> (B, 2048); None when it is not installed."""
    module = load("torch_fidelity", "feature_extractor_inceptionv3")
    if module is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(state, path)
        network = module.FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    return lambda pixels: network(pixels)[0]


def pytorch_fid(state: dict[str, Tensor]) -> Callable[[Tensor], Tensor] | None:
    """pytorch-fid's network, which builds on torchvision's; None when one of them is not installed."""
    module = load("pytorch_fid", "inception")
    if module is None or not has_torchvision():
        return None
    module.load_state_dict_from_url = lambda *_, **__: state
    network = module.InceptionV3().eval()
    return lambda pixels: network(pixels.float() / 255)[0].flatten(1)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """That many threads, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def speed(state: dict[str, Tensor], which: str, args: argparse.Namespace) -> None:
    """Images/s of both networks."""
    ours, theirs = InceptionV3(state), fidelity(state)
    pixels = torch.randint(0, 256, (args.batch, 3, args.side, args.side), dtype=torch.uint8)
    contestants = [Contestant("torch-fidelity", lambda: theirs(pixels))] if theirs else []
    contestants.append(Contestant("unnoise", lambda: ours(pixels).pool))
    with torch.no_grad():
        for c in contestants:
            c.call()
        race(contestants, args.rounds)
    print(
        f"\nInception in float32, batch {args.batch} of {args.side}x{args.side}, {torch.get_num_threads()} "
        f"threads, {which}, median of {args.rounds} rounds"
    )
    base, mine = contestants[0], contestants[-1]
    for c in contestants:
        ratio = statistics.median(a / b for a, b in zip(base.wall, c.wall, strict=True))
        cpu = statistics.median(a / b for a, b in zip(base.cpu, c.cpu, strict=True))
        rate = args.batch / statistics.median(c.wall)
        print(f"{c.name:20}{rate:8.2f} images/s{ratio:8.2f}x{cpu:8.2f}x (cpu)")
    error = (base.answer - mine.answer).abs().max() / base.answer.abs().max()
    print(f"agreement of the 2048 features: {error:.1e} of the largest", flush=True)


def run(args: argparse.Namespace) -> None:
    """With all threads, and with one."""
    state, which = some_state()
    if fidelity(state) is None:
        print(f"\ntorch-fidelity is not installed; {INSTALL}")
    for count in sorted({args.threads, 1}, reverse=True):
        with threads(count):
            speed(state, which, args)

"""The part `agreement`: the same features and the same pictures through other people's code and ours."""

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.metrics_features import DIMS, pair
from benchmarks.metrics_inception import fidelity, pytorch_fid, some_state
from benchmarks.metrics_rivals import INSTALL, load
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.inception_score import inception_score_fidelity
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.precision_recall import precision_recall_fidelity
from unnoise.metrics.statistics import Moments
from unnoise.networks.inception import InceptionV3

PICTURES = 96


def row(metric: str, package: str, theirs: float, ours: float) -> None:
    """One line of a table."""
    gap = abs(theirs - ours) / max(abs(theirs), 1e-12)
    print(f"{metric:20}{package:18}{theirs:18.9f}{ours:18.9f}{gap:12.1e}", flush=True)


def heading(title: str) -> None:
    print(f"\n{title}\n{'':20}{'':18}{'theirs':>18}{'unnoise':>18}{'relative':>12}")


def distance(a: Tensor, b: Tensor) -> float:
    """Ours, of features."""
    return frechet_distance(real=Moments.of(a).gaussian(), fake=Moments.of(b).gaussian())


def from_features(a: Tensor, b: Tensor) -> float:
    """The Frechet distance without a covariance: tr (S1 S2)^(1/2) is the sum of the singular values of A B^T,
    features centred and over the root of N - 1. For few pictures this is quick, and exact to 1e-12.
    """
    a, b = a.double(), b.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (a, b))
    return float(gap + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


def frechet_of_others(a: Tensor, b: Tensor) -> dict[str, Callable[[], float]]:
    """Package -> its Frechet distance of our means and covariances, those of float64 features."""
    stats = [x.numpy() for side in (a, b) for x in (side.double().mean(0), side.double().T.cov())]
    found = {}
    for package, module, name in (
        ("pytorch-fid", "pytorch_fid.fid_score", "calculate_frechet_distance"),
        ("clean-fid", "cleanfid.fid", "frechet_distance"),
    ):
        loaded = load(*module.split("."))
        if loaded is not None:
            call = getattr(loaded, name)
            found[package] = lambda call=call: float(call(*stats))
    fid = load("torch_fidelity", "metric_fid")
    if fid is not None:

        def of_fidelity() -> float:
            both = [fid.fid_features_to_statistics(x) for x in (a, b)]
            (value,) = fid.fid_statistics_to_metric(*both, verbose=False).values()
            return float(value)

        found["torch-fidelity"] = of_fidelity
    return found


def of_features(n: int) -> None:
    """Every metric that torch-fidelity has, and everybody's Frechet distance."""
    a, b = (torch.from_numpy(x) for x in pair("network", n))
    rank = "full rank" if n > DIMS else f"rank-deficient: fewer than {DIMS}"
    heading(f"the same features, {n} a side ({rank})")
    ours = distance(a, b)
    for package, call in frechet_of_others(a, b).items():
        row("FID", package, call(), ours)
    if n <= DIMS:
        row("FID", "singular values", from_features(a, b), ours)
    kid, prc, isc = (load("torch_fidelity", f"metric_{m}") for m in ("kid", "prc", "isc"))
    if kid is None or prc is None or isc is None:
        return
    size = min(1000, n)
    found = kernel_distance(real=a, fake=b, subset_size=size)
    theirs = list(kid.kid_features_to_metric(a, b, kid_subset_size=size, verbose=False).values())
    row("KID", "torch-fidelity", theirs[0], found.mean)
    row("KID's deviation", "torch-fidelity", theirs[1], found.std)
    shares = precision_recall_fidelity(real=a, fake=b)
    # It calls the samples' manifold precision's: the roles are swapped against the paper's.
    theirs = prc.prc_features_to_metric(b, a, verbose=False, save_cpu_ram=False)
    row("precision", "torch-fidelity", theirs["precision"], shares.precision)
    row("recall", "torch-fidelity", theirs["recall"], shares.recall)
    logits = a[:, :1008] * 8
    score = inception_score_fidelity(fake=logits.softmax(1))
    theirs = list(isc.isc_features_to_metric(logits, 10, True, 2020).values())
    row("IS", "torch-fidelity", theirs[0], score.mean)
    row("IS's deviation", "torch-fidelity", theirs[1], score.std)


def pictures(n: int, side: int, seed: int, top: int) -> Tensor:
    """uint8 (n, 3, side, side): smooth random colours up to `top`."""
    low = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(low, (side, side), mode="bicubic") * top).clamp(0, 255).byte()


def through(network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in pixels.split(16)])


def of_pictures() -> None:
    """The same pictures and weights through each network, then each package's own Frechet distance."""
    state, which = some_state()
    network = InceptionV3(state)
    others = {"torch-fidelity": fidelity(state), "pytorch-fid": pytorch_fid(state)}
    for side, note in ((64, "resized by each"), (299, "no resize")):
        heading(f"the same {PICTURES} pictures a side, {side}x{side} ({note}), {which}")
        sides = [pictures(PICTURES, side, seed, top) for seed, top in ((1, 255), (2, 215))]
        ours = [through(lambda x: network(x).pool, pixels) for pixels in sides]
        for package, call in others.items():
            if call is None:
                print(f"{package} or torchvision is not installed; {INSTALL}")
                continue
            theirs = [through(call, pixels) for pixels in sides]
            gap = float((theirs[0] - ours[0]).norm() / theirs[0].norm())
            row("FID", package, frechet_of_others(*theirs)[package](), distance(*ours))
            print(f"{'':20}{package:18}features differ by {gap:.1e} (relative norm)", flush=True)
    if others["pytorch-fid"] is not None:
        print("pytorch-fid enlarges by half-pixel bilinear, not TensorFlow 1's: hence its gap at 64x64")


def run(args: argparse.Namespace) -> None:
    """Features of both ranks, then pictures."""
    of_features(3000)
    of_features(500)
    of_pictures()

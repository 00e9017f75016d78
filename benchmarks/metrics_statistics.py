"""`python -m benchmarks.metrics_statistics`: the Frechet distance and precision/recall beside scipy, numpy
and the public packages.
"""

import argparse
import os

import numpy as np
import torch

from benchmarks.metrics_rivals import load
from benchmarks.metrics_timing import Contestant, print_race, race
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.inception_score import inception_score_fidelity
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.precision_recall import precision_recall, precision_recall_fidelity
from unnoise.metrics.statistics import Moments

DIMS = 2048


def features(n: int, seed: int, shift: float, scale: float) -> np.ndarray:
    """Features like a network's (8 degrees of freedom, noise, relu): the recipe of
    tests/golden/metrics.json.
    """
    w = np.random.default_rng(99).standard_normal((8, DIMS), dtype=np.float32)
    g = np.random.default_rng(seed)
    z = g.standard_normal((n, 8), dtype=np.float32) * np.float32(scale) + np.float32(shift)
    f = np.float32(0.4 / np.sqrt(8)) * (z @ w) + np.float32(0.05) * g.standard_normal(
        (n, DIMS), dtype=np.float32
    )
    return np.maximum(f, 0)


def noise(n: int, seed: int, shift: float, scale: float) -> np.ndarray:
    """Features without any structure, the worst case."""
    g = np.random.default_rng(seed)
    return g.standard_normal((n, DIMS), dtype=np.float32) * np.float32(scale) + np.float32(shift)


def with_sqrtm(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    return float(((m1 - m2) ** 2).sum() + np.trace(s1 + s2) - 2 * np.trace(sqrtm(s1 @ s2)).real)


def with_eigvals(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    values = torch.linalg.eigvals(torch.from_numpy(s1 @ s2))
    return float(((m1 - m2) ** 2).sum() + np.trace(s1 + s2) - 2 * values.sqrt().real.sum())


def frechet(n: int, rounds: int) -> None:
    real, fake = (Moments.of(features(n, *args)).gaussian() for args in ((1, 0.0, 1.0), (2, 0.1, 0.9)))
    arrays = [x.numpy() for g in (real, fake) for x in (g.mean, g.covariance)]
    contestants = [
        Contestant("scipy.linalg.sqrtm", lambda: with_sqrtm(*arrays)),
        Contestant("eigvals (torch-fidelity's route)", lambda: with_eigvals(*arrays)),
    ]
    for package, module in (("pytorch_fid", "fid_score"), ("cleanfid", "fid")):
        loaded = load(package, module)
        call = getattr(loaded, "calculate_frechet_distance", None) or getattr(
            loaded, "frechet_distance", None
        )
        if call:
            contestants.append(Contestant(package, lambda call=call: float(call(*arrays))))
    contestants.append(Contestant("unnoise", lambda: frechet_distance(real=real, fake=fake)))
    race(contestants, rounds)
    rank = "full rank" if n > DIMS else "rank-deficient"
    print_race(
        f"Frechet distance, {DIMS} dimensions, {n} pictures a side ({rank})", contestants, "{:.8f}".format
    )


def numpy_precision_recall(real: np.ndarray, fake: np.ndarray, block: int) -> tuple[float, float]:
    """float32 distances by matrix products, np.partition, blocks of `block`."""

    def distances(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.maximum((u * u).sum(1)[:, None] - 2 * (u @ v.T) + (v * v).sum(1)[None], 0)

    def radii(x: np.ndarray) -> np.ndarray:
        out = []
        for i in range(0, len(x), block):
            rows = np.concatenate(
                [distances(x[i : i + block], x[j : j + block]) for j in range(0, len(x), block)], 1
            )
            out.append(np.partition(rows, 3, axis=1)[:, 3])
        return np.concatenate(out)

    radii_real, radii_fake = radii(real), radii(fake)
    in_real, in_fake = np.zeros(len(real), bool), np.zeros(len(fake), bool)
    for i in range(0, len(real), block):
        for j in range(0, len(fake), block):
            r, f = slice(i, i + block), slice(j, j + block)
            d = distances(real[r], fake[f])
            in_fake[f] |= (d <= radii_real[r, None]).any(0)
            in_real[r] |= (d <= radii_fake[None, f]).any(1)
    return float(in_fake.mean()), float(in_real.mean())


def neighbours(n: int, rounds: int, block: int, make=features, kind: str = "network-like features") -> None:
    real, fake = (
        make(n, 1, 0.0, 1.0),
        make(n, 2, 0.1 if make is features else 0.0, 0.9 if make is features else 1.0),
    )
    a, b = torch.from_numpy(real), torch.from_numpy(fake)

    def ours() -> tuple[float, float]:
        found = precision_recall(real=a, fake=b)
        return found.precision, found.recall

    contestants = [
        Contestant(
            f"numpy, np.partition, blocks of {block}", lambda: numpy_precision_recall(real, fake, block)
        ),
        Contestant("unnoise, blocks of 1024", ours),
    ]
    race(contestants, rounds)
    print_race(f"precision and recall, {n} x {n}, {DIMS} dimensions, {kind}", contestants, str)


def agreement(n: int) -> None:
    """Our variants against torch-fidelity's own functions on the same features."""
    a, b = (torch.from_numpy(features(n, *args)) for args in ((1, 0.0, 1.0), (2, 0.1, 0.9)))
    print(f"\nagreement with torch-fidelity, {n} features a side: theirs | ours")
    kid, prc, isc, fid = (load("torch_fidelity", f"metric_{m}") for m in ("kid", "prc", "isc", "fid"))
    if kid is None:
        print("torch-fidelity is not installed; pip install --no-deps -r benchmarks/requirements-metrics.txt")
        return
    found = kernel_distance(real=a, fake=b, subset_size=min(1000, n))
    theirs = kid.kid_features_to_metric(a, b, kid_subset_size=min(1000, n), verbose=False)
    print("KID              ", *theirs.values(), "|", found.mean, found.std)
    pr = precision_recall_fidelity(real=a, fake=b)
    theirs = prc.prc_features_to_metric(b, a, verbose=False, save_cpu_ram=False)
    print("precision, recall", theirs["precision"], theirs["recall"], "|", pr.precision, pr.recall)
    logits = a[:, :1008] * 8
    theirs = isc.isc_features_to_metric(logits, 10, True, 2020)
    score = inception_score_fidelity(fake=logits.softmax(1))
    print("inception score  ", *theirs.values(), "|", score.mean, score.std)
    stats = [fid.fid_features_to_statistics(x) for x in (a, b)]
    theirs = fid.fid_statistics_to_metric(*stats, verbose=False)
    value = frechet_distance(real=Moments.of(a).gaussian(), fake=Moments.of(b).gaussian())
    print("FID              ", *theirs.values(), "|", value)


def main(argv: list[str] | None = None) -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_statistics", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=10_000, help="pictures a side for precision and recall")
    parser.add_argument("--block", type=int, default=10_000, help="numpy's block; ADM's is 10,000")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=("frechet", "neighbours", "agreement"), default=None)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.only in (None, "frechet"):
        frechet(5000, args.rounds)
        frechet(500, args.rounds)
    if args.only in (None, "neighbours"):
        neighbours(args.n, args.rounds, args.block)
        neighbours(args.n, args.rounds, args.block, noise, "features without structure")
    if args.only in (None, "agreement"):
        agreement(1500)


if __name__ == "__main__":
    main()

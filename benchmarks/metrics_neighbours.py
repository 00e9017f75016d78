"""The part `neighbours`: precision and recall beside numpy at the same block size."""

import argparse

import numpy as np
import torch

from benchmarks.metrics_features import DIMS, pair
from benchmarks.metrics_timing import Contestant, print_race, race
from unnoise.metrics.precision_recall import precision_recall


def numpy_precision_recall(real: np.ndarray, fake: np.ndarray, block: int) -> tuple[float, float]:
    """As a careful user of numpy writes it: float32 matrix products, everything after them in place, a
    partition in place.

    numpy itself sees that a block times its own transpose is symmetric, which halves its radii at one block.
    """

    def distances(u: np.ndarray, v: np.ndarray, norms_u: np.ndarray, norms_v: np.ndarray) -> np.ndarray:
        d = u @ v.T
        d *= -2
        d += norms_u[:, None]
        d += norms_v
        return np.maximum(d, 0, out=d)

    def radii(x: np.ndarray, norms: np.ndarray) -> np.ndarray:
        out = np.empty(len(x), np.float32)
        for i in range(0, len(x), block):
            r = slice(i, i + block)
            if block >= len(x):
                rows = distances(x, x, norms, norms)
            else:
                rows = np.empty((len(x[r]), len(x)), np.float32)
                for j in range(0, len(x), block):
                    c = slice(j, j + block)
                    rows[:, c] = distances(x[r], x[c], norms[r], norms[c])
            rows.partition(3, axis=1)
            out[r] = rows[:, 3]
        return out

    norms_real, norms_fake = (np.einsum("nd,nd->n", x, x) for x in (real, fake))
    radii_real, radii_fake = radii(real, norms_real), radii(fake, norms_fake)
    in_real, in_fake = np.zeros(len(real), bool), np.zeros(len(fake), bool)
    for i in range(0, len(real), block):
        for j in range(0, len(fake), block):
            r, f = slice(i, i + block), slice(j, j + block)
            d = distances(real[r], fake[f], norms_real[r], norms_fake[f])
            in_fake[f] |= (d <= radii_real[r, None]).any(0)
            in_real[r] |= (d <= radii_fake[f]).any(1)
    return float(in_fake.mean()), float(in_real.mean())


def compare(kind: str, n: int, block: int, rounds: int) -> None:
    """numpy and us, from the same arrays."""
    real, fake = pair(kind, n)
    a, b = torch.from_numpy(real), torch.from_numpy(fake)

    def ours() -> tuple[float, float]:
        found = precision_recall(real=a, fake=b, block=block)
        return found.precision, found.recall

    contestants = [
        Contestant("numpy, np.partition", lambda: numpy_precision_recall(real, fake, block)),
        Contestant("unnoise", ours),
    ]
    race(contestants, rounds)
    title = f"precision and recall, {n} x {n}, {DIMS} dimensions, {kind} features, blocks of {block}, "
    print_race(title + f"{torch.get_num_threads()} threads", contestants, str)


def run(args: argparse.Namespace) -> None:
    """Every kind of features at every block size."""
    for kind in args.kinds:
        for block in args.blocks:
            compare(kind, args.n, block, args.rounds)

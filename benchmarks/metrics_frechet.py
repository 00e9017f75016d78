"""The part `frechet`: the Frechet distance of given statistics beside the routes that others take."""

import argparse

import numpy as np
import torch

from benchmarks.metrics_features import DIMS, pair
from benchmarks.metrics_timing import Contestant, print_race, race
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.statistics import Moments


def with_sqrtm(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    """pytorch-fid's, clean-fid's and ADM's route."""
    from scipy.linalg import sqrtm

    return float(((m1 - m2) ** 2).sum() + np.trace(s1 + s2) - 2 * np.trace(sqrtm(s1 @ s2)).real)


def with_eigvals(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    """torch-fidelity's route."""
    values = torch.linalg.eigvals(torch.from_numpy(s1 @ s2))
    return float(((m1 - m2) ** 2).sum() + np.trace(s1 + s2) - 2 * values.sqrt().real.sum())


def compare(n: int, rounds: int) -> None:
    """All routes from the same means and covariances."""
    real, fake = (Moments.of(torch.from_numpy(x)).gaussian() for x in pair("network", n))
    arrays = [x.numpy() for g in (real, fake) for x in (g.mean, g.covariance)]
    contestants = [
        Contestant("scipy.linalg.sqrtm", lambda: with_sqrtm(*arrays)),
        Contestant("eigvals (torch-fidelity's route)", lambda: with_eigvals(*arrays)),
        Contestant("unnoise", lambda: frechet_distance(real=real, fake=fake)),
    ]
    race(contestants, rounds)
    rank = "full rank" if n > DIMS else "rank-deficient"
    title = f"Frechet distance, {DIMS} dimensions, {n} pictures a side ({rank}), "
    print_race(title + f"{torch.get_num_threads()} threads", contestants, "{:.8f}".format)
    ours = contestants[-1].answer
    for c in contestants[:-1]:
        print(f"off from {c.name}: {abs(c.answer - ours) / c.answer:.1e} relative")


def run(args: argparse.Namespace) -> None:
    """With more pictures than dimensions, and with fewer."""
    compare(5000, args.rounds)
    compare(500, args.rounds)

"""Inception Score (Salimans et al. 2016, arXiv 1606.03498) as the two public evaluators compute it.

Their numbers differ, most of all for few pictures (15.5 against 13.6 on the same 2,000 x 1,008
probabilities), so each has its name.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unnoise.metrics.distances import blocks
from unnoise.metrics.statistics import as_matrix


def split_score(probs: Tensor, weights: Tensor | None = None) -> float:
    """exp(mean KL(p(y|x) || p(y))) of (N, classes), pictures counted `weights` (N,) times.

    The mean KL is that of sum p log p minus sum m log m of the mean m. 0 log 0 = 0, where ADM's evaluator
    gives NaN.
    """
    p = probs.double()
    w = p.new_full((len(p),), 1 / len(p)) if weights is None else (weights / weights.sum()).to(p)
    marginal = w @ p
    certainty = w @ torch.special.xlogy(p, p).sum(1)
    return float((certainty - torch.special.xlogy(marginal, marginal).sum()).exp())


def inception_score(*, fake: Tensor, split: int = 5000) -> float:
    """ADM's Inception Score: the mean over consecutive splits of exp(mean KL(p(y|x) || p(y))), no shuffle.

    fake: (N, classes) probabilities, the softmax of pool_3 @ W without the bias over all 1008 columns for the
    published numbers. An incomplete last split counts as much as a full one. From 1 to the number of classes.
    """
    probs = as_matrix(fake, "probabilities")
    return float(np.mean([split_score(probs[rows]) for rows in blocks(len(probs), split)]))


@dataclass(frozen=True)
class FidelityScore:
    """Mean and (population) standard deviation over the splits."""

    mean: float
    std: float


def inception_score_fidelity(*, fake: Tensor, splits: int = 10, seed: int = 2020) -> FidelityScore:
    """torch-fidelity's Inception Score: rows shuffled by numpy's RandomState(seed).permutation, `splits`
    equal parts.

    fake: (N, classes) probabilities. Split i holds rows i*N//splits to (i+1)*N//splits.
    """
    probs = as_matrix(fake, "probabilities")
    n = len(probs)
    if n < splits:
        raise ValueError(f"{n} pictures cannot make {splits} splits; use at least {splits} pictures")
    shuffled = probs[torch.from_numpy(np.random.RandomState(seed).permutation(n))]
    scores = [split_score(shuffled[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return FidelityScore(float(np.mean(scores)), float(np.std(scores)))

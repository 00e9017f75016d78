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


def _split_score(probs: Tensor) -> float:
    """exp(mean KL(p(y|x) || p(y))); 0 log 0 = 0, where ADM's own evaluator gives NaN."""
    p = probs.double()
    marginal = p.mean(0, keepdim=True)
    return float((torch.special.xlogy(p, p) - torch.special.xlogy(p, marginal)).sum(1).mean().exp())


def inception_score(*, fake: Tensor, split: int = 5000) -> float:
    """ADM's Inception Score: the mean over consecutive splits of exp(mean KL(p(y|x) || p(y))), no shuffle.

    fake: (N, classes) probabilities, the softmax of pool_3 @ W without the bias over all 1008 columns for the
    published numbers. An incomplete last split counts as much as a full one. From 1 to the number of classes.
    """
    probs = as_matrix(fake, "probabilities")
    return float(np.mean([_split_score(probs[rows]) for rows in blocks(len(probs), split)]))


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
    scores = [_split_score(shuffled[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return FidelityScore(float(np.mean(scores)), float(np.std(scores)))

"""Which kinds of pictures a model has lost, by a judge of features: of classes where there are labels, else
of clusters of the real pictures.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.metrics.inception_score import split_score
from unnoise.metrics.neighbours import neighbour_distances

LOST = 0.1
"""Of the pictures of a kind that were to be expected: with fewer it counts as lost."""
CLUSTERS = 20
"""Kinds that are told apart where nobody named any, at most; each has 25 real pictures on average."""
_EACH = 25
_HELD_OUT = 0.2


@dataclass(frozen=True, eq=False)
class Judge:
    """Says of features (N, D) which of K kinds each is; probs = softmax(x w + b), x standardised."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    """(D, K)."""
    bias: Tensor
    accuracy: float | None
    """On real pictures that it did not learn from; None for clusters, which are what it says."""
    confusion: Tensor
    """(K, K) float64: how often a real picture of the kind of a row is taken for that of a column."""
    real: Tensor
    """(K,) float64: shares of the kinds among real pictures."""

    def probs(self, features: Tensor) -> Tensor:
        """(N, K)."""
        return (((features - self.mean) / self.scale) @ self.weight + self.bias).softmax(1)

    def lost(self, features: Tensor, asked: Tensor | None = None) -> int:
        """Kinds of which there are fewer than a tenth of what this judge would find among real pictures.

        asked: (K,) shares of the kinds that were asked for; None: those of the real pictures.
        """
        found = torch.bincount(self.probs(features).argmax(1), minlength=len(self.real)).double()
        expected = (self.real if asked is None else asked.double()) @ self.confusion
        return int((found / len(features) < LOST * expected).sum())

    def score(self, features: Tensor) -> float:
        """exp(mean KL(p(y|x) || p(y))) of what it says: the Inception Score of this judge, 1 to K."""
        return split_score(self.probs(features))


def judge_of_classes(features: Tensor, label: Tensor, classes: int, seed: int) -> Judge:
    """Logistic regression on real features (N, D) with labels (N,), a fifth of them held out to see how good.

    Its confusion is that of the held-out ones, with one more picture on the diagonal of each class.
    """
    shuffled = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    count = max(1, round(_HELD_OUT * len(features)))
    held, rest = shuffled[:count], shuffled[count:]
    mean, scale = _standard(features[rest])
    x = (features[rest] - mean) / scale
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, label[rest]) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    plain = Judge(
        mean, scale, weight.detach(), bias.detach(), None, torch.eye(classes), _shares(label, classes)
    )
    said = plain.probs(features[held]).argmax(1)
    table = torch.eye(classes, dtype=torch.float64)
    table.index_put_((label[held], said), torch.ones(count, dtype=torch.float64), accumulate=True)
    return Judge(
        mean,
        scale,
        plain.weight,
        plain.bias,
        (said == label[held]).double().mean().item(),
        table / table.sum(1, keepdim=True),
        plain.real,
    )


def judge_of_clusters(features: Tensor, seed: int) -> Judge:
    """k-means on real features (N, D): the nearest centre is what it says is likeliest."""
    count = min(CLUSTERS, max(2, len(features) // _EACH))
    mean, scale = _standard(features)
    x = (features - mean) / scale
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    centres = x[order[:count]].clone()
    for _ in range(50):
        nearest = torch.cdist(x, centres).argmin(1)
        moved = torch.stack(
            [x[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)]
        )
        if torch.equal(moved, centres):
            break
        centres = moved
    # |x - c|^2 = |x|^2 - 2 c x + |c|^2, the first the same for all.
    weight, bias = 2 * centres.T, -centres.square().sum(1)
    said = (x @ weight + bias).argmax(1)
    eye = torch.eye(count, dtype=torch.float64)
    return Judge(mean, scale, weight, bias, None, eye, _shares(said, count))


def repeats(real: Tensor, fake: Tensor, seed: int) -> float:
    """Share of samples with another sample less than half as far away as a real picture's nearest one.

    Half the median distance of as many real pictures, chosen by the seed, to their nearest. Both (N, D).
    """
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    some = real[order[: len(fake)]]
    between = neighbour_distances(some, 1)[:, 1].sqrt().median() / 2
    return (neighbour_distances(fake, 1)[:, 1].sqrt() < between).double().mean().item()


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(0), features.std(0).clamp_min(1e-6)


def _shares(label: Tensor, count: int) -> Tensor:
    return torch.bincount(label, minlength=count).double() / len(label)

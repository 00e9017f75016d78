"""What a first stage learns by: pixels, a perceptual distance, an adversary, what regularises the latents.

Esser et al. 2021 (arXiv 2012.09841), Eqs. 4 to 7; Rombach et al. 2022 (arXiv 2112.10752), appendix G. All
costs are picture by picture, (B,), so that their mean is that of a batch however it is divided.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_WEIGHT = 1e4
"""Of the adversarial loss by its balance of gradients."""


def errors(
    kind: Literal["l1", "l2"], images: Tensor, reconstructions: Tensor, perceptual: Tensor | None = None
) -> Tensor:
    """|x - y| or (x - y)^2 at every pixel, plus the weighted perceptual distance (B, 1, 1, 1) at each."""
    apart = images - reconstructions
    pixels = apart.abs() if kind == "l1" else apart.square()
    return pixels if perceptual is None else pixels + perceptual


def gaussian_nll(error: Tensor, logvar: Tensor) -> Tensor:
    """sum over a picture of error / exp(logvar) + logvar: (B,). KL first stages minimise the sum."""
    return (error / logvar.exp() + logvar).sum((1, 2, 3))


def mean_nll(error: Tensor, logvar: Tensor) -> Tensor:
    """Mean over a picture of error / exp(logvar) + logvar: (B,). First stages with a codebook: the mean."""
    return (error / logvar.exp() + logvar).mean((1, 2, 3))


def deception(fake: Tensor) -> Tensor:
    """-D(reconstruction), averaged over patches: what the first stage minimises; (B,)."""
    return -fake.mean((1, 2, 3))


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """(max(0, 1 - D(x)) + max(0, 1 + D(y))) / 2, averaged over patches (Lim & Ye 2017): (B,)."""
    return 0.5 * (F.relu(1 - real).mean((1, 2, 3)) + F.relu(1 + fake).mean((1, 2, 3)))


def vanilla(real: Tensor, fake: Tensor) -> Tensor:
    """-(log sigmoid(D(x)) + log(1 - sigmoid(D(y)))) / 2, averaged over patches: (B,)."""
    return 0.5 * (F.softplus(-real).mean((1, 2, 3)) + F.softplus(fake).mean((1, 2, 3)))


DISCRIMINATION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"hinge": hinge, "vanilla": vanilla}
"""Name -> what a discriminator minimises of logits (B, 1, h, w) of pictures and of reconstructions."""


def adaptive_weight(nll: Tensor, deceived: Tensor, last_layer: Tensor) -> Tensor:
    """|gradient of nll| / (|gradient of the adversarial loss| + 1e-4) at the last layer, at most 1e4.

    nll, deceived: the scalars; last_layer: the weight of the decoder's last convolution (VQGAN Eq. 7).
    """
    (wanted,) = torch.autograd.grad(nll, last_layer, retain_graph=True)
    (found,) = torch.autograd.grad(deceived, last_layer, retain_graph=True)
    return (wanted.norm() / (found.norm() + 1e-4)).clamp(0, MOST_WEIGHT).detach()


def code_counts(indices: Tensor, codes: int) -> Tensor:
    """How often each of the codes occurs: (codes,) int64."""
    return torch.bincount(indices.flatten(), minlength=codes)


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes' use: as many codes as would carry it if they were used equally."""
    share = counts / counts.sum().clamp_min(1)
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())

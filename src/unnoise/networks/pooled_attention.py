"""Self-attention of GANs over keys of half the resolution (Zhang et al. 2019, SAGAN, arXiv 1805.08318)."""

import torch
from torch import Tensor, nn

from unnoise.networks.spectral import SpectralConv2d


class PooledAttention(nn.Module):
    """x + gain * project(softmax(q k^T) v), keys and values max-pooled by 2; the gain starts at 0.

    Spelt out: the penalty on gradients differentiates it twice, which the fused operator refuses.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = SpectralConv2d(channels, max(1, channels // 8), 1, bias=False)
        self.key = SpectralConv2d(channels, max(1, channels // 8), 1, bias=False)
        self.value = SpectralConv2d(channels, max(1, channels // 2), 1, bias=False)
        self.project = SpectralConv2d(max(1, channels // 2), channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; H and W are 2 or more."""
        q = self.query(x).flatten(2).transpose(1, 2)
        k = _halved(self.key(x)).flatten(2)
        v = _halved(self.value(x)).flatten(2).transpose(1, 2)
        mixed = ((q @ k).softmax(dim=-1) @ v).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.gain.to(x.dtype) * self.project(mixed)


def _halved(x: Tensor) -> Tensor:
    """The largest of every 2x2 positions, an odd last row or column left out: `max_pool2d`, whose gradient on
    CUDA devices adds up in an order of its own, which training refuses.
    """
    height, width = (side // 2 * 2 for side in x.shape[2:])
    return x[:, :, :height, :width].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

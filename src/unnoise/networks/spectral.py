"""Layers whose weights are divided by their largest singular value (Miyato et al. 2018, arXiv 1802.05957).

The value is found by power iteration from a vector u that each layer keeps among its buffers. A forward pass
does one iteration and changes nothing: `iterate` moves u on, once an optimiser step, so that the passes of
one step see one network however many they are.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.layers import is_channels_last

_EPS = 1e-12


class SpectralConv2d(nn.Module):
    """A convolution of stride 1 that keeps the sides, its weight (out, in * k * k) of spectral norm 1."""

    u: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.register_buffer("u", _start(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), of the type of x."""
        kernel = self.weight.shape[-1]
        layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        weight = normalised(self.weight, self.u).to(x.dtype, memory_format=layout)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if kernel == 1 and x.device.type == "cpu" and is_channels_last(x):
            # As in `layers.Conv2d`: a convolution would take PyTorch's slow path.
            return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, bias, padding=kernel // 2)


class SpectralLinear(nn.Module):
    """A linear map of spectral norm 1."""

    u: Tensor

    def __init__(self, features_in: int, features_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features_out, features_in))
        self.bias = nn.Parameter(torch.zeros(features_out)) if bias else None
        self.register_buffer("u", _start(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), of the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, normalised(self.weight, self.u).to(x.dtype), bias)


class SpectralEmbedding(nn.Module):
    """Rows of a table of spectral norm 1."""

    u: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.register_buffer("u", _start(self.weight))

    def forward(self, index: Tensor) -> Tensor:
        """(B,) int64 -> (B, width) float32."""
        return F.embedding(index, normalised(self.weight, self.u))


Spectral = SpectralConv2d | SpectralLinear | SpectralEmbedding


def normalised(weight: Tensor, u: Tensor) -> Tensor:
    """weight / sigma in float32: v = W^T u / |.|, u' = W v / |.|, sigma = u'^T W v; W is (rows, all else).

    Gradients flow through W alone, as published.
    """
    matrix = weight.flatten(1).float()
    with torch.no_grad():
        v = F.normalize(matrix.detach().T @ u.float(), dim=0, eps=_EPS)
    mapped = matrix @ v
    sigma = torch.dot(F.normalize(mapped.detach(), dim=0, eps=_EPS), mapped)
    return weight.float() / sigma


@torch.no_grad()
def iterate(network: nn.Module, count: int = 1) -> None:
    """Move every u of a network on by so many power iterations."""
    for _, layer in spectral_layers(network):
        matrix, u = layer.weight.flatten(1).float(), layer.u.float()
        for _ in range(count):
            v = F.normalize(matrix.T @ u, dim=0, eps=_EPS)
            u = F.normalize(matrix @ v, dim=0, eps=_EPS)
        layer.u.copy_(u)


def singular_values(network: nn.Module) -> dict[str, Tensor]:
    """Layer -> its weight's singular values before normalisation, the largest first, float64.

    As roots of the eigenvalues of the smaller of W W^T and W^T W, which is fast for wide layers too.
    """
    found = {}
    for name, layer in spectral_layers(network):
        matrix = layer.weight.detach().flatten(1).double().cpu()
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        found[name] = torch.linalg.eigvalsh(wide @ wide.T).flip(0).clamp_min(0).sqrt()
    return found


def spectral_layers(network: nn.Module) -> Iterator[tuple[str, Spectral]]:
    """Every layer of these kinds with its name."""
    for name, module in network.named_modules():
        if isinstance(module, Spectral):
            yield name, module


def orthogonal(network: nn.Module) -> None:
    """Orthogonal weights throughout (Saxe et al. 2014), with u where a few iterations lead."""
    for module in network.modules():
        if isinstance(module, Spectral | nn.Embedding):
            nn.init.orthogonal_(module.weight)
    iterate(network, 3)


def _start(weight: Tensor) -> Tensor:
    """Where the power iteration begins; on the meta device, too, for files bring their own."""
    return F.normalize(torch.randn(weight.shape[0], device=weight.device), dim=0)

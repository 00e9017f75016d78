"""Weights divided by their largest singular value: exact after many iterations, steady between them."""

import pytest
import torch
from torch import nn

from unnoise.networks.spectral import (
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    iterate,
    normalised,
    orthogonal,
    singular_values,
    spectral_layers,
)


def layers() -> nn.ModuleDict:
    torch.manual_seed(0)
    found = nn.ModuleDict(
        {
            "conv": SpectralConv2d(3, 5, 3),
            "wide": SpectralConv2d(9, 2, 1, bias=False),
            "linear": SpectralLinear(7, 4),
            "embedding": SpectralEmbedding(6, 3),
        }
    )
    for _, layer in spectral_layers(found):
        nn.init.normal_(layer.weight)
    return found


@pytest.mark.parametrize("name", list(layers()))
def test_the_spectral_norm_is_one(name):
    network = layers()
    iterate(network, 200)
    layer = network[name]
    norm = torch.linalg.matrix_norm(normalised(layer.weight, layer.u).flatten(1), 2)
    assert norm.item() == pytest.approx(1, abs=1e-5)


def test_passes_change_nothing_and_iterations_lead_to_the_norm():
    network = layers()
    conv, x = network["conv"], torch.randn(2, 3, 6, 6)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert torch.equal(conv(x), conv(x))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    exact = conv.weight / torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
    errors = []
    for _ in range(4):
        errors.append((normalised(conv.weight, conv.u) - exact).abs().max().item())
        iterate(network, 3)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1 * errors[0]


def test_singular_values_are_those_of_the_weights():
    network = layers()
    for name, values in singular_values(network).items():
        wanted = torch.linalg.svdvals(network[name].weight.detach().flatten(1).double())
        assert torch.allclose(values, wanted, atol=1e-6), name


def test_the_gradient_is_that_of_the_quotient():
    """sigma counts: growing a weight as a whole changes nothing."""
    layer = SpectralLinear(5, 4, bias=False).double()
    nn.init.normal_(layer.weight)
    iterate(layer, 500)
    layer(torch.randn(3, 5, dtype=torch.float64)).square().sum().backward()
    assert (layer.weight.grad * layer.weight).sum().abs() < 1e-4 * layer.weight.grad.norm()


def test_layers_compute_what_plain_ones_with_the_divided_weight_do():
    network = orthogonal(layers()) or layers()
    conv, linear, table = network["conv"], network["linear"], network["embedding"]
    x = torch.randn(2, 3, 6, 6)
    for layout in (torch.contiguous_format, torch.channels_last):
        wanted = nn.functional.conv2d(x, normalised(conv.weight, conv.u), conv.bias, padding=1)
        assert torch.allclose(conv(x.contiguous(memory_format=layout)), wanted, atol=1e-5)
    wide, y = network["wide"], torch.randn(2, 9, 4, 4).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(wide(y), nn.functional.conv2d(y, normalised(wide.weight, wide.u)), atol=1e-5)
    rows = torch.randn(4, 7)
    assert torch.allclose(linear(rows), rows @ normalised(linear.weight, linear.u).T + linear.bias, atol=1e-5)
    assert torch.equal(table(torch.tensor([5, 0])), normalised(table.weight, table.u)[[5, 0]])


def test_orthogonal_weights_have_singular_values_of_one():
    network = layers()
    orthogonal(network)
    for name, values in singular_values(network).items():
        assert torch.allclose(values, torch.ones_like(values), atol=1e-5), name

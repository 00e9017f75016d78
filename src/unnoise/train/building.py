"""What all kinds of training build alike: fresh weights, a summary of the data, a network around others."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unnoise.config.schema import Precision
from unnoise.data import Dataset
from unnoise.diffusion.noise import seeded_generator
from unnoise.networks.precision import compute_dtype

N = TypeVar("N", bound=nn.Module)
"""A network of ours: with its `settings`, of which alone it is built, and a `compute_dtype`."""


@contextlib.contextmanager
def drawn_weights(seed: int) -> Iterator[None]:
    """Inside, torch's generator on the CPU is a function of the seed: for building a network."""
    first = seeded_generator(seed, "weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=first)))
        yield


def data_summary(dataset: Dataset, pictures: int) -> dict[str, Any]:
    """What a model file says about the data, of which it learned from `pictures`."""
    return {
        "source": dataset.report.source,
        "pictures": pictures,
        "fingerprint": dataset.fingerprint,
    }


def compute_in(network: nn.Module, precision: Precision, device: torch.device) -> None:
    """Have the network's activations of the type that the setting means on the device."""
    dtype = compute_dtype(precision, device)
    network.compute_dtype = None if dtype == torch.float32 else dtype


def network_around(weights: Mapping[str, Tensor], like: N) -> N:
    """A network of its own like another one, not training, around other weights, which it shares."""
    with torch.device("meta"):
        network = type(like)(like.settings)
    network.load_state_dict(dict(weights), assign=True)
    network.eval().requires_grad_(False)
    network.compute_dtype = like.compute_dtype
    return network

"""A feature network for tests: a fixed random projection of the picture, quick and deterministic."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from unnoise.metrics.extractors import EXTRACTORS
from unnoise.metrics.features import Features, rgb


@dataclass
class Double:
    name: str = "double"
    weights_hash: str = "d0"
    preprocess: str = "area to 8x8"
    dims: int = 12
    broken: bool = False
    calls: int = 0

    def __call__(self, pixels):
        self.calls += len(pixels)
        x = F.adaptive_avg_pool2d(rgb(pixels).float() / 255, 8).flatten(1)
        w = torch.randn(x.shape[1], self.dims, generator=torch.Generator().manual_seed(3)) / 8
        pool = x @ w
        if self.broken:
            pool = pool / 0
        return Features(pool, spatial=pool[:, :4] ** 2, probs=(pool[:, :5] * 4).softmax(1))


@pytest.fixture
def double(monkeypatch):
    network = Double()
    monkeypatch.setitem(EXTRACTORS, "double", lambda weights=None, device="cpu": network)
    return network

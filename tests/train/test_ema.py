import torch
from torch import nn

from unnoise.config.schema import EmaConfig
from unnoise.train.ema import Ema, weights_of


def averages(config: EmaConfig, values: list[float]) -> list[float]:
    weight = nn.Parameter(torch.tensor([0.0]))
    ema = Ema({"w": weight}, config)
    for value in values:
        weight.data.fill_(value)
        ema.update([weight])
    return [ema.weights(k)["w"].item() for k in range(len(config.rates))]


def test_without_warmup_it_is_the_originals() -> None:
    one, two = averages(EmaConfig(rates=(0.9, 0.5), warmup=False), [1.0, 2.0, 3.0])
    expected = [0.0, 0.0]
    for value in (1.0, 2.0, 3.0):
        expected = [e * rate + (1 - rate) * value for e, rate in zip(expected, (0.9, 0.5), strict=True)]
    assert torch.allclose(torch.tensor([one, two]), torch.tensor(expected))


def test_warmup_forgets_the_start() -> None:
    (average,) = averages(EmaConfig(rates=(0.999,), warmup=True), [1.0] * 3)
    expected = 0.0
    for n in (1, 2, 3):
        rate = min(0.999, (1 + n) / (10 + n))
        expected = expected * rate + (1 - rate)
    assert abs(average - expected) < 1e-6 and average > 0.9


def test_weights_share_memory_and_keep_names() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    ema = Ema(weights_of(network), EmaConfig(rates=(0.5,), warmup=False))
    before = ema.weights()
    assert list(before) == [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        network[0].weight += 1
    assert not torch.equal(ema.weights()["0.weight"], network[0].weight)  # a copy, not a view of the weights
    ema.update(network.parameters())
    assert torch.equal(before["0.weight"], ema.weights()["0.weight"])

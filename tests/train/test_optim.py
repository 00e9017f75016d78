import math

import pytest
import torch
from torch import nn

from unnoise.config.schema import OptimizerConfig, RateCycle
from unnoise.train.optim import LossScale, gradient_norm, learning_rate, make_optimizer, scale_gradients


def test_linear_decay_is_the_published_loops() -> None:
    # The original sets lr = base (1 - step / N) after each update, before it counts the step.
    config, total = OptimizerConfig(lr=0.5, decay="linear"), 10
    lr, used = config.lr, []
    for step in range(total):
        used.append(lr)
        lr = config.lr * (1 - step / total)
    assert [learning_rate(config, step, total) for step in range(total)] == used


def test_cosine_and_warmup() -> None:
    config = OptimizerConfig(lr=2.0, decay="cosine", warmup_steps=4)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[50] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 0.99))
    assert rates[:4] == sorted(rates[:4]) and rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(OptimizerConfig(lr=2.0), 77, 100) == 2.0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_optimiser_is_adamw(layout: torch.memory_format) -> None:
    config = OptimizerConfig(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6)
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=layout))
    expected, m, v = weight.detach().double().clone(), 0.0, 0.0
    optimizer = make_optimizer([weight], config)
    for step in range(1, 5):
        weight.grad = torch.randn(4, 3, 3, 3).to(memory_format=layout)
        g = weight.grad.double()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        expected *= 1 - 0.01 * 0.1
        expected -= 0.01 * (m / (1 - 0.8**step)) / ((v / (1 - 0.9**step)).sqrt() + 1e-6)
    assert torch.allclose(weight.detach().double(), expected, atol=1e-6)


def test_gradient_norm_and_scale() -> None:
    a, b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))
    a.grad, b.grad = torch.full((3,), 2.0), torch.full((2, 2), 1.0)
    assert gradient_norm([a, b]).item() == pytest.approx(4.0)
    scale_gradients([a, b], 0.5)
    assert gradient_norm([a, b]).item() == pytest.approx(2.0)
    b.grad[0, 0] = math.nan
    assert not math.isfinite(gradient_norm([a, b]).item())


def test_loss_scale_has_a_floor_and_grows_back() -> None:
    scale = LossScale(active=True, value=4.0, growth_interval=3)
    for _ in range(5):
        scale.update(False)
    assert scale.value == 1.0 and not scale.can_shrink
    for _ in range(3):
        scale.update(True)
    assert scale.value == 2.0 and scale.can_shrink
    off = LossScale()
    off.update(False)
    assert off.factor == 1.0 and not off.can_shrink


def test_cycles_go_up_and_down_one_after_the_other() -> None:
    cycles = (
        RateCycle(steps=10, warmup_steps=4, start=0.2, floor=0.1),
        RateCycle(steps=20, peak=0.5, floor=0.05),
    )
    config = OptimizerConfig(lr=2.0, decay="cosine", cycles=cycles)
    rates = [learning_rate(config, step, 5) for step in range(40)]
    assert (
        rates[0] == pytest.approx(0.4) and rates[2] == pytest.approx(1.2) and rates[4] == pytest.approx(2.0)
    )
    assert rates[7] == pytest.approx(2 * (0.1 + 0.9 / 2)) and rates[10] == pytest.approx(0.2)
    assert rates[20] == pytest.approx(2 * (0.05 + 0.45 / 2)) and rates[30:] == [pytest.approx(0.1)] * 10
    line = OptimizerConfig(decay="linear", cycles=(RateCycle(steps=10, floor=0.5),), lr=1.0)
    assert learning_rate(line, 4, 5) == pytest.approx(0.8) and learning_rate(line, 99, 5) == pytest.approx(
        0.5
    )

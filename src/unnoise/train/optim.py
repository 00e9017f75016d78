"""The optimiser, its learning rate, and the loss scale that float16 needs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unnoise.config.schema import OptimizerConfig, RateCycle


def make_optimizer(params: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over all parameters, in one fused pass.

    m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; w <- w - lr (weight_decay w + m' / (sqrt(v') + eps)), with
    m', v' the bias-corrected averages. Parameters of half precision, which the fused pass would round, take
    the foreach one.
    """
    params = list(params)
    fused = all(p.dtype == torch.float32 and p.device.type in ("cpu", "cuda", "mps") for p in params)
    return torch.optim.AdamW(
        params,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused or None,
        foreach=None if fused else True,
    )


def moments_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """What an optimiser of a network's parameters remembers, as "WHAT.PARAMETER"."""
    return {
        f"{key}.{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, network: nn.Module, stored: Mapping[str, Tensor]
) -> None:
    """Have an optimiser remember that, and nothing else."""
    optimizer.state.clear()
    for name, parameter in network.named_parameters():
        moments = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = stored.get(f"{key}.{name}")
            if value is None:
                continue
            if key == "step":
                # A copy: the optimiser counts in place.
                moments[key] = value.to(parameter.device if parameter.is_cuda else "cpu").clone()
            else:
                # In the parameter's own memory layout: the fused step walks both side by side.
                moments[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        if moments:
            optimizer.state[parameter] = moments


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Learning rate that the update number `step` (from 0) of `total` uses.

    linear: lr (1 - max(step - 1, 0) / total), the published loop, which sets the rate after each update from
    a step not yet counted, so that the first two updates take the full rate. cosine: lr (1 + cos(pi step /
    total)) / 2. Warm-up multiplies by min(1, (step + 1) / warmup_steps). Cycles have a way of their own.
    """
    if config.cycles:
        return config.lr * cycle_factor(config.cycles, config.decay, step)
    rate = config.lr
    if config.decay == "linear":
        rate *= 1 - max(step - 1, 0) / total
    elif config.decay == "cosine":
        rate *= (1 + math.cos(math.pi * step / total)) / 2
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    return rate


def cycle_factor(cycles: Sequence[RateCycle], decay: str, step: int) -> float:
    """Share of the learning rate at the update number `step` (from 0), n updates into its cycle.

    start + (peak - start) n / warmup_steps in the warm-up, then floor + (peak - floor) f with f = 1 - n /
    steps (linear) or (1 + cos(pi (n - warmup_steps) / (steps - warmup_steps))) / 2 (cosine): the schedulers
    of latent diffusion. A cycle's last update is the one at which it has come down.
    """
    left_out = 0
    while left_out < len(cycles) - 1 and step > cycles[left_out].steps:
        step -= cycles[left_out].steps
        left_out += 1
    cycle = cycles[left_out]
    if step < cycle.warmup_steps:
        return cycle.start + (cycle.peak - cycle.start) * step / cycle.warmup_steps
    step = min(step, cycle.steps)
    if decay == "linear":
        left = 1 - step / cycle.steps
    else:
        left = (1 + math.cos(math.pi * (step - cycle.warmup_steps) / (cycle.steps - cycle.warmup_steps))) / 2
    return cycle.floor + (cycle.peak - cycle.floor) * left


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this rate from the next update on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def gradient_norm(params: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, a scalar; finite exactly when all of them are."""
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(grads)])
    return norms.square().sum().sqrt()


def scale_gradients(params: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply all gradients in place."""
    grads = [p.grad for p in params if p.grad is not None]
    if grads and factor != 1:
        torch._foreach_mul_(grads, factor)


@dataclass
class LossScale:
    """Factor on a float16 loss that keeps small gradients from vanishing; 1 and constant when not `active`.

    Halved when a gradient overflows, but never below `floor`: a run whose gradients overflow there is broken,
    and says so, where an unbounded scale would fall to 0 and train on nothing.
    """

    active: bool = False
    value: float = 2.0**16
    good: int = 0
    """Steps without overflow since the last change."""
    growth_interval: int = 2000
    floor: float = 1.0
    ceiling: float = 2.0**24

    @property
    def factor(self) -> float:
        """What to multiply the loss by."""
        return self.value if self.active else 1.0

    @property
    def can_shrink(self) -> bool:
        """Whether an overflow may still be the scale's fault."""
        return self.active and self.value > self.floor

    def update(self, finite: bool) -> None:
        """Learn from one step."""
        if not self.active:
            return
        if not finite:
            self.value, self.good = max(self.value / 2, self.floor), 0
        elif self.good + 1 >= self.growth_interval:
            self.value, self.good = min(self.value * 2, self.ceiling), 0
        else:
            self.good += 1

"""One optimiser step over the global batch: the same numbers whatever the processes and micro-batches."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unnoise import distributed
from unnoise.config.schema import TrainConfig
from unnoise.diffusion.noise import seeded_generator
from unnoise.train.job import Batch, Losses
from unnoise.train.optim import gradient_norm, learning_rate, scale_gradients, set_learning_rate
from unnoise.train.state import TrainState


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step came to."""

    loss: float
    """Mean over the global batch of weight * loss, the number that was minimised."""
    norm: float
    """Of the gradient, before clipping."""
    lr: float
    sums: Mapping[str, tuple[float, int]]
    """For the log: name -> (sum, count)."""
    fault: str = ""
    """Why nothing was learned; empty for a good step."""
    flagged: bool = False
    """Whether some process wants to stop."""
    excused: bool = False
    """A fault that a smaller loss scale may cure, as float16 has them now and then."""


def take_step(
    state: TrainState, network: nn.Module, batch: Batch, config: TrainConfig, *, flag: bool = False
) -> Outcome:
    """Gradient of the mean loss, clipped; AdamW; averages: then the state is one step further.

    `network` is the state's own, perhaps wrapped for several processes; `batch` is this process's share.
    `flag` of any process comes back as `flagged` in all. A loss or gradient that is not finite changes no
    weight.
    """
    rows = accumulate(state, network, batch, config)
    rows["flag"] = torch.full_like(rows["loss"], float(flag))
    seen = _gather(rows, config.batch_size)
    loss = (seen["loss"] * seen["weight"]).mean().item()
    norm = gradient_norm(state.parameters).item() / state.scale.factor
    fault = _fault(loss, norm, state)
    lr = learning_rate(config.optimizer, state.step, config.steps)
    if not fault:
        clip = config.optimizer.clip_norm
        shrink = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
        scale_gradients(state.parameters, shrink / state.scale.factor)
        set_learning_rate(state.optimizer, lr)
        state.optimizer.step()
        state.ema.update(state.parameters)
        aside = {k.removeprefix("aside."): v for k, v in seen.items() if k.startswith("aside.")}
        state.job.observe(aside, steps=config.steps)
    excused = bool(fault) and math.isfinite(loss) and state.scale.can_shrink
    state.scale.update(math.isfinite(norm))
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    flagged = bool(seen["flag"].any())
    return Outcome(loss, norm, lr, _sums(seen, state.job.groups), fault, flagged, excused)


def accumulate(state: TrainState, network: nn.Module, batch: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """Leave scale * d(sum of weight * loss / B) / d(weights) in the gradients; return each picture's cost.

    Sums over B, the global batch, rather than means of means: exact for a last micro-batch or a process with
    fewer pictures. Gradients of several processes are averaged, hence the factor.
    """
    device = next(state.network.parameters()).device
    size = config.micro_batch or len(batch)
    starts = range(0, len(batch), size)
    factor = distributed.world() * state.scale.factor / config.batch_size
    kept = []
    state.optimizer.zero_grad(set_to_none=True)
    for number, start in enumerate(starts):
        _seed_dropout(config.seed, state.step, distributed.rank(), number)
        part = batch.take(slice(start, start + size)).to(device)
        last = start == starts[-1]
        with contextlib.nullcontext() if last else distributed.apart(network):
            losses: Losses = state.job.losses(network, part)
            weight = torch.ones_like(losses.loss) if losses.weight is None else losses.weight
            (factor * (weight * losses.loss).sum()).backward()
        kept.append(_table(losses, weight))
    return {name: torch.cat([rows[name] for rows in kept]) for name in kept[0]}


def _table(losses: Losses, weight: Tensor) -> dict[str, Tensor]:
    rows = {"loss": losses.loss, "weight": weight}
    if losses.group is not None:
        rows["group"] = losses.group
    rows |= {f"part.{name}": value for name, value in losses.parts.items()}
    rows |= {f"score.{name}": value for name, value in losses.scores.items()}
    rows |= {f"aside.{name}": value for name, value in losses.aside.items()}
    return {name: value.detach().float() for name, value in rows.items()}


def _gather(rows: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The rows of all processes in the order of the global batch, float64 on the CPU, in one transfer."""
    joined = distributed.gather(torch.stack(list(rows.values())), count)
    return dict(zip(rows, joined.cpu().double(), strict=True))


def _sums(seen: dict[str, Tensor], groups: Any) -> dict[str, tuple[float, int]]:
    loss = seen["loss"]
    parts = {k.removeprefix("part."): v for k, v in seen.items() if k.startswith("part.")}
    scores = {k.removeprefix("score."): v for k, v in seen.items() if k.startswith("score.")}
    sums = {"loss": _sum(loss * seen["weight"])}
    sums |= {f"loss/{name}": _sum(values) for name, values in parts.items()}
    sums |= {name: _sum(values) for name, values in scores.items()}
    for number, group in enumerate(groups if "group" in seen else ()):
        mine = seen["group"] == number
        sums |= {f"{name}/{group}": _sum(v[mine]) for name, v in {"loss": loss, **scores}.items()}
    return sums


def _sum(values: Tensor) -> tuple[float, int]:
    return values.sum().item(), len(values)


def _fault(loss: float, norm: float, state: TrainState) -> str:
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        scale = f" at loss scale {state.scale.value:g}" if state.scale.active else ""
        return f"the gradient is not finite{scale}"
    return ""


def _seed_dropout(seed: int, step: int, rank: int, micro_step: int) -> None:
    """Dropout takes no generator, so the device's own is set, to a function of the place in the run."""
    generator = seeded_generator(seed, "dropout", step, rank, micro_step)
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))

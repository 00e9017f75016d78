"""What a run will take, measured by real steps made before the first and then undone."""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unnoise import distributed
from unnoise.config.schema import TrainConfig
from unnoise.train import memory
from unnoise.train.job import Job
from unnoise.train.loop import evaluation_due, grid_due, save_due
from unnoise.train.state import new_state
from unnoise.train.step import take_step

COMPILE_GAIN = 0.2
"""Share of a step's time that torch.compile saves: about a fifth on the CPUs and GPUs that were measured."""
COMPILE_SECONDS = {"cpu": 170.0, "cuda": 90.0}
"""What compiling costs before the first step."""
MOST_MEASURED = 60
"""Steps measured at most."""
SPARE = 0.7
"""Share of the available memory that activations may take."""
SLACK = 0.97
"""Share of the minutes asked for that is planned, as machines are not equally fast all the time."""


@dataclass(frozen=True)
class Cost:
    """Of one optimiser step."""

    seconds: float
    memory: int
    """Peak bytes."""


def measure(
    job: Job[Any],
    network: nn.Module,
    config: TrainConfig,
    *,
    budget: float = 0.0,
    on_step: Callable[[], None] = lambda: None,
) -> Cost:
    """Make two real steps, or more within `budget` seconds, and put everything back as it was.

    The first ones warm up; the median of the later half counts. The optimiser, averages and loss scale are
    throw-away ones.
    """
    device = next(job.network.parameters()).device
    weights = {name: value.clone() for name, value in job.network.state_dict().items()}
    kept = {name: value.clone() for name, value in job.state_dict().items()}
    state = new_state(job, config)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    mine = distributed.share(config.batch_size)
    times: list[float] = []
    job.network.train()
    try:
        # Times are the slowest process's, so that all make equally many steps.
        while len(times) < 2 or (sum(times) < budget and len(times) < MOST_MEASURED):
            batch = job.draw(len(times), mine)
            started = time.perf_counter()
            take_step(state, network, batch, config)
            _synchronize(device)
            on_step()
            times.append(distributed.largest(time.perf_counter() - started, device))
    finally:
        job.network.load_state_dict(weights)
        job.load_state_dict(kept)
        job.network.zero_grad(set_to_none=True)
    return Cost(statistics.median(times[len(times) // 2 :]), memory.peak(device))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def fit_memory(
    job: Job[Any], network: nn.Module, config: TrainConfig, *, budget: float, on_step: Callable[[], None]
) -> tuple[TrainConfig, Cost]:
    """Settings with a micro-batch, the largest that fits where they leave it open, and what a step costs."""
    if config.micro_batch is not None:
        tries = [config]
    else:
        size = fitting_micro_batch(job, config)
        # Several processes would have to fail together to try again together.
        count = size.bit_length() if distributed.world() == 1 else 1
        tries = [replace(config, micro_batch=-(-size // 2**k)) for k in range(count)]
    for attempt in tries:
        try:
            return attempt, measure(job, network, attempt, budget=budget, on_step=on_step)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise ValueError(
        f"micro_batch={tries[-1].micro_batch} does not fit into the GPU's memory; use a smaller one, a "
        "smaller network, or model.network.checkpoint=true"
    )


def fitting_micro_batch(job: Job[Any], config: TrainConfig) -> int:
    """The largest equal share of this process's pictures whose activations fit into the memory that is free.

    Counts the bytes that one forward pass keeps for the backward one.
    """
    device = next(job.network.parameters()).device
    mine = distributed.share(config.batch_size)
    free = memory.available(device)
    if free is None:
        return len(mine)
    pictures = min(2, len(mine))
    held = {p.untyped_storage().data_ptr() for p in job.network.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    job.network.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = job.losses(job.network, job.draw(0, mine[:pictures]).to(device))
    del losses
    # Weights, gradients, two moments and the averages come first; a backward pass holds about as much again.
    size = sum(p.numel() * p.element_size() for p in job.network.parameters())
    room = SPARE * free - (3 + len(config.ema.rates)) * size
    each = 2 * sum(seen.values()) / pictures
    most = int(distributed.largest(-max(1.0, room / max(each, 1)), device) * -1)
    parts = -(-len(mine) // max(1, min(most, len(mine))))
    return -(-len(mine) // parts)


def worth_compiling(seconds: float, device: torch.device) -> bool:
    """Whether steps of `seconds` in all gain clearly more from torch.compile than compiling costs."""
    cost = COMPILE_SECONDS.get(device.type)
    if cost is None or (device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++")))):
        return False
    return seconds * COMPILE_GAIN > 2 * cost


def steps_within(
    seconds: float, cost: Cost, config: TrainConfig, *, passes: int, evaluation: float = 0.0
) -> int:
    """Steps that fit into this time with their grids, evaluations and checkpoints; at least 1.

    passes: how often a grid puts a picture through the network (`Job.sampled`); evaluation: seconds of one.

    A forward pass is taken for a third of a training step, a checkpoint for a tenth of a second.
    """
    grid = passes * cost.seconds / (3 * config.batch_size)

    def total(steps: int) -> float:
        plan = replace(config, steps=steps)
        grids = sum(grid_due(s, plan) for s in _marks(plan))
        saves = sum(save_due(s, plan) for s in _marks(plan))
        evaluations = sum(evaluation_due(s, plan) for s in _marks(plan))
        return steps * cost.seconds + grids * grid + evaluations * evaluation + saves * 0.1

    low, high = 1, max(1, int(SLACK * seconds / cost.seconds)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= SLACK * seconds else (low, middle)
    return low


def _marks(config: TrainConfig) -> set[int]:
    """Steps after which something other than a step may be due."""
    marks = {config.steps, *(m for m in config.milestones if m <= config.steps)}
    marks |= {2**k for k in range(config.steps.bit_length()) if 2**k <= config.steps}
    for every in (config.sample_every, config.evaluate.every, config.save_every):
        if every:
            marks |= set(range(every, config.steps + 1, every))
    return marks

"""The training loop: steps, and between them the log, sample grids and checkpoints."""

import math
import time
from typing import Any

import torch
from torch import nn

from unnoise import distributed
from unnoise.config.schema import TrainConfig
from unnoise.train import checkpoint, memory
from unnoise.train.evaluation import PREFIX, Evaluator
from unnoise.train.events import Evaluated, Listener, Note, Sampled, Skipped, StepDone, TrainResult
from unnoise.train.prefetch import ahead
from unnoise.train.run import BEST, RunDirectory, checkpoints
from unnoise.train.signals import Interrupted, Interruption
from unnoise.train.state import Means, TrainState
from unnoise.train.step import Outcome, take_step

PATIENCE = 10
"""Steps in a row that may fail before the run gives up."""


def fit(
    state: TrainState,
    network: nn.Module,
    config: TrainConfig,
    run: RunDirectory | None,
    on_event: Listener,
    interruption: Interruption,
    evaluator: Evaluator | None = None,
) -> TrainResult:
    """Take the steps that are left. `run` is None in all processes but the first, which writes.

    `network` is the state's own, perhaps compiled and wrapped for several processes.
    """
    device = next(state.network.parameters()).device
    mine = distributed.share(config.batch_size)
    meter = Meter(config, device, state.step)
    saved = False
    if run and state.step and grid_due(state.step, config) and not run.grid_path(state.step).exists():
        _sample(state, run, on_event, interruption)  # a signal came while it was drawn
    if run and evaluator and evaluation_due(state.step, config) and state.evaluated != state.step:
        _evaluate(state, evaluator, run, on_event, interruption)  # or in an evaluation, or none was asked for
        run.save(state, on_event)
    stopping = distributed.world() == 1 and bool(interruption)

    def draw(step: int) -> Any:
        batch = state.job.draw(step, mine)
        return batch.pin() if device.type == "cuda" else batch

    state.network.train()
    with ahead(draw, state.step, config.steps) as next_batch:
        while state.step < config.steps and not stopping:
            started = time.perf_counter()
            outcome = take_step(state, network, next_batch(), config, flag=bool(interruption))
            meter.add(time.perf_counter() - started)
            state.seconds += time.perf_counter() - started
            stopping = outcome.flagged or (distributed.world() == 1 and bool(interruption))
            _count(state, outcome, on_event)
            on_event(meter.event(state, outcome))
            if state.in_a_row >= PATIENCE:
                return _diverged(state, outcome, run)
            if state.step % config.log_every == 0 or state.step == config.steps:
                if run:
                    run.log(state.step, _line(state, outcome, meter))
                state.logged = Means()
                meter.restart()
            if run and grid_due(state.step, config) and not stopping:
                _sample(state, run, on_event, interruption)
                stopping = distributed.world() == 1 and bool(interruption)
            if run and evaluator and evaluation_due(state.step, config) and not stopping:
                _evaluate(state, evaluator, run, on_event, interruption)
                stopping = distributed.world() == 1 and bool(interruption)
            best = state.best is not None and state.best.step == state.step
            if run and (save_due(state.step, config) or best or stopping):
                run.save(state, on_event)
                saved = True
    if run and not saved:
        run.save_models(state)  # a run killed right after its last checkpoint may lack them
    distributed.barrier()
    unfinished = state.step < config.steps
    return _result(state, run, (interruption.name or "SIGTERM") if unfinished else None)


def grid_due(step: int, config: TrainConfig) -> bool:
    """Whether a grid follows a step: 1, 2, 4, 8, ..., every `sample_every`, the last; never if that is 0."""
    every = config.sample_every
    return every > 0 and (step & (step - 1) == 0 or step % every == 0 or step == config.steps)


def evaluation_due(step: int, config: TrainConfig) -> bool:
    """Whether an evaluation follows a step: every `evaluate.every` and the last; never if that is 0."""
    every = config.evaluate.every
    return every > 0 and step > 0 and (step % every == 0 or step == config.steps)


def save_due(step: int, config: TrainConfig) -> bool:
    """Whether a checkpoint follows a step."""
    return step % config.save_every == 0 or step in config.milestones or step == config.steps


class Meter:
    """Speed and time left, from the steps since the last line of the log."""

    def __init__(self, config: TrainConfig, device: torch.device, step: int) -> None:
        self._config, self._device = config, device
        self._seconds, self._steps = 0.0, 0
        self._loss = math.nan
        self._before = 0.0
        """Seconds a step in the window before, for the first steps of a new one."""

    def add(self, seconds: float) -> None:
        """Count one step."""
        self._seconds += seconds
        self._steps += 1

    def restart(self) -> None:
        """Begin a new window."""
        self._before = self.step_seconds
        self._seconds, self._steps = 0.0, 0

    @property
    def step_seconds(self) -> float:
        """Seconds a step."""
        return self._seconds / self._steps if self._steps else self._before

    @property
    def images_per_second(self) -> float:
        """Pictures a second, over all processes."""
        return self._config.batch_size / max(self.step_seconds, 1e-9)

    @property
    def memory(self) -> int:
        """Peak bytes."""
        return memory.peak(self._device)

    def event(self, state: TrainState, outcome: Outcome) -> StepDone:
        """What a progress line shows; of a step that was skipped, the loss before."""
        self._loss = state.logged.means().get("loss", self._loss)
        return StepDone(
            step=state.step,
            steps=self._config.steps,
            loss=self._loss,
            lr=outcome.lr,
            images_per_second=self.images_per_second,
            seconds_left=(self._config.steps - state.step) * self.step_seconds,
            memory=self.memory,
            skipped=state.skipped,
        )


def _count(state: TrainState, outcome: Outcome, on_event: Listener) -> None:
    if not outcome.fault:
        state.in_a_row = 0
        for name, (total, count) in outcome.sums.items():
            state.logged.add(name, total, count)
        state.logged.add("grad_norm", outcome.norm)
        state.scored.add("loss", outcome.loss)
        return
    state.skipped += 1
    state.in_a_row += not outcome.excused
    on_event(Skipped(step=state.step, reason=outcome.fault, in_a_row=state.in_a_row, total=state.skipped))


def _line(state: TrainState, outcome: Outcome, meter: Meter) -> dict[str, float | int]:
    scale = {"loss_scale": state.scale.value} if state.scale.active else {}
    return {
        **state.logged.means(),
        "lr": outcome.lr,
        "skipped": state.skipped,
        "images_per_second": round(meter.images_per_second, 3),
        "seconds": round(state.seconds, 3),
        "memory": meter.memory,
        **scale,
    }


def _sample(state: TrainState, run: RunDirectory, on_event: Listener, interruption: Interruption) -> None:
    """A grid from the first average, given up when a signal comes."""
    path = run.grid_path(state.step)
    path.parent.mkdir(exist_ok=True)
    try:
        measured = state.job.sample(path, state.ema.weights(), on_step=interruption.check)
    except Interrupted:
        return
    except FloatingPointError as error:  # a picture that overflowed is no reason to stop learning
        on_event(Note(text=f"no grid after step {state.step}: {error}"))
        return
    run.events.picture(state.step, "samples", path)
    if measured:
        run.log(state.step, dict(measured))
    on_event(Sampled(step=state.step, path=path, measured=measured))
    if state.job.warning:
        on_event(Note(text=f"warning after step {state.step}: {state.job.warning}"))


def _evaluate(
    state: TrainState, evaluator: Evaluator, run: RunDirectory, on_event: Listener, interruption: Interruption
) -> None:
    """Measure the first average and keep it if it is the best, given up when a signal comes."""
    weights, rate = state.ema.weights(), state.ema.rates[0]
    try:
        measured = evaluator.measure(weights, on_step=interruption.check)
    except Interrupted:
        return
    except (FloatingPointError, ValueError) as error:  # pictures that cannot be measured, as for a grid
        state.evaluated = state.step
        on_event(Note(text=f"no evaluation after step {state.step}: {error}"))
        return
    state.evaluated = state.step
    if run.config.evaluate.keep_best:
        state.best = evaluator.best(state.step, measured, state.best)
    best = state.best is not None and state.best.step == state.step
    if state.best and best:
        # Before the checkpoint that knows of it: a run that is killed in between finds the same best again.
        evaluator.save(run.path / BEST, weights, rate=rate, best=state.best)
    run.log(state.step, {f"{PREFIX}{name}": value for name, value in measured.items()})
    on_event(Evaluated(step=state.step, measured=measured, best=best))


def _diverged(state: TrainState, outcome: Outcome, run: RunDirectory | None) -> TrainResult:
    last = checkpoint.listed(checkpoints(run.path)) if run else []
    good = f"the last good checkpoint is {last[-1]}" if last else "there is no checkpoint yet"
    message = (
        f"{PATIENCE} steps in a row failed, the last at step {state.step}: {outcome.fault}; {good}. "
        "Try a lower optimizer.lr, a longer optimizer.warmup_steps or precision float32, with another --out"
    )
    return _result(state, run, "diverged", message)


def _result(
    state: TrainState, run: RunDirectory | None, stopped: str | None, message: str = ""
) -> TrainResult:
    model = run.path / "model.safetensors" if run else None
    if stopped in ("SIGINT", "SIGTERM"):
        message = f"stopped by {stopped} at step {state.step}, saved; run the same command to continue"
    return TrainResult(
        steps=state.step,
        skipped=state.skipped,
        model_path=model if model and model.exists() else None,
        stopped=stopped,
        seconds=state.seconds,
        message=message,
        best=state.best,
    )

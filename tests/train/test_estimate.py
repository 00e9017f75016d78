"""What is measured before the first step disturbs nothing and decides what was left open."""

import time
from pathlib import Path

import pytest
import torch

from tests.train.test_step import state_of
from tests.train.tiny import assert_same_run, changed, tiny_config, tiny_run
from unnoise.config.load import read_config
from unnoise.config.schema import TrainConfig
from unnoise.train import estimate, memory
from unnoise.train.estimate import (
    Cost,
    fit_memory,
    fitting_micro_batch,
    measure,
    steps_within,
    worth_compiling,
)
from unnoise.train.events import Measured
from unnoise.train.loop import grid_due, save_due


def test_measuring_puts_everything_back() -> None:
    state, config = state_of(tiny_config())
    weights = {n: v.clone() for n, v in state.network.state_dict().items()}
    learned = {n: v.clone() for n, v in state.job.state_dict().items()}
    cost = measure(state.job, state.network, config)
    assert cost.seconds > 0 and cost.memory > 1e6
    assert all(torch.equal(weights[n], v) for n, v in state.network.state_dict().items())
    assert all(torch.equal(learned[n], v) for n, v in state.job.state_dict().items())
    assert all(p.grad is None for p in state.parameters)


def test_steps_that_warm_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = state_of(tiny_config())
    waits = iter([0.2, 0.1, 0.1, *[0.01] * 100])
    monkeypatch.setattr("unnoise.train.estimate.take_step", lambda *_: time.sleep(next(waits)))
    assert 0.01 <= measure(state.job, state.network, config, budget=0.5).seconds < 0.05


def test_minutes_set_the_steps_once(tmp_path: Path) -> None:
    config = tiny_config(minutes=0.02, save_every=1000)
    result, events = tiny_run(tmp_path / "a", config)
    stored = read_config(TrainConfig, tmp_path / "a" / "config.yaml")
    assert stored.minutes == 0.02 and stored.steps == result.steps >= 1
    assert next(e for e in events if isinstance(e, Measured)).steps == result.steps
    again, events = tiny_run(tmp_path / "a", config)
    assert again.steps == result.steps and not any(isinstance(e, Measured) for e in events)
    # The same steps asked for directly are the same run.
    tiny_run(tmp_path / "b", changed(config, minutes=None, steps=result.steps))
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("sample_every, save_every", [(0, 10**6), (50, 10**6), (0, 3), (7, 11)])
def test_steps_within_leaves_time_for_grids_and_checkpoints(sample_every: int, save_every: int) -> None:
    config = tiny_config(sample_every=sample_every, save_every=save_every, sample_steps=20)
    cost = Cost(seconds=0.25, memory=0)
    steps = steps_within(100.0, cost, config, passes=20 * 24)
    plan = changed(config, steps=steps)

    def seconds(plan: TrainConfig) -> float:
        marks = range(1, plan.steps + 1)
        grids, saves = sum(grid_due(s, plan) for s in marks), sum(save_due(s, plan) for s in marks)
        return plan.steps * 0.25 + grids * 20 * 24 * 0.25 / 24 + saves * 0.1

    assert seconds(plan) <= 97.0 < seconds(changed(plan, steps=steps + 8))
    assert steps_within(0.0, cost, config, passes=20 * 24) == 1


def test_grids_follow_powers_of_two_and_the_last_step() -> None:
    config = tiny_config(sample_every=10, steps=25)
    assert [s for s in range(1, 26) if grid_due(s, config)] == [1, 2, 4, 8, 10, 16, 20, 25]
    assert not any(grid_due(s, tiny_config(sample_every=0)) for s in range(1, 26))


def test_the_micro_batch_fits_into_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = state_of(tiny_config(batch_size=8, micro_batch=None))
    assert fitting_micro_batch(state.job, config) == 8
    chosen = []
    for free in (10**5, 3 * 10**6, 10**7, 10**9):
        monkeypatch.setattr(memory, "available", lambda device, free=free: free)
        chosen.append(fitting_micro_batch(state.job, config))
    assert chosen[0] == 1 and chosen[-1] == 8 and chosen == sorted(chosen)
    monkeypatch.setattr(memory, "available", lambda device: None)
    assert fitting_micro_batch(state.job, config) == 8


@pytest.mark.parametrize("asked, room, found", [(None, 8, 8), (None, 2, 2), (None, 0, None), (3, 2, None)])
def test_a_gpu_that_is_full_halves_the_micro_batch(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, room: int, found: int | None
) -> None:
    def measure(job: object, network: object, config: TrainConfig, **_: object) -> Cost:
        if config.micro_batch > room:
            raise torch.OutOfMemoryError
        return Cost(1.0, 0)

    state, config = state_of(tiny_config(micro_batch=asked))
    monkeypatch.setattr(estimate, "measure", measure)
    if found is None:
        with pytest.raises(ValueError, match=f"micro_batch={asked or 1} does not fit into the GPU's memory"):
            fit_memory(state.job, state.network, config, budget=0.0, on_step=lambda: None)
    else:
        fitted, _ = fit_memory(state.job, state.network, config, budget=0.0, on_step=lambda: None)
        assert fitted.micro_batch == found


def test_compiling_must_repay_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(estimate.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert worth_compiling(3600.0, cpu) and not worth_compiling(600.0, cpu)
    monkeypatch.setattr(estimate.shutil, "which", lambda name: None)
    assert not worth_compiling(3600.0, cpu)
    assert not worth_compiling(3600.0, torch.device("mps"))


def test_memory_is_known_here() -> None:
    cpu = torch.device("cpu")
    assert memory.peak(cpu) > 10**7
    free = memory.available(cpu)
    assert free is None or free > 10**6

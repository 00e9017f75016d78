"""One step: the same whatever the micro-batches, and nothing learned from numbers that are none."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.tiny import tiny_config, tiny_data, tiny_run
from unnoise.config.resolve import resolve
from unnoise.config.schema import TrainConfig
from unnoise.train import step as step_module
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.events import Skipped, StepDone
from unnoise.train.job import Losses
from unnoise.train.state import TrainState, new_state
from unnoise.train.step import accumulate, take_step


def state_of(config: TrainConfig) -> tuple[TrainState, TrainConfig]:
    config = resolve(config, size=8, channels=1, classes=3)
    job = DiffusionJob(config, tiny_data(config.seed), torch.device("cpu"))
    with torch.no_grad():  # as the last layers start at 0, most gradients would be 0
        for parameter in job.network.parameters():
            parameter.add_(0.02 * torch.ones_like(parameter))
    return new_state(job, config), config


def gradients(config: TrainConfig) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    state, config = state_of(config)
    state.network.train()
    rows = accumulate(state, state.network, state.job.draw(0, range(config.batch_size)), config)
    return {n: p.grad.clone() for n, p in state.network.named_parameters() if p.grad is not None}, rows


NO_DROPOUT = {"network": {"dropout": 0.0}}
IMPORTANCE = {"name": "loss_second_moment", "history": 1, "uniform_prob": 0.1}


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_any_micro_batch_gives_the_gradient_of_the_mean(size: int) -> None:
    whole, rows = gradients(tiny_config(model=NO_DROPOUT, micro_batch=8))
    parts, rows_of_parts = gradients(tiny_config(model=NO_DROPOUT, micro_batch=size))
    assert torch.allclose(rows["loss"], rows_of_parts["loss"], rtol=1e-5)
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    for name, gradient in whole.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-3, atol=1e-6 * largest), name


def test_the_loss_is_the_mean_of_weight_times_loss() -> None:
    state, config = state_of(tiny_config(model=NO_DROPOUT, optimizer={"clip_norm": None}))
    # All times seen once, with losses that differ: importance weights are no longer 1.
    state.job.observe({"i": torch.arange(20), "loss": torch.linspace(1, 5, 20)}, steps=1000)
    batch = state.job.draw(0, range(8))
    losses = state.job.losses(state.network, batch)
    assert losses.weight is not None and losses.weight.std() > 0.1
    expected = (losses.weight * losses.loss).mean()
    expected.backward()
    norm = torch.stack([p.grad.norm() for p in state.parameters if p.grad is not None]).norm()
    outcome = take_step(state, state.network, batch, config)
    assert outcome.loss == pytest.approx(expected.item(), rel=1e-5)
    assert outcome.norm == pytest.approx(norm.item(), rel=1e-4)


def test_clipping_bounds_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = state_of(tiny_config(optimizer={"clip_norm": 0.01}))
    used = []
    monkeypatch.setattr(
        state.optimizer, "step", lambda: used.append(step_module.gradient_norm(state.parameters).item())
    )
    outcome = take_step(state, state.network, state.job.draw(0, range(8)), config)
    assert outcome.norm > 0.02 and used[0] == pytest.approx(0.01, rel=1e-3)


def test_draws_depend_on_seed_step_and_position_alone() -> None:
    job = DiffusionJob(
        resolve(tiny_config(), size=8, channels=1, classes=3), tiny_data(), torch.device("cpu")
    )
    whole, part = job.draw(5, range(8)), job.draw(5, range(3, 6))
    for name in ("pixels", "eps", "u", "label"):
        assert torch.equal(getattr(whole, name)[3:6], getattr(part, name)), name
    other = job.draw(6, range(8))
    assert not torch.equal(whole.eps, other.eps) and not torch.equal(whole.u, other.u)
    labels = torch.cat([job.draw(s, range(8)).label for s in range(40)])
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert (labels == 3).float().mean().item() == pytest.approx(0.3, abs=0.1)


def test_dropout_masks_follow_the_step_and_the_micro_step() -> None:
    one, _ = gradients(tiny_config(micro_batch=4))
    again, _ = gradients(tiny_config(micro_batch=4))
    other, _ = gradients(tiny_config(micro_batch=4, seed=1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def broken_losses(monkeypatch: pytest.MonkeyPatch, bad: set[int], what: str = "loss") -> None:
    """Make the loss or the gradient of some steps not finite."""
    original = step_module.accumulate

    def accumulate(state: Any, network: Any, batch: Any, config: Any) -> Any:
        rows = original(state, network, batch, config)
        if state.step in bad:
            if what == "loss":
                rows["loss"][0] = math.nan
            else:
                state.parameters[0].grad.view(-1)[0] = math.inf
        return rows

    monkeypatch.setattr(step_module, "accumulate", accumulate)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config = tiny_config(sample_every=0)
    broken_losses(monkeypatch, {2, 3, 7}, what)
    result, events = tiny_run(tmp_path, config)
    assert result.steps == 12 and result.skipped == 3 and result.stopped is None
    skipped = [e for e in events if isinstance(e, Skipped)]
    assert [(e.step, e.in_a_row, e.total) for e in skipped] == [(3, 1, 1), (4, 2, 2), (8, 1, 3)]
    assert all(what in e.reason for e in skipped)
    assert all(math.isfinite(e.loss) for e in events if isinstance(e, StepDone))


def test_ten_in_a_row_stop_the_run_and_name_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_losses(monkeypatch, set(range(5, 99)))
    result, events = tiny_run(tmp_path, tiny_config(steps=40, save_every=4))
    assert result.stopped == "diverged" and result.exit_status == 1 and result.steps == 15
    # Steps 6..15 failed; 12 is a checkpoint of the same weights as 5.
    assert "10 steps in a row failed, the last at step 15: the loss is nan" in result.message
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / 'step-00000012'}" in result.message
    assert [e.in_a_row for e in events if isinstance(e, Skipped)] == list(range(1, 11))


def test_float16_overflows_lower_the_scale_and_are_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = state_of(tiny_config())
    state.scale = replace(state.scale, active=True, value=4.0)
    before = {n: p.detach().clone() for n, p in state.network.named_parameters()}
    broken_losses(monkeypatch, {0, 1, 2}, "gradient")
    batch = state.job.draw(0, range(8))
    outcomes = [step_module.take_step(state, state.network, batch, config) for _ in range(3)]
    assert [(bool(o.fault), o.excused) for o in outcomes] == [(True, True), (True, True), (True, False)]
    assert state.scale.value == 1.0 and state.ema.updates == 0
    assert all(torch.equal(before[n], p) for n, p in state.network.named_parameters())


def test_the_loss_scale_cancels() -> None:
    plain, config = state_of(tiny_config(model=NO_DROPOUT))
    scaled, _ = state_of(tiny_config(model=NO_DROPOUT))
    scaled.scale = replace(scaled.scale, active=True, value=1024.0)
    for state in (plain, scaled):
        take_step(state, state.network, state.job.draw(0, range(8)), config)
    for one, two in zip(plain.parameters, scaled.parameters, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_the_state_of_the_timestep_sampler_is_kept(tmp_path: Path) -> None:
    state, config = state_of(tiny_config())
    for _ in range(3):
        take_step(state, state.network, state.job.draw(state.step, range(8)), config)
    learned = state.job.state_dict()
    assert learned["seen"].sum() == 24
    fresh, _ = state_of(tiny_config())
    fresh.restore(state.snapshot())
    assert all(torch.equal(fresh.job.state_dict()[k], v) for k, v in learned.items())


def test_losses_may_come_without_weights_and_groups() -> None:
    rows = step_module._table(Losses(torch.tensor([1.0, 2.0])), torch.ones(2))
    assert rows.keys() == {"loss", "weight"}

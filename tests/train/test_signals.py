"""SIGINT and SIGTERM: saved, a clean end, and the run goes on to the same bits."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.train.tiny import assert_same_run, tiny_config, tiny_run
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.events import Sampled, Saved, StepDone
from unnoise.train.signals import Interruption


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends(tmp_path: Path, number: signal.Signals, status: int) -> None:
    def send(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result, events = tiny_run(tmp_path / "a", on_event=send)
    assert signal.getsignal(number) is before
    assert result.stopped == number.name and result.exit_status == status
    assert result.steps in (5, 6) and "run the same command to continue" in result.message
    assert [e.step for e in events if isinstance(e, Saved)][-1] == result.steps
    assert result.model_path is not None and result.model_path.exists()
    finished, _ = tiny_run(tmp_path / "a")
    assert finished.stopped is None
    tiny_run(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_more_signals_change_nothing(tmp_path: Path) -> None:
    def send(event: Any) -> None:
        if isinstance(event, StepDone | Saved) and event.step >= 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    result, _ = tiny_run(tmp_path, on_event=send)
    assert result.stopped == "SIGTERM"
    finished, _ = tiny_run(tmp_path)
    assert finished.steps == 12


def test_a_signal_in_a_grid_gives_the_grid_up_until_the_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unnoise.train import diffusion

    original = diffusion.draw

    def interrupted(*args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **options)

    config = tiny_config(sample_every=4)
    monkeypatch.setattr(diffusion, "draw", interrupted)
    result, events = tiny_run(tmp_path, config)
    assert result.stopped == "SIGINT" and result.steps == 1
    assert not any(isinstance(e, Sampled) for e in events)
    monkeypatch.setattr(diffusion, "draw", original)
    _, events = tiny_run(tmp_path, config)
    assert [e.step for e in events if isinstance(e, Sampled)] == [1, 2, 4, 8, 12]


def test_a_signal_before_the_first_step_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observe = DiffusionJob.observe

    def interrupted(self: Any, aside: Any, *, steps: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        observe(self, aside, steps=steps)

    monkeypatch.setattr(DiffusionJob, "observe", interrupted)
    result, events = tiny_run(tmp_path)
    assert result.stopped == "SIGTERM" and result.exit_status == 143 and result.steps == 0
    assert result.message == "stopped by SIGTERM before the first step"
    assert not any(isinstance(e, StepDone) for e in events) and not (tmp_path / "config.yaml").exists()


def test_in_a_thread_signals_are_not_caught() -> None:
    seen = []

    def work() -> None:
        with Interruption() as interruption:
            seen.append(bool(interruption))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]

"""What a run says on the terminal while pictures are made ready."""

from pathlib import Path

import pytest

from unnoise.cli import progress
from unnoise.cli.progress import TrainProgress
from unnoise.train.events import Encoding, Event, Reading


class Clock:
    """Seconds that pass as a test says."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: list[tuple[float, Event]]
) -> list[str]:
    """The lines that a log has of events at these seconds."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with TrainProgress(Path("run")) as listener:
        for clock.now, event in events:
            listener(event)
    return capsys.readouterr().err.splitlines()


def test_encoding_says_how_far_it_is_and_the_time_left(monkeypatch, capsys):
    events = [(10.0 * k, Encoding(done=64 * (k + 1), total=640)) for k in range(10)]
    lines = told(monkeypatch, capsys, events)
    # A line in 15 seconds at most; the pace is that since the first: 64 pictures in ten seconds.
    assert lines == [
        "192/640 pictures encoded  1 min 10 s left",
        "320/640 pictures encoded  50 s left",
        "448/640 pictures encoded  30 s left",
        "576/640 pictures encoded  10 s left",
    ]


def test_what_was_encoded_before_counts_for_no_pace_and_another_work_begins_anew(monkeypatch, capsys):
    reading = [(0.0, Reading(done=10, total=20)), (100.0, Reading(done=20, total=20))]
    encoding = [(100.0, Encoding(done=6400, total=12800)), (120.0, Encoding(done=6464, total=12800))]
    again = [(120.0, Encoding(done=64, total=128)), (130.0, Encoding(done=96, total=128))]
    lines = told(monkeypatch, capsys, reading + encoding + again)
    assert lines == ["6464/12800 pictures encoded  33 min 00 s left"]

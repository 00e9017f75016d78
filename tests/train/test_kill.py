"""kill -9 at the worst instants costs the steps since the last checkpoint, and no bit of the result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.killed", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "every bit is equal" and len(lines) == 14
    return folder


def test_killed_at_every_place_it_ends_in_the_same_bits(folder: Path) -> None:
    names = {path.name for path in (folder / "alone").rglob("*")}
    left = {path.name for path in (folder / "killed").rglob("*")}
    assert not any(".part-" in name or ".trash-" in name for name in left)
    assert names - left == {name for name in names if "tfevents" in name}


def test_the_log_of_a_killed_run_says_everything_once(folder: Path) -> None:
    clocks = ("seconds", "images_per_second", "memory")

    def learned(name: str) -> list[dict[str, object]]:
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]

    losses = [line["step"] for line in learned("killed") if "loss" in line]
    evaluations = [line["step"] for line in learned("killed") if "loss" not in line]
    assert losses == list(range(1, 17)) and evaluations == [5, 10, 15, 16]
    assert learned("killed") == learned("alone")


def test_the_events_of_a_killed_run_say_everything_once(folder: Path) -> None:
    def curve(name: str) -> list[tuple[int, str]]:
        (path,) = (folder / name / "tensorboard").iterdir()
        events = EventFileLoader(str(path)).Load()
        return [(e.step, v.tag) for e in events for v in e.summary.value if v.tag in ("loss", "samples")]

    assert curve("killed") == curve("alone")
    assert [step for step, tag in curve("alone") if tag == "loss"] == list(range(1, 17))

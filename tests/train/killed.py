"""Kills a tiny run with SIGKILL at chosen instants, lets it finish, and compares it with one left alone.

`python -m tests.train.killed FOLDER`: each attempt is a fork of one process that has imported everything and
computed nothing. Prints a line a kill; the exit status is 0 when every bit is equal.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimiser imports it: once here rather than in every fork

from tests.train.tiny import assert_same_run, tiny_config, tiny_run
from unnoise.train import checkpoint, diffusion, evaluation, log, start
from unnoise.train.events import StepDone

EVALUATE = {"every": 5, "n": 10, "features": "unnoise-small", "steps": "2", "keep_best": True}
CONFIG = tiny_config(
    steps=16, save_every=3, log_every=1, keep_last=2, sample_every=8, evaluate={**EVALUATE, "metric": "FD"}
)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def writing_settings() -> None:
    start.write_config = die


def in_a_step() -> None:
    diffusion.DiffusionJob.observe = die  # type: ignore[method-assign]


def in_a_weights_file() -> None:
    original = checkpoint._write_tensors

    def half(path: Path, tensors: Any) -> Any:
        original(path, tensors)
        if path.name.startswith("ema"):
            os.truncate(path, path.stat().st_size // 2)
            die()

    checkpoint._write_tensors = half  # type: ignore[assignment]


def before_the_manifest() -> None:
    checkpoint._write_manifest = die


def before_the_rename() -> None:
    checkpoint.os.rename = die  # type: ignore[assignment]


def after_the_rename() -> None:
    checkpoint.prune = die


def in_the_model_file() -> None:
    replace = os.replace
    os.replace = lambda a, b: die() if "model" in str(b) else replace(a, b)  # type: ignore[assignment]


def while_pruning() -> None:
    remove = checkpoint.shutil.rmtree
    checkpoint.shutil.rmtree = (  # type: ignore[assignment]
        lambda path, **options: die() if list(Path(path).glob("*")) else remove(path, **options)
    )


def in_a_line_of_the_log() -> None:
    write = log.MetricsLog.write

    def half(self: Any, step: int, values: Any) -> None:
        write(self, step, values)
        os.truncate(self._path, self._path.stat().st_size - 20)
        die()

    log.MetricsLog.write = half  # type: ignore[method-assign]


def in_an_event() -> None:
    write = log.EventLog._write

    def half(self: Any, step: int, values: Any) -> None:
        write(self, step, values)
        os.truncate(self._file.name, os.stat(self._file.name).st_size - 20)
        die()

    log.EventLog._write = half  # type: ignore[method-assign]


def in_a_grid() -> None:
    diffusion.save_png = lambda path, *_: (path.write_bytes(b"half"), die())


def in_an_evaluation() -> None:
    evaluation.Evaluator._compare = die  # type: ignore[method-assign]


def after_the_best_model() -> None:
    save = evaluation.Evaluator.save
    evaluation.Evaluator.save = lambda *args, **options: (save(*args, **options), die())  # type: ignore


PLACES: list[Callable[[], None]] = [
    *(writing_settings, in_a_grid, in_a_step, in_a_weights_file, before_the_manifest, before_the_rename),
    *(in_an_evaluation, after_the_best_model),
    *(after_the_rename, in_the_model_file, while_pruning, in_a_line_of_the_log, in_an_event),
]


def attempt(out: Path, place: Callable[[], None] | None) -> int:
    """Continue the run in a fork that dies at `place`; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        if place:
            place()
        steps = tiny_run(out, CONFIG)[1]
        os._exit(0 if any(isinstance(e, StepDone) for e in steps) or place is None else 3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> int:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    for place in PLACES:
        status = attempt(folder / "killed", place)
        newest = checkpoint.newest(folder / "killed" / "checkpoints")
        print(
            f"{place.__name__}: {status}, continues from {newest.name if newest else 'the start'}", flush=True
        )
        if status != -signal.SIGKILL:
            return 1
    if attempt(folder / "killed", None) or attempt(folder / "alone", None):
        return 1
    assert_same_run(folder / "killed", folder / "alone")
    print("every bit is equal")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

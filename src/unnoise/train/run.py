"""The run directory: what a run leaves on the disk, and how the same command finds its place again."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from unnoise.config.load import differences, from_dict, from_yaml, read_text, to_dict
from unnoise.config.resolve import settings_yaml
from unnoise.config.schema import EvaluationConfig, TrainConfig
from unnoise.train import checkpoint
from unnoise.train.events import Listener, Saved
from unnoise.train.log import EventLog, MetricsLog
from unnoise.train.state import TrainState

FREE = (
    *("device", "compile", "micro_batch", "minutes"),
    *("log_every", "save_every", "keep_last", "milestones", "sample_every", "sample_steps"),
    *("data.cache", "data.strict"),
    *("first_stage", "latents.scale"),  # where it lies: its hash, scale included, says which it is
    *(f"evaluate.{setting.name}" for setting in fields(EvaluationConfig)),
)
"""Settings that may change when a run continues: where it computes and what it tells, not what it learns."""


BEST = "best.safetensors"
"""The model of the best evaluation."""

MODEL = "model.safetensors"

WRITTEN = (
    *("checkpoints", MODEL, "model-ema-*.safetensors", BEST),
    *("metrics.jsonl", "tensorboard", "samples", "report.html"),
)
"""What a run writes besides config.yaml, as patterns."""


class RunDirectory:
    """The files of one run; written by the first process alone."""

    def __init__(self, path: Path, config: TrainConfig, *, step: int) -> None:
        """Continue the logs of a run after `step`."""
        self.path, self.config = path, config
        self.metrics = MetricsLog(path / "metrics.jsonl", after=step)
        self.events = EventLog(path / "tensorboard", after=step)

    def log(self, step: int, values: dict[str, float | int]) -> None:
        """One line in metrics.jsonl and one point on every curve."""
        self.metrics.write(step, values)
        self.events.scalars(step, values)

    def grid_path(self, step: int) -> Path:
        """Where the sample grid of a step goes."""
        return self.path / "samples" / f"step-{step:08d}.png"

    def save(self, state: TrainState, on_event: Listener) -> None:
        """Checkpoint, then the model files; old checkpoints go when the new one is there."""
        config = self.config
        self.metrics.flush()
        self.events.flush()
        path = checkpoint.save(checkpoints(self.path), state.snapshot())
        checkpoint.prune(
            checkpoints(self.path),
            keep_last=config.keep_last,
            milestones=config.milestones,
            best=state.best.step if state.best else None,
        )
        self.save_models(state)
        on_event(Saved(step=state.step, path=path))

    def save_models(self, state: TrainState) -> Path:
        """model.safetensors with the first average, model-ema-RATE.safetensors with each of the others."""
        for number, rate in enumerate(state.ema.rates):
            name = f"model-ema-{rate:g}.safetensors" if number else MODEL
            state.job.save(self.path / name, state.ema.weights(number), step=state.step, rate=rate)
        return self.path / MODEL

    def close(self) -> None:
        """Finish the logs."""
        self.metrics.close()
        self.events.close()


def checkpoints(run: Path) -> Path:
    """Folder of a run's checkpoints."""
    return run / "checkpoints"


def stored_config(run: Path) -> TrainConfig | None:
    """The complete settings that a run was started with, None for a new one.

    ValueError where a new one would replace files, and where a finished one has lost its checkpoints.
    """
    path = run / "config.yaml"
    if path.exists():
        if (run / MODEL).exists() and not checkpoint.listed(checkpoints(run)):
            raise ValueError(
                f"{run} holds {MODEL} but no checkpoint to go on from; restore its checkpoints, or name "
                "another --out"
            )
        return from_yaml(TrainConfig, read_text(path), where=str(path))
    held = [found.name for pattern in WRITTEN for found in run.glob(pattern)]
    if held:
        raise ValueError(
            f"{run} holds {held[0]} but no config.yaml, and a new run would replace what is there; restore "
            "that file, or name another --out"
        )
    return None


def continued(run: Path, stored: TrainConfig, given: TrainConfig) -> TrainConfig:
    """The settings to continue a run with: the stored ones, with what of `given` may change.

    Settings that `given` leaves open (None, "auto") are as they were. ValueError names the differences
    otherwise.
    """
    settled = _fill(to_dict(given), to_dict(stored))
    if given.minutes is not None and given.minutes == stored.minutes:
        settled["steps"] = stored.steps  # they were measured when the run began
    # Where no rate depends on the end, a longer run passes through the same states as the shorter one.
    endless = stored.optimizer.decay == "none" or bool(stored.optimizer.cycles)
    longer = settled["steps"] > stored.steps and endless
    free = FREE + (("steps",) if longer else ())
    config = replace(from_dict(TrainConfig, settled), device=given.device)
    changes = [d for d in differences(stored, config) if d.partition(":")[0] not in free]
    if changes:
        raise ValueError(
            f"{run} was started with other settings: {'; '.join(changes)}; go back to those, or name another "
            "--out for a new run"
        )
    return config


def _fill(given: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """`given` with its open settings taken from `stored`."""
    filled = {}
    for key, value in given.items():
        known = stored.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            filled[key] = _fill(value, known)
        else:
            filled[key] = known if value in (None, "auto") else value
    return filled


def write_config(run: Path, config: TrainConfig) -> None:
    """Write config.yaml, atomically; nothing when it says the same already."""
    from unnoise.modelfile import write_atomically

    content = settings_yaml(config).encode()
    path = run / "config.yaml"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)

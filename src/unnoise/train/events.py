"""What a run reports while it works: small facts, for a progress line, a web page or a test to draw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unnoise.config.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DataFound:
    """The data are open; `lines` say what was found, for people."""

    lines: tuple[str, ...]
    broken: int = 0
    """Pictures that could not be read and were left out."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Pictures are being read into the cache."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Pictures are being encoded into the cache of latents."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run will take, from a few real steps made before the first."""

    step_seconds: float
    seconds: float
    """Of all steps to come, without grids and checkpoints."""
    memory: int
    """Peak bytes, of the GPU where there is one, else of this process."""
    micro_batch: int
    """Pictures a forward pass of one process."""
    steps: int


@dataclass(frozen=True, kw_only=True)
class Started:
    """The next thing is a step. `config` is complete, as written to config.yaml."""

    run: Path
    config: TrainConfig
    step: int
    """Steps already behind it: above 0 when the run continues."""
    parameters: int
    processes: int
    device: str


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One optimiser step is done (or skipped)."""

    step: int
    steps: int
    loss: float
    """Mean over the steps since the last line of the log."""
    lr: float
    images_per_second: float
    seconds_left: float
    memory: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A step's loss or gradient was not finite, so nothing was learned from it."""

    step: int
    reason: str
    in_a_row: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A grid of pictures drawn from the average is at `path`."""

    step: int
    path: Path
    measured: Mapping[str, float] = field(default_factory=dict)
    """What was measured on the way, by its name in the log."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The average was measured against the training pictures."""

    step: int
    measured: Mapping[str, float]
    """By name, which says the feature network: KID[unnoise-small], ..."""
    best: bool
    """The best of the run so far, which is kept."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is at `path`."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something to tell people, in one line."""

    text: str


Event = (
    DataFound
    | Reading
    | Encoding
    | Measured
    | Started
    | StepDone
    | Skipped
    | Sampled
    | Evaluated
    | Saved
    | Note
)
Listener = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best evaluation of a run so far, whose average is kept."""

    step: int
    metric: str
    """With its feature network."""
    value: float
    made: str
    """All that its value depends on besides the weights: others are compared only when made alike."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    steps: int
    """Steps behind it, over all its sessions."""
    skipped: int
    model_path: Path | None
    """The model file; None when the run stopped before it had one."""
    stopped: str | None
    """None when all steps are done, else SIGINT, SIGTERM or diverged."""
    seconds: float
    """Spent in steps, over all sessions."""
    message: str = ""
    """One line about a run that stopped."""
    best: Best | None = None
    """The best evaluation, when it was asked for."""

    @property
    def exit_status(self) -> int:
        """What the program returns: 0 done, 1 diverged, 130 and 143 after a signal, saved."""
        return {None: 0, "SIGINT": 130, "SIGTERM": 143}.get(self.stopped, 1)


def ignore(event: Event) -> None:
    """A listener that does not listen."""

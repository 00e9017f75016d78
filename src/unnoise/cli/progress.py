"""What a training run shows on the terminal: one live line, or a plain line now and then in a log."""

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from unnoise.words import duration, memory

if TYPE_CHECKING:
    from unnoise.train.events import Event, StepDone, TrainResult

QUIET_SECONDS = 15.0
"""Between two plain lines where there is no terminal."""


@dataclass(frozen=True)
class _Preparing:
    """What is being made ready: how far it was when first heard, is now, and when that was."""

    what: str
    first: int
    done: int
    began: float


class TrainProgress:
    """A listener of `unnoise.train` that draws on stderr; `shown` is False in all processes but the first."""

    def __init__(self, out: Path, *, shown: bool = True) -> None:
        self._out = out
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not shown)
        self._live = self._console.is_terminal and shown
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("training", total=None, facts="", visible=False)
        self._last = 0.0
        self._preparing: _Preparing | None = None
        self.broken = 0
        """Pictures that were left out because they could not be read."""
        self._draws = True
        self._given = "-n 64"

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, event: "Event") -> None:
        """Show one event."""
        from unnoise.train import events

        match event:
            case events.Reading(done=done, total=total):
                self._prepare("pictures read", done, total)
            case events.Encoding(done=done, total=total):
                self._prepare("pictures encoded", done, total)
            case events.DataFound(lines=lines, broken=broken):
                self.broken = broken
                for line in lines:
                    self.say(line)
            case events.Measured():
                self.say(
                    f"estimate: {duration(event.seconds)} for {event.steps} steps of "
                    f"{event.step_seconds:.3g} s, {memory(event.memory)}, {event.micro_batch} pictures a pass"
                )
            case events.Started():
                self._draws = event.config.kind in ("diffusion", "gan")
                self._given = "--low-res SMALL_PICTURES" if event.config.model.low_res else "-n 64"
                verb = f"continuing at step {event.step}" if event.step else "starting"
                processes = f", {event.processes} processes" if event.processes > 1 else ""
                size = f"{event.parameters / 1e6:.2f} million parameters"
                self.say(f"{verb}: {size} on {event.device}{processes}, in {event.run}")
            case events.StepDone():
                self._step(event)
            case events.Skipped():
                self.say(f"step {event.step} skipped ({event.reason}); {event.total} so far")
            case events.Sampled(path=path, measured=measured):
                # What is measured of a part alone, such as validation/loss/q0, is for the log.
                whole = {name: value for name, value in measured.items() if name.count("/") < 2}
                numbers = "".join(f", {name} {value:.4g}" for name, value in whole.items())
                self.say(f"pictures: {path}{numbers}")
            case events.Evaluated(step=step, measured=measured, best=best):
                numbers = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
                self.say(f"evaluation after step {step}: {numbers}{', the best so far' if best else ''}")
            case events.Saved() if not self._live:
                self.say(f"checkpoint: {event.path}")
            case events.Note(text=text):
                self.say(text)
            case _:
                pass

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._console.print(text, markup=False)

    def summary(self, result: "TrainResult") -> None:
        """The last lines: what came of it and what to do next."""
        if result.message:
            self.say(result.message)
        if result.stopped is None and result.model_path:
            self.say(f"done: {result.steps} steps in {duration(result.seconds)}; model: {result.model_path}")
            if result.best:
                at = f"{result.best.metric} {result.best.value:.4g} after step {result.best.step}"
                self.say(f"best: {at}; model: {self._out / 'best.safetensors'}")
            if self._draws:
                self.say(
                    f"draw with it: unnoise sample {self._out} {self._given} --out {self._out / 'drawn'}"
                )
        if self.broken:
            pictures = "1 broken picture was" if self.broken == 1 else f"{self.broken} broken pictures were"
            self.say(f"{pictures} left out, named above; the exit status is 1 for that")

    def _prepare(self, what: str, done: int, total: int) -> None:
        """How far the pictures are ready, with the time left at the pace since the first that was heard."""
        now = time.monotonic()
        before = self._preparing
        if before is None or before.what != what or done < before.done:
            before, self._last = _Preparing(what, done, done, now), now
        self._preparing = _Preparing(what, before.first, done, before.began)
        first, began = before.first, before.began
        left = (total - done) * (now - began) / (done - first) if done > first else None
        facts = what if left is None else f"{what}  {duration(left)} left"
        if self._live:
            self._bar.update(self._task, total=total, completed=done, facts=facts, visible=done < total)
        elif now - self._last >= QUIET_SECONDS and done < total:
            self._last = now
            self.say(f"{done}/{total} {facts}")

    def _step(self, event: "StepDone") -> None:
        facts = (
            f"loss {event.loss:.4f}  {event.images_per_second:.0f} images/s  "
            f"{duration(event.seconds_left)} left  {memory(event.memory)}"
        ) + (f"  {event.skipped} skipped" if event.skipped else "")
        if self._live:
            self._bar.update(self._task, total=event.steps, completed=event.step, facts=facts, visible=True)
        elif time.monotonic() - self._last >= QUIET_SECONDS or event.step == event.steps:
            self._last = time.monotonic()
            self.say(f"step {event.step}/{event.steps}  {facts}")

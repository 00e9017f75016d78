"""SIGINT and SIGTERM as a question that the training loop asks between steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """A signal came before the first step: there is nothing to save."""


class Interruption:
    """While open, remembers the first SIGINT or SIGTERM instead of dying of it; later ones change nothing.

    The state is saved and the run ends by itself after the step in progress; a second signal must not break
    that. In a thread other than the main one, where Python cannot catch signals, it never sees any.
    """

    CAUGHT = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came first; 0 without one."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in self.CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str | None:
        """Name of the signal that came first, such as "SIGINT"."""
        return signal.Signals(self.number).name if self.number else None

    def check(self) -> None:
        """Raise Interrupted when a signal has come."""
        if self:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    def __bool__(self) -> bool:
        return self.number != 0

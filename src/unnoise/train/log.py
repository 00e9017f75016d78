"""What a run tells over time: `metrics.jsonl` for programs and TensorBoard events for people.

Both are appended to and flushed line by line, and cut back to the checkpoint's step when a run continues, so
that no step appears twice however often the run was killed.
"""

import json
import math
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """`metrics.jsonl`, one JSON object a line, each with its "step"."""

    def __init__(self, path: Path, *, after: int) -> None:
        """Continue the log after step `after`: later lines, and a line that was cut off, are removed."""
        self._path = path
        _cut(path, _end_of_lines(path, after))
        self._file = open(path, "a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Append one line; a value that is not finite becomes null, for which JSON has no other word."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Have the disk hold what was written, and close."""
        if not self._file.closed:
            self.flush()
            self._file.close()


class EventLog:
    """TensorBoard events in one file, written at once rather than by a thread, so that errors are seen."""

    def __init__(self, folder: Path, *, after: int) -> None:
        """Continue the events after step `after`; later ones are removed."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(folder.glob("events.out.tfevents.*"))
        path = earlier[0] if earlier else folder / f"events.out.tfevents.{int(time.time())}.unnoise"
        end = _end_of_events(path, after, Event)
        _cut(path, end)
        self._file = open(path, "ab")
        self._records = RecordWriter(self._file)
        if not end:
            self._records.write(
                Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )

    def scalars(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Append one point to every curve; names like "loss/q0" are grouped by what precedes the slash."""
        numbers = {k: v for k, v in values.items() if not isinstance(v, str)}
        self._write(step, [self._summary.Value(tag=k, simple_value=v) for k, v in numbers.items()])

    def picture(self, step: int, tag: str, path: Path) -> None:
        """Append a PNG file."""
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])  # the header chunk of every PNG
        image = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._write(step, [self._summary.Value(tag=tag, image=image)])

    def _write(self, step: int, values: list[Any]) -> None:
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        self._records.write(event.SerializeToString())
        self._file.flush()

    def flush(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Have the disk hold what was written, and close."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def _cut(path: Path, end: int) -> None:
    if path.exists() and path.stat().st_size > end:
        os.truncate(path, end)


def _end_of_lines(path: Path, after: int) -> int:
    """Bytes of the leading lines that are whole and belong to steps up to `after`."""
    end = 0
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                try:
                    step = json.loads(line)["step"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n") or step > after:
                    break
                end += len(line)
    return end


def _end_of_events(path: Path, after: int, event: Any) -> int:
    """Bytes of the leading records that are whole and belong to steps up to `after`.

    A record is its length (uint64), a checksum of that (uint32), the content, and a checksum of it (uint32).
    """
    end = 0
    if path.exists():
        with open(path, "rb") as file:
            while len(head := file.read(12)) == 12:
                (length,) = struct.unpack("<Q", head[:8])
                body = file.read(length + 4) if length < 1 << 32 else b""
                if len(body) < length + 4 or event.FromString(body[:-4]).step > after:
                    break
                end += 12 + length + 4
    return end

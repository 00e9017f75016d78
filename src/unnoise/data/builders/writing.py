"""The folder that a builder writes: pictures placed whole, so that a build which was stopped goes on."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from unnoise.data.builders.svg import BadDrawing
from unnoise.data.decode import BrokenPicture
from unnoise.data.workers import in_order, workers

SPLITS = ("train", "test")
RECORD = "build.json"
Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""
_CHUNK = 16


@dataclass(frozen=True)
class Made:
    """A picture to be made: where, how, and what is said of it in its split's metadata.jsonl."""

    split: str
    file_name: str
    make: Callable[[], bytes]
    facts: Mapping[str, Any]


@dataclass
class Built:
    """What a build came to. left_out: reason -> pictures."""

    out: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Split -> kind -> pictures."""
    left_out: dict[str, int] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The counts for people."""
        for split, kinds in self.counts.items():
            listed = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
            yield f"{self.out / split}: {sum(kinds.values()):,} pictures: {listed}"
        for reason, count in sorted(self.left_out.items()):
            yield f"left out, {reason}: {count:,}"


def begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder, or finds the one that a build with the same settings began. ValueError otherwise."""
    record = out / RECORD
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    if record.is_file():
        if record.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{out} was built with other settings or packages ({record} names them); name a new folder"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and is no build of ours; name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    place(record, text.encode())


def write(
    out: Path, pictures: Iterable[Made], total: int, kind_of: str, built: Built, on_progress: Progress | None
) -> None:
    """Makes every picture that is not there yet, then the metadata of each split; counts by facts[kind_of].

    A picture that cannot be made is left out and counted with its reason.
    """
    rows: dict[str, list[str]] = {split: [] for split in SPLITS}
    done = 0
    with workers() as pool:
        for outcomes in in_order(pool, partial(_make, out), pictures, _CHUNK):
            for made, reason in outcomes:
                done += 1
                if reason:
                    built.left_out[reason] = built.left_out.get(reason, 0) + 1
                    continue
                rows[made.split].append(
                    json.dumps({"file_name": made.file_name, **made.facts}, ensure_ascii=False)
                )
                kinds = built.counts.setdefault(made.split, {})
                kinds[made.facts[kind_of]] = kinds.get(made.facts[kind_of], 0) + 1
            if on_progress is not None:
                on_progress(done, total)
    for split, lines in rows.items():
        if lines:
            place(out / split / "metadata.jsonl", "".join(line + "\n" for line in sorted(lines)).encode())


def _make(out: Path, made: Made) -> tuple[Made, str]:
    path = out / made.split / made.file_name
    if not path.exists():
        try:
            content = made.make()
        except (BadDrawing, BrokenPicture) as error:
            return made, f"{made.facts.get('style', made.file_name)}: {error}"
        place(path, content)
    return made, ""


def place(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it, so that whatever stands at `path` is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)

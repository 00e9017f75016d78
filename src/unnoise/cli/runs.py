"""Numbered run directories: runs/demo-1, runs/demo-2, ..."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def next_run(parent: Path, name: str) -> Path:
    """The first of parent/name-1, parent/name-2, ... that does not exist; created, so that it is ours."""
    from unnoise.outputs import check_folder

    check_folder(parent, "runs")
    parent.mkdir(parents=True, exist_ok=True)
    endings = [path.name[len(name) + 1 :] for path in parent.glob(f"{name}-*")]
    number = max((int(e) for e in endings if e.isdigit()), default=0) + 1
    while True:
        try:
            (parent / f"{name}-{number}").mkdir()
        except FileExistsError:
            number += 1
            continue
        return parent / f"{name}-{number}"


@contextlib.contextmanager
def new_run(parent: Path, name: str) -> Iterator[Path]:
    """`next_run`, gone again where nothing is left in it: the run was refused."""
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    run = next_run(parent, name)
    try:
        yield run
    finally:
        with contextlib.suppress(OSError):
            for folder in (run, *made):
                folder.rmdir()

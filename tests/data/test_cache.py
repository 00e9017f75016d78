"""The decoded cache: made once, never trusted when damaged, never left half made."""

import errno
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.conftest import Make, Open
from unnoise.data import build, cache


@pytest.fixture
def folder(tmp_path: Path, make: Make) -> Path:
    for k in range(20):
        make(tmp_path / "set" / "ab"[k % 2] / f"{k:02}.png", (16, 16, 3), seed=k)
    return tmp_path / "set"


def files(home: Path) -> list[str]:
    """What the cache holds, its locks aside."""
    return sorted(path.suffix for path in home.rglob("*") if path.is_file() and path.suffix != ".lock")


def refuse(*_: Any) -> None:
    raise AssertionError("decoded again")


def test_pictures_are_decoded_once(
    folder: Path, opened: Open, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    first = opened(folder, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20) and seen == sorted(seen)
    monkeypatch.setattr(build, "prepare", refuse)
    monkeypatch.setattr("unnoise.data.decode.header", refuse)
    again = opened(folder)
    assert again.fingerprint == first.fingerprint and again.report == first.report
    assert files(cache_home) == [".pixels"]
    other = opened(folder, labels="none")  # labels and captions are no part of the decoded pictures
    assert other.labels is None and other.fingerprint != first.fingerprint


def test_what_changes_the_pixels_is_decoded_anew(folder: Path, make: Make, opened: Open) -> None:
    first = opened(folder)
    assert opened(folder, size=8).fingerprint != first.fingerprint
    assert opened(folder, channels=1).fingerprint != first.fingerprint
    assert opened(folder, crop="random").fingerprint != first.fingerprint
    assert opened(folder, flip=True).fingerprint != first.fingerprint
    times = (folder / "a/00.png").stat()
    make(folder / "a/00.png", (16, 16, 3), seed=99)
    os.utime(folder / "a/00.png", ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copying tool might
    changed = opened(folder)
    assert changed.fingerprint != first.fingerprint
    make(folder / "a/new.png", (16, 16, 3))
    assert len(opened(folder)) == 21


def test_the_fingerprint_is_of_the_content(folder: Path, tmp_path: Path, opened: Open) -> None:
    """Moving, touching or copying pictures is no change; nor is where the cache lies."""
    first = opened(folder).fingerprint
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved/a/00.png").touch()
    assert opened(tmp_path / "moved", cache=str(tmp_path / "elsewhere")).fingerprint == first
    assert files(tmp_path / "elsewhere") == [".pixels"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "footer", "foreign"])
def test_a_damaged_cache_is_made_anew(damage: str, folder: Path, opened: Open, cache_home: Path) -> None:
    first = opened(folder)
    pixels = first.take(np.arange(20)).pixels
    (path,) = cache_home.glob("*.pixels")
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[5000] ^= 1
    elif damage == "footer":
        data[-120] ^= 1
    path.unlink()
    path.write_bytes({"cut": data[:-1], "empty": b"", "foreign": b"GIF89a" * 1000}.get(damage, bytes(data)))
    assert cache.read(path) is None
    again = opened(folder)
    assert (again.take(np.arange(20)).pixels == pixels).all()
    assert cache.read(path) is not None


def test_blocks_are_checked_wherever_the_damage(
    folder: Path, opened: Open, cache_home: Path, monkeypatch
) -> None:
    monkeypatch.setattr(cache, "_BLOCK", 1000)
    opened(folder)
    (path,) = cache_home.glob("*.pixels")
    whole = path.read_bytes()
    assert cache.read(path) is not None
    for at in (64, 1063, 1064, 7000, 64 + 20 * 768 - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert cache.read(path) is None, at


@pytest.mark.parametrize("where", ["pixels", "flush"])
def test_a_full_disk_leaves_nothing_half(
    where: str, folder: Path, opened: Open, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((cache, "_stream") if where == "pixels" else (cache.os, "fsync")), full)
        with pytest.raises(
            OSError, match=r"No space left.*unnoise; free some.*--set data.cache=FOLDER"
        ) as error:
            opened(folder)
    assert error.value.errno == errno.ENOSPC and "\n" not in str(error.value)
    assert files(cache_home) == []
    assert len(opened(folder)) == 20


def test_a_full_disk_while_building(
    folder: Path, opened: Open, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real limit of the system on file size, met in the middle of the pixels."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, old[1]))
        with pytest.raises(OSError, match="while writing pictures to"):
            opened(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, previous)
    assert files(cache_home) == []
    assert len(opened(folder)) == 20


def test_an_interrupted_build_leaves_nothing(folder: Path, opened: Open, cache_home: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(folder, on_progress=stop)
    assert files(cache_home) == [] and threading.active_count() < 20


def in_process(work: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    """A process of its own that runs `work`; forked, so that it need not load everything again."""
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    return process


def test_what_a_killed_builder_left_is_swept(folder: Path, opened: Open, cache_home: Path) -> None:
    process = in_process(lambda: opened(folder, on_progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL)))
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    assert files(cache_home) == [".tmp"]
    assert len(opened(folder)) == 20
    assert files(cache_home) == [".pixels"]


def test_two_processes_at_once(folder: Path, tmp_path: Path, opened: Open, cache_home: Path) -> None:
    """The second waits for the first and decodes nothing itself."""
    gate = multiprocessing.get_context("fork").Barrier(2)

    def work(number: int) -> None:
        built: list[int] = []
        gate.wait(60)
        data = opened(folder, on_progress=lambda done, total: built.append(done))
        (tmp_path / f"{number}.txt").write_text(f"{data.fingerprint} {bool(built)}")

    workers = [in_process(partial(work, number)) for number in range(2)]
    for worker in workers:
        worker.join(100)
        assert worker.exitcode == 0
    found = sorted((tmp_path / f"{number}.txt").read_text().split() for number in range(2))
    made = opened(folder).fingerprint
    assert found == [[made, "False"], [made, "True"]] and files(cache_home) == [".pixels"]


def test_without_locks_the_last_rename_stands(
    folder: Path, opened: Open, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builders that cannot see each other (no file locks there) all end well."""
    monkeypatch.setattr(cache, "fcntl", None)
    prints: list[str] = []
    threads = [threading.Thread(target=lambda: prints.append(opened(folder).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prints) == 4 and len(set(prints)) == 1 and files(cache_home) == [".pixels"]


def test_a_folder_that_cannot_hold_the_cache(folder: Path, tmp_path: Path, opened: Open) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot hold the decoded pictures; choose another folder"):
        opened(folder, cache=str(tmp_path / "file" / "cache"))


def test_pictures_that_could_not_be_read_are_tried_again(
    folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture behind a failing disk is broken today; it is not held against it tomorrow."""

    def fail(path: Any, *args: Any) -> Any:
        if str(path).endswith("05.png"):
            raise OSError(errno.EIO, "Input/output error")
        return open(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr("unnoise.data.decode.open", fail, raising=False)
        data = opened(folder)
        assert data.report.broken == (("b/05.png", "Input/output error"),) and len(data) == 19
    assert len(opened(folder)) == 20

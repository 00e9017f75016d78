"""One writer a run directory."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "lock"
_held: set[int] = set()


def _forget() -> None:
    # A forked child would share the lock, and keep it when its parent is killed.
    while _held:
        os.close(_held.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run directory's `lock` file; ValueError naming its holder when another process does,
    and for a file of that name that is none of ours.

    The lock is the kernel's (flock), so it goes with its process, kill -9 included. On file systems without
    one, the process named in the file counts as its holder while it lives.
    """
    path = run / LOCK
    if _holder(path) and not _holder(path).startswith("process "):
        raise ValueError(f"{path} is no lock of a run, and would be replaced; move it, or name another --out")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    taken = False
    try:
        taken = _take(descriptor, path)
        if not taken:
            raise ValueError(
                f"{run} is being written by {_holder(path) or 'another process'}; wait for it, stop it, "
                "or name another --out"
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            if taken:
                os.ftruncate(descriptor, 0)
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _take(descriptor: int, path: Path) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:
            pass  # no flock here, as on some network file systems
    return not _alive(_holder(path))


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def _alive(holder: str) -> bool:
    """Whether the process that the text "process PID on HOST" names may still run."""
    words = holder.split()
    if len(words) != 4 or not words[1].isdigit() or int(words[1]) == os.getpid():
        return False
    if words[3] != socket.gethostname():
        return True  # cannot be known from here
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

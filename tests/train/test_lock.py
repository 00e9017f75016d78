import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from unnoise.train import lock
from unnoise.train.lock import locked

HOLD = """
import sys, time
sys.path[:0] = [{src!r}]
import importlib.util
spec = importlib.util.spec_from_file_location("lock", {file!r})
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
from pathlib import Path
with lock.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    code = HOLD.format(src=str(Path(lock.__file__).parents[2]), file=lock.__file__)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        wanted = rf"is being written by process {process.pid} on {socket.gethostname()}; wait for it"
        with pytest.raises(ValueError, match=wanted), locked(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    with locked(tmp_path):  # kill -9 frees it
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_file_of_its_name_that_is_no_lock_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("the key is under the mat")
    with pytest.raises(ValueError, match="lock is no lock of a run"), locked(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == "the key is under the mat"


def test_one_process_cannot_hold_it_twice_but_again(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ValueError, match="being written"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        (descriptor,) = lock._held
        child = os.fork()
        if child == 0:
            try:
                os.fstat(descriptor)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(ValueError, match="being written"), locked(tmp_path):
            pass  # and the child has not freed it either


@pytest.mark.parametrize(
    "content, free", [("", True), ("process {dead} on {host}", True), ("process 1 on {host}", False)]
)
def test_without_flock_the_named_process_decides(
    tmp_path: Path, content: str, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "lock").write_text(content.format(dead=dead.pid, host=socket.gethostname()))
    assert lock._take(0, tmp_path / "lock") is free

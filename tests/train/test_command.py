"""`unnoise train` as a user runs it: what it says and returns when the disk fills or a signal comes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from unnoise.train.lock import locked

ROOT = Path(__file__).parents[2]
FULL_DISK = """
import errno, os, sys
from unnoise.train import checkpoint
write = checkpoint._write_tensors

def full(path, tensors):
    if "00000004" in str(path) and "optimizer" in path.name:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(path, tensors)

checkpoint._write_tensors = full
from unnoise.cli import main
main()
"""
TRAIN = [
    *("train", "fashion-28", "--data", "fashion-mnist-10k", "--batch-size", "2", "--device", "cpu"),
    *(
        "--precision",
        "float32",
        "--compile",
        "off",
        "--set",
        "model.network.width=16",
        "--set",
        "model.network.depth=1",
    ),
    *("--set", "model.network.channel_mult=[1]", "--set", "model.network.attention=[]"),
    *("--set", "model.network.head_channels=16", "--set", "model.network.patch=2"),
    *("--set", "sample_every=0", "--set", "save_every=2"),
]


def command(
    out: Path, *more: str, code: str = "from unnoise.cli import main; main()"
) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", code, *TRAIN, "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_full_disk_is_one_line_and_status_1(tmp_path: Path) -> None:
    process = command(tmp_path / "run", "--steps", "8", code=FULL_DISK)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    last = said.splitlines()[-1]
    assert last.startswith("unnoise: ") and "No space left on device" in last and "Traceback" not in said
    assert "earlier checkpoints are intact: make room and run the same command again" in last
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["step-00000002"]


def test_a_run_that_another_process_writes_is_refused_with_status_2(tmp_path: Path) -> None:
    with locked(tmp_path):
        process = command(tmp_path, "--steps", "8")
        _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert (
        f"is being written by process {os.getpid()} on " in said.splitlines()[-1]
        and len(said.splitlines()) == 1
    )


def test_sigterm_twice_saves_and_returns_143(tmp_path: Path) -> None:
    process = command(tmp_path, "--steps", "1000000")
    log = tmp_path / "checkpoints"
    while process.poll() is None and not log.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert "stopped by SIGTERM at step" in said and "run the same command to continue" in said
    assert (tmp_path / "model.safetensors").exists()

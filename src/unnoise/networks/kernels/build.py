"""Compile the C sources beside this file once a machine, and load them.

Without a compiler (or with UNNOISE_KERNELS=off) there is no library and callers take PyTorch's own operators.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

FLAGS = "-O3 -march=native -fopenmp -fno-math-errno -fno-trapping-math -shared -fPIC -std=gnu11".split()
# gcc's default of 256-bit vectors halves the speed of these loops.
GCC_FLAGS = ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
SOURCES = Path(__file__).parent
log = logging.getLogger(__name__)


def wanted() -> bool:
    """Whether compiled kernels may be used at all: not with UNNOISE_KERNELS=off."""
    return os.environ.get("UNNOISE_KERNELS", "on").lower() not in ("off", "0", "false", "no")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had, said once in the log."""
    if not wanted():
        return None
    if platform.system() != "Linux":
        return (
            None  # elsewhere compilers bring another OpenMP than torch's, and two thread pools would collide
        )
    try:
        return _declare(ctypes.CDLL(str(_compiled())))
    except (OSError, AttributeError, subprocess.SubprocessError) as fault:
        log.info("no compiled kernels, PyTorch's own operators do the work: %s", fault)
        return None


def _compiled() -> Path:
    """Path of the shared library, compiled now if this compiler has not yet done so for this processor."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        raise FileNotFoundError("no C compiler found (looked for CC, then gcc)")
    command = [compiler, *FLAGS, *GCC_FLAGS, str(SOURCES / "group_norm.c"), "-lm"]
    path = _cache() / f"group_norm-{_fingerprint(compiler, command)}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            made = Path(aside) / path.name
            subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, timeout=300)
            os.replace(made, path)  # atomic: several processes may compile at once
    return path


def _fingerprint(compiler: str, command: list[str]) -> str:
    """Of everything the machine code depends on: sources, flags, compiler, processor."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    digest = hashlib.sha256(" ".join(command).encode() + version)
    for name in ("group_norm.c", "group_norm.inc"):
        digest.update((SOURCES / name).read_bytes())
    with open("/proc/cpuinfo") as file:
        digest.update(next((line for line in file if line.startswith(("flags", "Features"))), "").encode())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    """A folder that only this user can write to, or somebody else's code might be loaded from it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "unnoise" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others; chmod 700 it to use compiled kernels")
    return folder


def _declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, number, flag = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
    for name in ("float32", "bfloat16"):
        forward = getattr(loaded, f"group_norm_forward_{name}")
        forward.argtypes, forward.restype = [pointer] * 6 + [size] * 4 + [number, flag, flag], flag
        backward = getattr(loaded, f"group_norm_backward_{name}")
        backward.argtypes, backward.restype = [pointer] * 9 + [size] * 4 + [flag, flag], flag
    return loaded

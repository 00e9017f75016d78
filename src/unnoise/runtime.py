"""What the process asks of its machine before torch works in it."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks instead of giving them back to the system; whether it could.

    Every training step frees and takes the same activations. By default glibc returns blocks of a few MB at
    once and each new one is filled with zeroed pages again: a quarter of the time of a float32 convolution on
    a CPU. UNNOISE_MALLOC=default leaves the allocator alone.
    """
    if not sys.platform.startswith("linux") or os.environ.get("UNNOISE_MALLOC") == "default":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    # 32 MB is the largest that glibc accepts for a block of the heap.
    return bool(mallopt(_MMAP_THRESHOLD, 32 << 20)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))

import os
import subprocess
import sys

import pytest

CHURN = """
import os, torch
from unnoise.runtime import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

print(keep_freed_memory())
torch.ones(1 << 20).sum()
before = resident()
blocks = [torch.ones(2 << 20) for _ in range(8)]  # 8 MB each
del blocks  # all freed together, as the activations of a step are
print(resident() - before)
"""
HELD = 8 * (8 << 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has mallopt")
def test_freed_blocks_stay_for_the_next_step():
    def left(setting):
        environment = {**os.environ, "UNNOISE_MALLOC": setting, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", CHURN], env=environment, capture_output=True, text=True, check=True
        )
        kept, size = done.stdout.split()
        return kept == "True", int(size)

    kept, size = left("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert size > 0.8 * HELD
    changed, size = left("default")
    assert not changed
    assert size < 0.5 * HELD

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from unnoise.runtime import keep_freed_memory
print(keep_freed_memory())
def churn():
    blocks = [torch.ones(2 << 20) for _ in range(8)]  # 8 MB each, all freed together

churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has mallopt")
def test_freed_blocks_are_used_again_instead_of_being_mapped_anew():
    def faults(setting):
        environment = {**os.environ, "UNNOISE_MALLOC": setting, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True
        )
        kept, count = done.stdout.split()
        return kept == "True", int(count)

    kept, count = faults("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    left_alone, count_by_default = faults("default")
    assert not left_alone
    assert count < 0.7 * count_by_default

"""One process a contestant: it builds its network, then times or measures one step whenever it is told to.

Processes of their own keep allocators, thread pools and peak memory apart; only one works at any time.
"""

import json
import resource
import sys
import time

import torch

from benchmarks.rivals import RIVALS, STEPS, Architecture


def peak_mib() -> float:
    """Most memory this process has held so far."""
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (1 if sys.platform == "darwin" else 2**10)
        / (2**20 if sys.platform == "darwin" else 1)
    )


def main() -> None:
    """Read one JSON line of settings, answer one; then a number for every line "go" until the input ends."""
    spec = json.loads(sys.stdin.readline())
    torch.set_num_threads(spec["threads"])
    architecture = Architecture(**spec["architecture"])
    rival = RIVALS[spec["rival"]](architecture, spec["precision"], compiled=spec["compiled"])
    torch.manual_seed(0)
    with torch.no_grad():
        for p in rival.network.parameters():  # zero-initialised layers would let kernels see zeros
            p.add_(torch.randn_like(p), alpha=0.01)
    step = STEPS[spec["step"]](rival, architecture, spec["batch"])
    before = peak_mib()
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    for _ in range(2):
        step()
    answer = {"parameters": rival.parameters, "first": first, "peak": peak_mib(), "base": before}
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        step()
        row = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "peak": peak_mib()}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

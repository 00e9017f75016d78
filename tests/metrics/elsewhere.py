"""What test_collect runs in processes of its own: evaluations with the feature network of `double.py`."""

import json
import os
import resource
import sys
import time
from pathlib import Path

import torch

from tests.metrics.double import Double
from unnoise import distributed
from unnoise.cli import main
from unnoise.metrics.collect import collect
from unnoise.metrics.extractors import EXTRACTORS
from unnoise.metrics.features import Features
from unnoise.metrics.sources import Pictures

SHARD = 16
LIMIT = 2 * SHARD
"""Pictures after which the stopping network waits for somebody to kill it."""


class Stopping(Double):
    """Measures LIMIT pictures, then nothing any more."""

    def __call__(self, pixels):
        if self.calls >= LIMIT:
            time.sleep(600)
        return super().__call__(pixels)


def evaluate(network, *arguments):
    """The command with this network -> its exit status."""
    EXTRACTORS["double"] = lambda weights=None, device="cpu": network
    options = ["--features", "double", "--device", "cpu", "--bootstrap", "5"]
    sys.argv = ["unnoise", "evaluate", *arguments, *options]
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def one_of_two(folder, samples, real):
    """Under torchrun: a good evaluation, then one whose network breaks in process 1."""
    rank = int(os.environ["RANK"])
    network = Double()
    sides = (samples, "--against", real, "--cache", f"{folder}/cache")
    codes = [evaluate(network, *sides, "--out", f"{folder}/out")]
    calls = network.calls
    broken = Double(name="broken", broken=rank == 1)
    codes.append(evaluate(broken, *sides))
    Path(f"{folder}/{rank}.json").write_text(json.dumps({"calls": calls, "codes": codes}))


def memory(count):
    """Peak memory in MB that collecting `count` pictures of 256x256 adds."""

    def network(pixels):
        columns = pixels.float().mean((1, 2))
        return Features(columns.repeat(1, 4) + torch.arange(12.0), spatial=columns)

    network.name, network.weights_hash, network.preprocess = "mean", "m0", "none"

    def take(ids):
        noise = torch.Generator().manual_seed(ids[0])
        return torch.randint(0, 256, (len(ids), 256, 256, 3), dtype=torch.uint8, generator=noise)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pictures = Pictures("noise", count, (256, 256, 3), "noise", take)
    collect(pictures, network, cache=str(Path.cwd() / "cache"))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


if __name__ == "__main__":
    import unnoise.metrics.collect

    unnoise.metrics.collect.SHARD = SHARD
    mode, *arguments = sys.argv[1:]
    if mode == "stop":
        sys.exit(evaluate(Stopping(), *arguments))
    if mode == "together":
        with distributed.processes("cpu"):
            one_of_two(*arguments)
    if mode == "memory":
        memory(int(arguments[0]))

"""The part `unet`: images/s and peak memory of the ADM U-Net beside diffusers, in one interleaved run."""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field

from benchmarks.rivals import Architecture

BASE = "diffusers float32"
CONTESTANTS = {
    "diffusers float32": {"rival": "diffusers", "precision": "float32", "compiled": False},
    "diffusers bfloat16": {"rival": "diffusers", "precision": "bfloat16", "compiled": False},
    "unnoise float32": {"rival": "unnoise", "precision": "float32", "compiled": False},
    "unnoise bfloat16": {"rival": "unnoise", "precision": "bfloat16", "compiled": False},
}
COMPILED = {
    f"{name} compiled": spec | {"compiled": True}
    for name, spec in CONTESTANTS.items()
    if name != "diffusers bfloat16"
}


@dataclass
class Contestant:
    """A worker process and what it has answered."""

    name: str
    process: subprocess.Popen
    about: dict
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: float = 0.0

    def go(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        row = json.loads(self.process.stdout.readline())
        self.seconds.append(row["seconds"])
        self.cpu.append(row["cpu"])
        self.peak = row["peak"]


def start(name: str, spec: dict, step: str, args: argparse.Namespace) -> Contestant:
    """A worker, its network built and warm."""
    # Idle OpenMP threads of one worker must not spin while another one is timed.
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    spec = spec | {
        "step": step,
        "batch": args.batch,
        "threads": args.threads,
        "architecture": asdict(Architecture()),
    }
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{name} did not start; see the traceback above")
    return Contestant(name, process, json.loads(answer))


def race(step: str, names: dict[str, dict], args: argparse.Namespace) -> list[Contestant]:
    """All contestants' steps in turn, `args.rounds` times."""
    field_ = [start(name, spec, step, args) for name, spec in names.items()]
    for number in range(args.rounds):
        for contestant in field_ if number % 2 else reversed(field_):
            contestant.go()
    for contestant in field_:
        contestant.process.stdin.close()
        contestant.process.wait()
    return field_


def table(step: str, contestants: list[Contestant], args: argparse.Namespace) -> list[str]:
    """Medians, with the ratio of each round's pair: what other work on the machine does to both cancels."""
    base = next(c for c in contestants if c.name == BASE)
    rows = [
        f"{step}, batch {args.batch}, {args.threads} threads, median of {args.rounds} rounds",
        " " * 28 + " images/s      ms  x diffusers   (cpu)  peak MiB  first s  parameters",
    ]
    for c in contestants:
        ratio = statistics.median(b / s for b, s in zip(base.seconds, c.seconds, strict=True))
        cpu = statistics.median(b / s for b, s in zip(base.cpu, c.cpu, strict=True))
        median = statistics.median(c.seconds)
        rows.append(
            f"{c.name:28}{args.batch / median:9.1f}{median * 1e3:8.0f}{ratio:12.2f}x{cpu:7.2f}x{c.peak:10.0f}"
            f"{c.about['first']:9.1f}{c.about['parameters']:12,}"
        )
    return rows


def run(args: argparse.Namespace) -> None:
    """The races that were asked for, one table each."""
    if importlib.util.find_spec("diffusers") is None:
        print("\ndiffusers is not installed; pip install -r benchmarks/requirements.txt")
        return
    names = CONTESTANTS | (COMPILED if args.compile else {})
    for step in args.steps:
        print("", *table(step, race(step, names, args), args), sep="\n", flush=True)

"""Timing for the metric benchmarks: rounds in turn, medians, ratios within a round."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Contestant:
    name: str
    call: Callable[[], Any]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    answer: Any = None


def race(contestants: list[Contestant], rounds: int) -> None:
    """Every contestant once a round, in alternating order."""
    for number in range(rounds):
        for c in contestants if number % 2 == 0 else contestants[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            c.answer = c.call()
            c.wall.append(time.perf_counter() - wall)
            c.cpu.append(time.process_time() - cpu)


def print_race(title: str, contestants: list[Contestant], answer: Callable[[Any], str]) -> None:
    """Medians; the ratio of the last contestant to each other one, the median over rounds."""
    ours = contestants[-1]
    print(f"\n{title}")
    print(f"{'':44}{'seconds':>9}{'cpu s':>9}{'ours is':>10}{'(cpu)':>9}   answer")
    for c in contestants:
        ratio = statistics.median(a / b for a, b in zip(c.wall, ours.wall, strict=True))
        cpu = statistics.median(a / b for a, b in zip(c.cpu, ours.cpu, strict=True))
        print(
            f"{c.name:44}{statistics.median(c.wall):9.2f}{statistics.median(c.cpu):9.2f}"
            f"{ratio:9.2f}x{cpu:8.2f}x   {answer(c.answer)}",
            flush=True,
        )

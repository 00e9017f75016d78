"""Several pictures at a time, in order, and never more than a few under way."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST = 16


def processors() -> int:
    """Processors this process may run on, at most 16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, count)


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes."""
    pool = ThreadPoolExecutor(processors(), thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], chunk: int
) -> Iterator[list[Result]]:
    """work() of every item, in order, a chunk of them at a time."""
    ahead, waiting = processors() + 1, deque[Future[list[Result]]]()
    remaining = iter(items)

    def together(part: list[Item]) -> list[Result]:
        return [work(item) for item in part]

    while part := list(islice(remaining, chunk)):
        waiting.append(pool.submit(together, part))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()

"""The next batches, made in a thread while the present step computes."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Ahead(Generic[T]):
    """make(first), make(first + 1), ...: in order, at most `depth` of them waiting."""

    def __init__(self, make: Callable[[int], T], first: int, last: int, depth: int) -> None:
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(make, first, last), name="batches", daemon=True
        )
        self._thread.start()

    def _work(self, make: Callable[[int], T], first: int, last: int) -> None:
        for number in range(first, last):
            try:
                item: tuple[T | None, BaseException | None] = make(number), None
            except BaseException as error:  # raised where the batch is asked for
                item = None, error
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or item[1] is not None:
                return

    def take(self) -> T:
        """The next one; an error in making it is raised here."""
        item, error = self._ready.get()
        if error is not None:
            raise error
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Stop making."""
        self._closed.set()
        self._thread.join()


@contextmanager
def ahead(make: Callable[[int], T], first: int, last: int, *, depth: int = 2) -> Iterator[Callable[[], T]]:
    """A function that returns make(first), ..., make(last - 1) in turn, made ahead in a thread."""
    worker = _Ahead(make, first, last, depth)
    try:
        yield worker.take
    finally:
        worker.close()

import threading
import time

import pytest

from unnoise.train.prefetch import ahead


def test_in_order_and_ahead() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    with ahead(make, 3, 9, depth=2) as take:
        assert [take() for _ in range(3)] == [9, 16, 25]
        for _ in range(200):
            if len(made) == 6:
                break
            time.sleep(0.01)
        assert made[:6] == [3, 4, 5, 6, 7, 8]
        assert [take() for _ in range(3)] == [36, 49, 64]
    assert threading.active_count() == 1 or all(t.name != "batches" for t in threading.enumerate())


def test_an_error_is_raised_where_the_batch_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise OSError("unreadable")
        return number

    with ahead(make, 0, 9) as take:
        assert (take(), take()) == (0, 1)
        with pytest.raises(OSError, match="unreadable"):
            take()


def test_leaving_early_stops_the_thread() -> None:
    with ahead(lambda number: number, 0, 10**9) as take:
        take()
    assert all(thread.name != "batches" for thread in threading.enumerate())

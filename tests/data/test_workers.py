"""Decoding in parallel keeps order, pulls only what it needs, and bounds what is decoded at a time."""

import random
import threading
import time

import pytest

from unnoise.data.build import Budget
from unnoise.data.workers import in_order, processors, workers


def test_results_come_in_order_and_items_are_pulled_as_needed() -> None:
    pulled: list[int] = []

    def items():  # noqa: ANN202
        for k in range(10_000):
            pulled.append(k)
            yield k

    def work(k: int) -> int:
        time.sleep(random.random() * 1e-3)
        return k

    got: list[int] = []
    with workers() as pool:
        for part in in_order(pool, work, items(), 5):
            got += part
            assert len(pulled) <= len(got) + 5 * (processors() + 2)
            if len(got) > 300:
                break
    assert got == list(range(len(got)))


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    with workers() as pool, pytest.raises(ZeroDivisionError):
        list(in_order(pool, lambda k: 1 // (k - 50), range(100), 4))


def test_the_budget_bounds_what_is_under_way() -> None:
    budget = Budget(100)
    lock, under_way, worst = threading.Lock(), [0], [0]

    def take(pixels: int) -> None:
        with budget.taken(pixels):
            with lock:
                under_way[0] += min(pixels, 100)
                worst[0] = max(worst[0], under_way[0])
            time.sleep(1e-3)
            with lock:
                under_way[0] -= min(pixels, 100)

    threads = [threading.Thread(target=take, args=(pixels,)) for pixels in [30] * 20 + [1000, 100, 101]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert worst[0] <= 100 and budget.used == 0

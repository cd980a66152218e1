import math
import threading
import time

import numpy as np
import pytest
from samples import tagged

from mirolib import StorageError, UniformSwap
from mirolib.data.stream import make_ids
from mirolib.memory.swapper import Swapper


class FakeStorage:
    """Reads tagged samples after a delay; fails for one id."""

    def __init__(self, delay_s=lambda: 0.0, failing=-1):
        self.delay_s, self.failing, self.threads = delay_s, failing, set()

    def read_sound(self, ids, part="train"):
        self.threads.add(threading.get_ident())
        time.sleep(self.delay_s())
        if self.failing in ids:
            raise StorageError(f"Record {self.failing} can't be read.")
        return tagged(ids), np.ones(len(ids), dtype=bool)


def ids_of(*ordinals):
    return make_ids(np.zeros(len(ordinals)), np.array(ordinals))


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_a_request_is_due_after_the_lag_and_not_before(lag):
    swapper = Swapper(FakeStorage(), lag)
    swapper.request(10, np.array([3, 4]), ids_of(7, 8))
    time.sleep(0.05)  # the samples have long arrived
    assert list(swapper.due(10 + lag - 1)) == []
    (exchange,) = swapper.due(10 + lag)
    np.testing.assert_array_equal(exchange.fetch.result()[0], tagged(exchange.ids))
    assert exchange.slots.tolist() == [3, 4] and list(swapper.due(99)) == []
    swapper.close()


def test_a_late_fetch_shows_as_stall_time():
    swapper = Swapper(FakeStorage(lambda: 0.1), 1)
    swapper.request(0, np.array([0]), ids_of(1))
    assert len(list(swapper.due(1))) == 1
    assert 0.05 < swapper.counts.stall_s < 0.2
    swapper.close()


def test_a_fetch_in_time_is_no_stall():
    storage = FakeStorage(lambda: 0.02)
    swapper = Swapper(storage, 1)
    swapper.request(0, np.array([0]), ids_of(1))
    time.sleep(0.1)
    assert len(list(swapper.due(1))) == 1
    assert swapper.counts.stall_s < 0.01
    assert threading.get_ident() not in storage.threads
    swapper.close()


def test_draining_yields_everything_in_order():
    swapper = Swapper(FakeStorage(lambda: 0.002), 50)
    for step in range(20):
        swapper.request(step, np.array([step]), ids_of(step))
    assert [int(exchange.slots[0]) for exchange in swapper.due(math.inf)] == list(range(20))
    swapper.close()


def test_a_failed_read_is_raised_where_it_would_be_committed():
    swapper = Swapper(FakeStorage(failing=2), 1)
    for step in range(4):
        swapper.request(step, np.array([step]), ids_of(step))
    assert len(list(swapper.due(2))) == 2
    with pytest.raises(StorageError, match="Record 2"):
        [exchange.fetch.result() for exchange in swapper.due(3)]
    assert len(list(swapper.due(math.inf))) == 1
    swapper.close()


def test_closing_ends_the_thread():
    before = threading.active_count()
    swapper = Swapper(FakeStorage(), 1)
    swapper.request(0, np.array([0]), ids_of(0))
    swapper.close()
    assert threading.active_count() == before


def test_uniform_policy_is_uniform():
    rng, slots = np.random.default_rng(0), np.arange(20, 30)
    counts = np.zeros(10)
    for _ in range(4000):
        chosen = UniformSwap().choose(slots, 3, rng)
        assert len(set(chosen.tolist())) == 3
        counts[chosen - 20] += 1
    # 12,000 choices of 10: 1,200 each, standard deviation 29
    assert abs(counts - 1200).max() < 120
    assert UniformSwap().choose(slots, 10, rng).tolist() == slots.tolist()

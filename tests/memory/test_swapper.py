import math
import threading
import time

import numpy as np
import pytest
from samples import tagged
from stores import filled, ids_of, opened

from mirolib import StorageError, UniformSwap
from mirolib.memory.swapper import Swapper


@pytest.fixture
def make_swapper(tmp_path):
    """Makes a swapper over a store of 200 samples that does something before it reads; closing it ends its thread."""
    filled(tmp_path)
    storage, before, made = opened(tmp_path), threading.active_count(), []

    def make(lag, before_read=lambda size_bytes: None, steps=()):
        made.append(Swapper(storage, lag))
        storage.before_read = before_read
        for step in steps:
            made[-1].request(step, np.array([step]), ids_of(0, step, step + 1))
        return made[-1]

    yield make
    for swapper in made:
        swapper.close()
    assert threading.active_count() == before
    storage.close()


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_a_request_is_due_after_the_lag_and_not_before(make_swapper, lag):
    swapper = make_swapper(lag)
    swapper.request(10, np.array([3, 4]), ids_of(0, 7, 9))
    time.sleep(0.05)  # the samples have long arrived
    assert list(swapper.due(10 + lag - 1)) == []
    (exchange,) = swapper.due(10 + lag)
    np.testing.assert_array_equal(exchange.fetch.result()[0], tagged(exchange.ids))
    assert exchange.slots.tolist() == [3, 4] and list(swapper.due(99)) == []


@pytest.mark.parametrize(("read_s", "rest_s", "least_s", "most_s"), [(0.1, 0, 0.05, 0.2), (0.02, 0.1, 0, 0.01)])
def test_a_late_fetch_and_no_other_shows_as_stall_time(make_swapper, read_s, rest_s, least_s, most_s):
    threads = []
    swapper = make_swapper(1, lambda _: (threads.append(threading.get_ident()), time.sleep(read_s)), [0])
    time.sleep(rest_s)
    assert len(list(swapper.due(1))) == 1
    assert least_s <= swapper.counts.stall_s < most_s and threads and threading.get_ident() not in threads


def test_draining_yields_everything_in_order(make_swapper):
    swapper = make_swapper(50, lambda _: time.sleep(0.002), range(20))
    assert [int(exchange.slots[0]) for exchange in swapper.due(math.inf)] == list(range(20))


def test_a_failed_read_is_raised_where_it_would_be_committed(make_swapper):
    reads = []

    def failing(size_bytes):
        reads.append(size_bytes)
        if len(reads) == 3:
            raise StorageError("Record 2 can't be read.")

    swapper = make_swapper(1, failing, range(4))
    assert len(list(swapper.due(2))) == 2
    with pytest.raises(StorageError, match="Record 2"):
        [exchange.fetch.result() for exchange in swapper.due(3)]
    assert len(list(swapper.due(math.inf))) == 1


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

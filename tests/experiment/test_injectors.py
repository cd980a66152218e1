import contextlib
import threading
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from mirolib import InputError, MemoryConfig, ResourceMonitor
from mirolib.experiment.injectors import During, Throttle, cold_cache, disk_competitors, throttling


def test_a_throttle_lets_the_rate_pass_and_saves_up_nothing(make_memory, stream, monkeypatch):
    now, waited = [0.0], []
    monkeypatch.setattr("mirolib.experiment.injectors.time.monotonic", lambda: now[0])
    throttle = Throttle(make_memory(stream, MemoryConfig(5, 5)).storage, 100.0)
    monkeypatch.setattr(throttle, "_released", SimpleNamespace(wait=waited.append))
    throttle._take(50)
    throttle._take(20)
    now[0] = 10.0
    throttle._take(80)
    assert waited == pytest.approx([0.5, 0.7, 0.8]), "two reads at once wait one behind the other"
    with pytest.raises(InputError, match="A rate of -1 bytes/s"):
        throttling(1, 2, -1)  # long before the run has a store to throttle


@pytest.fixture
def storage(make_memory, stream):
    """The store of a memory that has received a task."""
    memory = make_memory(stream, MemoryConfig(5, 5))
    memory.receive(stream[0])
    return memory.storage


def test_a_throttle_slows_the_store_and_lets_go(storage, stream):
    ids = stream[0].train_ids[:10]
    expected = storage.read(ids)
    size = 10 * (16 + 8)
    with Throttle(storage, rate_bytes_s=size / 0.1):
        start = time.monotonic()
        np.testing.assert_array_equal(storage.read(ids), expected)
        assert time.monotonic() - start >= 0.09
    assert storage.before_read is None


def test_a_throttle_whose_rate_changes_lets_go_of_what_waits(storage, stream):
    ids = stream[0].train_ids[:10]
    with Throttle(storage, rate_bytes_s=1.0) as throttle:  # four minutes for these samples
        reader = threading.Thread(target=storage.read, args=(ids,), daemon=True)
        reader.start()
        reader.join(0.1)
        assert reader.is_alive(), "the throttle does not throttle"
        with pytest.raises(InputError, match="use above 0"):
            throttle.set_rate(0.0)
        reader.join(0.1)
        assert reader.is_alive(), "a rate that was refused changed something"
        throttle.set_rate(None)
        reader.join(5)
        assert not reader.is_alive(), "the read still waits under the old rate"
        storage.read(ids)


def test_a_competitor_works_on_the_disk_and_leaves_nothing(tmp_path):
    with disk_competitors(tmp_path, processes=2) as competitor:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(list(tmp_path.glob("*/[01]"))) < 2:
            time.sleep(0.02)
        assert len(list(tmp_path.glob("*/[01]"))) == 2
        pids = [process.pid for process in competitor]
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids) and not list(tmp_path.iterdir())


def test_a_cold_cache_takes_nothing_away(storage, stream):
    with cold_cache(storage, every_s=0.001):
        for _ in range(300):
            np.testing.assert_array_equal(storage.read(stream[0].train_ids), stream[0].train.read(slice(None)))


def test_an_injector_acts_during_its_epochs(make_memory, stream):
    log = []

    @contextlib.contextmanager
    def noisy():
        log.append("begin")
        yield
        log.append("end")

    memory = make_memory(stream, MemoryConfig(5, 5))
    during = During(2, 4, noisy())
    monitor = ResourceMonitor(memory, injectors=[during])
    for epoch in (0, 1, 2, 2, 3):
        monitor.probe(epoch)
        log.append(epoch)
    monitor.probe(4)
    during.close()
    assert log == [0, 1, "begin", 2, 2, 3, "end"]

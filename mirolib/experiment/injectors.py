"""Injectors: what makes storage slow in an experiment; `BudgetSchedule` (memory/budget.py) makes memory scarce.

A store that lies in the system's page cache feels no disk; `cold_cache` keeps it out, as on a device whose memory is
needed for other things.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from mirolib.base.errors import InputError, StorageError
from mirolib.experiment import disk_competitor
from mirolib.memory.storage import Storage
from mirolib.memory.store_file import DATA


class Throttle(AbstractContextManager["Throttle"]):
    """Lets so many bytes of a store be read a second while the block lasts; the rate may be changed meanwhile."""

    def __init__(self, storage: Storage, rate_bytes_s: float | None) -> None:
        """A throttle on the reads of `storage`, at a rate as `set_rate` takes it."""
        self._storage, self._released, self._lock = storage, threading.Event(), threading.Lock()
        self.set_rate(rate_bytes_s)

    def set_rate(self, rate_bytes_s: float | None) -> None:
        """Sets the rate in bytes a second, None for no limit; a read that waits under the old one goes on at once.

        There is an `InputError` if the rate is not positive.
        """
        if rate_bytes_s is not None and not rate_bytes_s > 0:
            raise InputError(f"A rate of {rate_bytes_s} bytes/s can't be; use above 0.")
        with self._lock:
            self._rate, self._free_at = rate_bytes_s, time.monotonic()
            waiting, self._released = self._released, threading.Event()
        waiting.set()

    def _take(self, size_bytes: int) -> None:
        """Waits until so many bytes may pass; a pause saves up nothing."""
        with self._lock:
            if (rate := self._rate) is None:
                return
            now, released = time.monotonic(), self._released
            self._free_at = max(now, self._free_at) + size_bytes / rate
            wait_s = self._free_at - now
        released.wait(wait_s)  # an event in the place of a sleep, so that another rate ends it

    def __enter__(self) -> Throttle:
        self._storage.before_read = self._take
        return self

    def __exit__(self, *error: object) -> None:
        """Ends, and lets what waits go on."""
        self._storage.before_read = None
        self.set_rate(self._rate)


@contextmanager
def disk_competitors(folder: str | os.PathLike[str], processes: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that write, sync and read back files beside a store, without the page cache, until the block ends.

    Each takes 64 MiB of the disk that holds `folder`. There is a `StorageError` if one had ended by itself, so that
    there was less competition than was asked for.
    """
    command = [sys.executable, "-S", disk_competitor.__file__]
    with tempfile.TemporaryDirectory(prefix="miro-competitor-", dir=folder) as work:
        running = [subprocess.Popen([*command, f"{work}/{n}"], stdin=subprocess.PIPE) for n in range(processes)]
        try:
            yield running
            if any(process.poll() is not None for process in running):
                raise StorageError(f"A disk competitor in {folder} ended early; see its message, perhaps a full disk.")
        finally:
            for process in running:
                process.kill()
                process.communicate()  # closes its input and waits: it must be gone before its files are deleted


@contextmanager
def cold_cache(storage: Storage, every_s: float = 0.02) -> Iterator[None]:
    """Drops a store's data from the page cache again and again until the block ends, so that reads go to the disk."""
    stop = threading.Event()

    def drop() -> None:
        with (storage.path / DATA).open("rb") as file:
            while not stop.wait(every_s):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    thread = threading.Thread(target=drop, name="miro-cold-cache", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class During(ExitStack):
    """An injector for `ResourceMonitor`: something acts from one epoch of a run on and ends at another.

    Used in a `with` block, it ends with it in any case.
    """

    def __init__(self, first: int, last: int, *what: AbstractContextManager[object]) -> None:
        """Acts while `first <= epochs done < last`."""
        super().__init__()
        self._first, self._last, self._what, self._acts = first, last, what, False

    def __call__(self, epochs_done: float) -> None:
        """Begins or ends as the run goes on."""
        due = self._first <= epochs_done < self._last
        if due and not self._acts:
            for one in self._what:
                self.enter_context(one)
        elif not due:
            self.close()
        self._acts = due

    def __exit__(self, *error: object) -> None:
        super().__exit__(None, None, None)  # what acts ends as at its last epoch, whatever has ended the block
        self._acts = False


def throttling(first: int, last: int, rate_bytes_s: float) -> Callable[[Storage], During]:
    """A disturbance for `run_experiment`: a throttle of so many bytes a second while `first <= epochs done < last`.

    There is an `InputError` if the rate is not positive.
    """
    if not rate_bytes_s > 0:  # not only when the run has begun
        raise InputError(f"A rate of {rate_bytes_s} bytes/s can't be; use above 0.")
    return lambda storage: During(first, last, Throttle(storage, rate_bytes_s))


def competing(first: int, last: int, processes: int = 1) -> Callable[[Storage], During]:
    """A disturbance for `run_experiment`: a cold cache and real competitors for the store's disk meanwhile."""
    return lambda storage: During(
        first, last, cold_cache(storage), disk_competitors(storage.path.absolute().parent, processes)
    )

"""The swapper: a thread reads storage ahead, the training thread commits.

Asynchronous fetch, synchronous commit: what is asked for at step `t` is handed back at step `t + lag`, neither
earlier nor later. Which samples are exchanged when is therefore independent of how fast the disk is, and a fetch
that is late shows as stall time, the sign of I/O congestion (paper: principle P4).
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import pandas as pd

from mirolib.base.state import State
from mirolib.data.stream import ORDINAL_MASK, labels_of
from mirolib.memory.storage import Storage


@dataclass(frozen=True)
class Exchange:
    """Samples from storage and the slots of the episodic memory they go to.

    Attributes:
        slots: `(n,) int64` slots.
        ids: `(n,) int64` ids of the incoming samples.
        samples: `(k, *sample_shape)` the incoming samples that storage could give back.
        sound: `(n,) bool` which ones they are.
    """

    slots: np.ndarray
    ids: np.ndarray
    samples: np.ndarray
    sound: np.ndarray


@dataclass(frozen=True)
class SwapCounts:
    """Swapping since the memory was made; subtract two to see what lies between.

    Attributes:
        steps: Training steps.
        replayed: Samples replayed from the episodic memory.
        swapped: Samples exchanged with storage.
        unavailable: Exchanges left out because storage had no further sample of the class.
        stall_s: Seconds that training waited for storage.
    """

    steps: int = 0
    replayed: int = 0
    swapped: int = 0
    unavailable: int = 0
    stall_s: float = 0.0

    def __sub__(self, earlier: SwapCounts) -> SwapCounts:
        """What was added since `earlier`."""
        return SwapCounts(
            self.steps - earlier.steps,
            self.replayed - earlier.replayed,
            self.swapped - earlier.swapped,
            self.unavailable - earlier.unavailable,
            self.stall_s - earlier.stall_s,
        )


class SwapPolicy(ABC):
    """Which of the replayed samples make room."""

    @abstractmethod
    def choose(self, slots: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Picks `count` of the replayed `slots` of a batch to be swapped out."""

    def state(self) -> State:
        """What the policy remembers, for a checkpoint; nothing unless it says otherwise."""
        return {}

    def restore(self, state: State) -> None:  # noqa: B027
        """Takes back what `state` gave."""


class UniformSwap(SwapPolicy):
    """Every replayed sample is as likely to go as any other (the paper's policy)."""

    def choose(self, slots: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Picks uniformly, without repetition."""
        return slots if count == len(slots) else rng.permutation(slots)[:count]


class Swapper:
    """Fetches samples in one background thread and hands them back at a fixed lag."""

    def __init__(self, storage: Storage, lag: int) -> None:
        """Starts the thread, with nothing under way.

        Args:
            storage: Where samples are read.
            lag: Steps between a request and its commit, at least 1.
        """
        self.stall_s = 0.0
        self._storage = storage
        self._lag = lag
        self._pending: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._asked: SimpleQueue[np.ndarray | None] = SimpleQueue()
        self._fetched: SimpleQueue[tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | Exception]] = SimpleQueue()
        self._thread = threading.Thread(target=self._fetch, name="miro-swapper", daemon=True)
        self._thread.start()

    def _fetch(self) -> None:
        """The thread: reads what is asked for, in order, until it is asked for None."""
        while (ids := self._asked.get()) is not None:
            try:
                self._fetched.put((ids, self._storage.read_sound(ids)))
            except Exception as error:  # handed to the training thread, which raises it
                self._fetched.put((ids, error))

    def request(self, step: int, slots: np.ndarray, ids: np.ndarray) -> None:
        """Asks for samples `ids`, to be put into `slots` at step `step + lag`."""
        self.ask(step + self._lag, slots, ids)

    def ask(self, due: int, slots: np.ndarray, ids: np.ndarray) -> None:
        """Asks for samples `ids`, to be put into `slots` at step `due`."""
        self._pending.append((due, slots, ids))
        self._asked.put(ids)

    def under_way(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """What has been asked for and not been handed back: the step it is due at, slots and ids."""
        return list(self._pending)

    def due(self, step: int) -> Iterator[Exchange]:
        """Yields what is to be committed at `step`, waiting (and counting the wait) for what is late.

        Raises:
            StorageError: If storage can't be read.
        """
        while self._pending and self._pending[0][0] <= step:
            yield self._finish()

    def drain(self) -> Iterator[Exchange]:
        """Yields everything under way, so that nothing is lost when slots are about to move.

        Raises:
            StorageError: If storage can't be read.
        """
        while self._pending:
            yield self._finish()

    def _finish(self) -> Exchange:
        start = time.monotonic()
        fetched, found = self._fetched.get()
        self.stall_s += time.monotonic() - start
        _, slots, ids = self._pending.popleft()
        assert fetched is ids, "a fetch was lost, as by an interrupt: the memory must be made anew"
        if isinstance(found, Exception):
            raise found
        return Exchange(slots, ids, *found)

    def close(self) -> None:
        """Ends the thread; what is under way is dropped."""
        self._asked.put(None)
        self._thread.join()
        self._pending.clear()


def exchanges(ids: np.ndarray, class_names: Sequence[str]) -> pd.DataFrame:
    """What was exchanged, read off a history of the episodic memory.

    Args:
        ids: `(steps, slots) int64`, the id in each slot after each training step.
        class_names: Class name at each label.

    Returns:
        One row an exchange: `step`, `slot`, `class`, and the ordinals within the class of the sample that went
        `out` and of the one that came `in`.
    """
    steps, slots = np.nonzero(np.diff(ids, axis=0))
    out, into = ids[steps, slots], ids[steps + 1, slots]
    names = [class_names[label] for label in labels_of(into)]
    table = {"step": steps + 1, "slot": slots, "class": names, "out": out & ORDINAL_MASK, "in": into & ORDINAL_MASK}
    return pd.DataFrame(table)

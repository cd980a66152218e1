"""Which replayed samples go back to storage for others of their class, and when (paper: data swapping, Fig. 1).

Asynchronous fetch, synchronous commit: what is asked for at step `t` is taken in at step `t + lag`, neither earlier
nor later. Which samples are exchanged when is therefore independent of how fast the disk is, and a fetch that is late
shows as stall time, the sign of I/O congestion (paper: principle P4).
"""

from __future__ import annotations

import math
import operator
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, make_dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from mirolib.base.state import Ids, State, generator_of, loaded
from mirolib.data.stream import ORDINAL_MASK, labels_of
from mirolib.memory.buffers import EpisodicMemory
from mirolib.memory.replace_damaged import replaced
from mirolib.memory.rotation import Rotation
from mirolib.memory.storage import Storage


class Exchange(NamedTuple):
    """Samples on their way from storage into slots of the episodic memory, which take them in at step `due`."""

    due: int
    slots: np.ndarray
    ids: np.ndarray
    fetch: Future[tuple[np.ndarray, np.ndarray]]  # gives the samples that could be read, and `(n,) bool` which they are


@dataclass(frozen=True)
class SwapCounts:
    """Swapping since the memory was made; subtract two to see what lies between."""

    steps: int = 0  # training steps
    replayed: int = 0  # samples replayed from the episodic memory
    swapped: int = 0  # samples exchanged with storage
    unavailable: int = 0  # exchanges left out because storage had no further sample of the class
    stall_s: float = 0.0  # seconds that training waited for storage
    passed: int = 0  # samples of the task at hand that were trained on, where they pass through the stream buffer
    streamed: int = 0  # those of them that were fetched for it

    def __add__(self, more: SwapCounts) -> SwapCounts:
        # four a step: astuple would copy deeply, which takes a fifth of swapping's time
        return SwapCounts(*map(operator.add, vars(self).values(), vars(more).values()))

    def __sub__(self, earlier: SwapCounts) -> SwapCounts:
        return SwapCounts(*map(operator.sub, vars(self).values(), vars(earlier).values()))


class Replayed:
    """The episodic memory as it is swapped: slots keep their classes, or take turns where there are more classes."""

    def __init__(self, memory: EpisodicMemory, storage: Storage, block: int) -> None:
        """Of a memory over a store, of which `block` neighbours come together in passes, whatever their classes."""
        self.memory, self.block, self._storage = memory, block, storage
        self.turns = np.zeros(0, dtype=np.int64)  # classes whose turn is still to come
        self.takes_turns = False  # in the paper's way a class without a slot is left out

    def draw(self, slots: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Random samples that the memory does not hold: of the slots' classes, or of those whose turn it is."""
        memory, block = self.memory, self.block if self.takes_turns else 1
        labels = labels_of(memory.array.ids_at(slots))
        if block > 1 or (self.takes_turns and len(memory.classes) > len(memory)):
            while len(self.turns) < len(slots):
                self.turns = np.concatenate([self.turns, rng.permutation(memory.classes)])
            labels, self.turns = self.turns[: len(slots)], self.turns[-(-len(slots) // block) :]
        ids = memory.draw_absent(labels, rng)
        if block > 1:  # blocks begin at every so manieth; the others stand in for neighbours that can't be had
            single = ids[ids >= 0]
            ahead = np.append(memory.absent(self._storage.neighbours(single[::block], block)), single)
            ahead = ahead[np.sort(np.unique(ahead, return_index=True)[1])][: len(ids)]
            ids[: len(ahead)], ids[len(ahead) :] = ahead, -1
        return ids

    def reserve(self, ids: np.ndarray) -> None:
        """Marks them as held, or the next steps could draw them a second time."""
        self.memory.reserve(ids)

    def take_in(self, slots: np.ndarray, ids: np.ndarray, samples: np.ndarray, sound: np.ndarray) -> None:
        """Puts them into their slots; a slot keeps its sample where storage has no sound one for it."""
        samples, ids = replaced(self._storage, self.memory, ids, samples, sound)
        self.memory.exchange(slots[ids >= 0], samples, ids[ids >= 0])


Tier = Replayed | Rotation
"""A buffer as it is swapped."""


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
        # no draw where all go: a ratio of 1 costs no permutation a step
        return slots if count == len(slots) else rng.permutation(slots)[:count]


_Kept = make_dataclass("_Kept", {  # what `Swapper.state` gives, with the types it must have
    "owed": float, "counts": SwapCounts, "under_way": list[tuple[int, Ids, Ids]], "generator": State, "policy": State,
}.items())  # fmt: skip


class Swapper:
    """Exchanges a share of the samples trained on for others that storage holds.

    Attributes:
        policy: Which replayed samples make room; uniform by default.
        counts: Swapping so far.
    """

    def __init__(
        self, storage: Storage, lag: int, policy: SwapPolicy | None = None, rng: np.random.Generator | None = None
    ) -> None:
        """Nothing exchanged yet: samples will be taken in `lag` steps, 1 or more, after storage was asked for them."""
        self.policy = policy or UniformSwap()
        self.counts = SwapCounts()
        self._storage, self._lag = storage, lag
        self._rng = rng or np.random.default_rng(0)
        self._owed = 0.0  # exchanges that the ratio asks for beyond those made: small batches owe fractions
        self._pending: deque[Exchange] = deque()
        # one thread: reads come back in the order they were asked for, and it only reads; a thread that wrote into
        # the memory itself would tear samples under the batch that is being gathered
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="miro-swapper")

    def swap(self, memory: Tier, trained: np.ndarray, ratio: float) -> np.ndarray:
        """Commits the exchanges that are due, then asks for those of a batch, made of the buffer's slots `trained`.

        Over time, `ratio` of these are exchanged. Returned are the slots that wait for other samples. There is a
        `StorageError` if storage can't be read.
        """
        step = self.counts.steps
        self.settle(memory, step)
        slots, found = trained[:0], np.zeros(0, dtype=bool)
        if ratio and len(trained):
            self._owed += ratio * len(trained)
            owed = int(self._owed + 1e-9)  # ten steps of 0.1 owe one, though their floats sum to less
            self._owed -= owed
            slots = self.policy.choose(trained, min(owed, len(trained)), self._rng)
            # drawn after the commit: what has just come in is no longer absent, what has just gone is
            ids = memory.draw(slots, self._rng)
            if (found := ids >= 0).any():
                memory.reserve(ids[found])
                self.request(step, slots[found], ids[found])
        self.counts += SwapCounts(1, len(trained), int(found.sum()), int((~found).sum()))
        return slots[found]

    def settle(self, memory: Tier, step: float = math.inf) -> None:
        """Commits the exchanges due up to `step`, by default all under way; a `StorageError` if that can't be read."""
        for exchange in self.due(step):
            memory.take_in(exchange.slots, exchange.ids, *exchange.fetch.result())

    @property
    def under_way(self) -> int:
        """Samples that have been asked for and are not taken in yet."""
        return sum(len(one.slots) for one in self._pending)

    def request(self, step: int, slots: np.ndarray, ids: np.ndarray) -> None:
        """Asks for samples `ids`, to be put into `slots` at step `step + lag`."""
        fetch = self._reader.submit(self._storage.read_sound, ids)
        self._pending.append(Exchange(step + self._lag, slots, ids, fetch))

    def due(self, step: float) -> Iterator[Exchange]:
        """Yields what is to be committed up to `step`, waiting (and counting the wait) for what is late."""
        while self._pending and self._pending[0].due <= step:
            start = time.monotonic()
            wait([self._pending[0].fetch])
            self.counts += SwapCounts(stall_s=time.monotonic() - start)
            # taken off the list after the wait, so that an interrupt while waiting loses nothing
            yield self._pending.popleft()

    def state(self) -> State:
        """What is owed and under way, the counts, and the generator."""
        return {
            "owed": self._owed,
            "counts": asdict(self.counts),
            "under_way": [[one.due, one.slots, one.ids] for one in self._pending],
            "generator": self._rng.bit_generator.state,
            "policy": self.policy.state(),
        }

    def restore(self, state: State, memory: Tier) -> None:
        """Goes on from what `state` gave, with the buffer as it was then, asking again for what was under way.

        There is an `InputError` if it is no such state.
        """
        kept = loaded(_Kept, state)
        self._owed, self.counts = kept.owed, kept.counts
        self._rng = generator_of(kept.generator)
        self.policy.restore(kept.policy)
        for due, slots, ids in kept.under_way:
            memory.reserve(ids)
            self.request(due - self._lag, slots, ids)  # due when it was, whatever the lag is now

    def close(self) -> None:
        """Ends the thread; what is under way is dropped."""
        self._reader.shutdown(cancel_futures=True)
        self._pending.clear()


def exchanges(ids: np.ndarray, class_names: Sequence[str]) -> pd.DataFrame:
    """What was exchanged, read off the ids in the episodic memory after each training step, `(steps, slots) int64`.

    Returns:
        One row an exchange: `step`, `slot`, `class`, and the ordinals within the class of the sample that went
        `out` and of the one that came `in`.
    """
    steps, slots = np.nonzero(np.diff(ids, axis=0))
    out, into = ids[steps, slots], ids[steps + 1, slots]
    names = [class_names[label] for label in labels_of(into)]
    table = {"step": steps + 1, "slot": slots, "class": names, "out": out & ORDINAL_MASK, "in": into & ORDINAL_MASK}
    return pd.DataFrame(table)

"""What is where: the task at hand in the stream buffer, old samples in the episodic memory, all of them on storage."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from mirolib.base.display import grid, size_text
from mirolib.base.errors import InputError
from mirolib.base.state import Ids
from mirolib.data.stream import ORDINAL_MASK, Task, labels_of, make_ids, rank_in_class
from mirolib.memory.available_memory import check_available
from mirolib.memory.buffers import EpisodicMemory, SampleArray, StreamBuffer, balanced_quotas, in_chunks
from mirolib.memory.config import MemoryConfig
from mirolib.memory.replace_damaged import fill_episodic, fill_stream, no_sample_left
from mirolib.memory.rotation import Rotation
from mirolib.memory.storage import Storage

BALANCES = ("class", "class-and-task")
"""What the episodic memory is balanced by: classes, or beside them the tasks, such as persons, that they came with."""


@dataclass
class Seen:
    """How far the classes have been seen: each array has an entry a class."""

    old: Ids  # training samples on storage of finished tasks
    tasks: Ids  # finished tasks that the class came with
    ends: list[Ids]  # what was on storage before the first task, and after those that had arrived
    judged: list[Ids]  # validation samples received by then


def _ends(ids: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Samples by class, where there were so many before these came."""
    found = before.copy()
    np.maximum.at(found, labels_of(ids), (ids & ORDINAL_MASK) + 1)
    return found


class Tiers(ABC):
    """Stream buffer, episodic memory and storage; `TieredMemory` trains from them."""

    rotation: Rotation
    _select_rng: np.random.Generator

    def __init__(
        self, storage: Storage, config: MemoryConfig, num_classes: int, hierarchical: bool, balance: str
    ) -> None:
        if balance not in BALANCES:
            raise InputError(f"balance is {balance!r}; choose {' or '.join(BALANCES)}.")
        self.storage, self.config, self.hierarchical, self.balance = storage, config, hierarchical, balance
        self._check(config, config.stream_size + config.episodic_size)
        kind = storage.fingerprint.sample_shape, storage.fingerprint.sample_dtype
        self.stream_buffer = StreamBuffer(SampleArray(config.stream_size, *kind))
        self.episodic_memory = EpisodicMemory(SampleArray(config.episodic_size, *kind))
        self._stored = np.zeros(num_classes, dtype=np.int64)
        none = self._stored.copy()
        self.seen = Seen(none, none.copy(), [none], [none])
        self.staged = 0  # most samples that were on their way into slots at once
        self._layout = 0  # counts what makes the slots of a batch stale

    @abstractmethod
    def settle(self) -> None:
        """Commits every exchange under way; see `TieredMemory`."""

    def receive(self, task: Task) -> None:
        """Buffering: writes the samples of a new task to storage and fills the stream buffer.

        Under a budget storage keeps some of them only, and the stream buffer takes its samples from these. There is an
        `InputError` if the store's budget does not hold a training sample of each class, and a `StorageError` if
        storage can't take them.
        """
        self._widen(max(task.classes) + 1)
        shrunk, seen = [] if self.storage.size_budget is None else np.flatnonzero(self.seen.tasks).tolist(), self.seen
        if {*shrunk} & {*task.classes}:  # the last samples of a class, which go first, would be those of its last task
            raise InputError("A store's budget is for classes that come once; leave it out where they return.")
        self.store(task)
        ends = _ends(task.train_ids, self._stored)
        for label in (*shrunk, *task.classes):  # storage may hold more, of a run that had come further
            self._stored[label] = min(self.storage.count(label), ends[label])
        rows = self._stored.copy(), _ends(task.validation_ids, seen.judged[-1])
        # where nothing returns, no class has a boundary within
        keep = 1 if len(seen.ends) > 1 and not seen.tasks[list(task.classes)].any() else 0
        seen.ends[len(seen.ends) - keep :], seen.judged[len(seen.judged) - keep :] = ([row] for row in rows)
        self._drop_evicted()
        kept = (task.train_ids & ORDINAL_MASK) < self._stored[labels_of(task.train_ids)]
        self.stream_buffer.begin(task.train_ids[kept], self._select_rng)
        # from the data set, which is at hand, rather than from the store that has just been written
        order = np.argsort(task.train_ids)
        for wanted in in_chunks(self.stream_buffer.missing()):
            positions = order[np.searchsorted(task.train_ids, wanted, sorter=order)]
            self.stream_buffer.array.append(task.train.read(positions), wanted)
        self.rotation.begin()

    def store(self, task: Task) -> None:
        """Writes the samples of a task to storage; those that are there are left as they are.

        There is an `InputError` if the store's budget does not hold a training sample of each class, and a
        `StorageError` if storage can't take them.
        """
        parts = ("validation", task.validation, task.validation_ids), ("train", task.train, task.train_ids)
        for part, samples, ids in parts:  # validation first: under a budget, training samples get what it leaves
            # every prefix and, on average, every block of neighbours holds the classes alike
            order = np.argsort(ids & ORDINAL_MASK, kind="stable")
            for chunk in in_chunks(order[~self.storage.holds(ids[order], part)]):
                self.storage.put(ids[chunk], samples.read(chunk), part)

    def retain(self, task: Task) -> None:
        """Flushing: the episodic memory takes samples of the stream buffer, and old classes make room."""
        self.settle()
        self._layout += 1
        seen, labels = self.seen, list(task.classes)
        before, kept = seen.old.copy(), np.ones(len(seen.old))
        seen.old[labels], seen.tasks[labels] = self._stored[labels], seen.tasks[labels] + 1
        # of a class that returns, the samples held make room for their share of new ones
        kept[labels] = before[labels] / seen.old[labels] if self.balance == "class" else 1 - 1 / seen.tasks[labels]
        self._mark_old()
        ids = self.stream_buffer.array.ids  # at the turn of a pass, a sample may be there twice
        self.stream_buffer.array.discard(np.setdiff1d(np.arange(len(ids)), np.unique(ids, return_index=True)[1]))
        self._balance_episodic(self.config.episodic_size, kept)
        self.stream_buffer.clear()
        self.rotation.begin()

    def resize(self, config: MemoryConfig) -> None:
        """Applies a configuration between two epochs.

        What fits is kept; new room in the stream buffer, and in a hierarchical episodic memory, is filled from storage.
        There is an `InputError` if the process may not take as much; nothing is changed then.
        """
        if config == self.config:
            return
        size = config.stream_size + config.episodic_size
        grows = size > self.config.stream_size + self.config.episodic_size
        # smaller buffers are never refused: where memory is short, they are the remedy
        self._check(config, size - len(self.stream_buffer) - len(self.episodic_memory) if grows else 0)
        self.settle()
        self._layout += 1
        if config.stream_size != self.config.stream_size:
            if self.rotation.position.fetched > len(self.stream_buffer):  # it is no longer a prefix of its order
                self.rotation.resize(config.stream_size)
            else:
                self.stream_buffer.resize(config.stream_size)
                fill_stream(self.storage, self.stream_buffer)
                self.rotation.begin()
        if config.episodic_size != self.config.episodic_size:
            self._balance_episodic(config.episodic_size)
            self.rotation.position.pack = self.rotation.position.pack[:0]
        self.config = config

    def _widen(self, num_labels: int) -> None:
        """Makes room for classes beyond those that were expected."""
        seen, more = self.seen, (0, max(0, num_labels - len(self._stored)))
        self._stored, seen.old, seen.tasks = (np.pad(one, more) for one in (self._stored, seen.old, seen.tasks))
        seen.ends, seen.judged = ([np.pad(one, more) for one in rows] for rows in (seen.ends, seen.judged))

    def _mark_old(self) -> None:
        """Tells the episodic memory which samples on storage are old, and, for a balance by task, where tasks begin."""
        memory, seen = self.episodic_memory, self.seen
        memory.classes, memory.old = np.flatnonzero(seen.tasks), seen.old
        if self.balance != "class":
            ends = np.minimum(np.stack(seen.ends), seen.old).T
            memory.bounds = [np.unique(row) for row in ends]

    def _balance_episodic(self, capacity: int, kept: np.ndarray | None = None) -> None:
        """Brings the memory to a capacity, class-balanced; after a task, samples held are `kept` to a share of it."""
        memory, buffer = self.episodic_memory, self.stream_buffer.array
        num_labels, ids = len(self._stored), buffer.ids
        new = (ids & ORDINAL_MASK) < self.seen.old[buffer.labels]  # none, before the task has ended
        flushed = np.bincount(buffer.labels[new], minlength=num_labels)
        quotas = least = balanced_quotas(capacity, self.reachable(flushed))
        if kept is not None and ((kept > 0) & (kept < 1)).any():
            # rounded at random, for small quotas would all go to the newest
            least = np.floor(quotas * kept + self._select_rng.random(num_labels)).astype(np.int64)
            least = np.maximum(np.minimum(least, quotas), quotas - flushed)
        memory.rebalance(capacity, least, self._select_rng)
        lacking = quotas - memory.class_counts(num_labels)
        # classes that have too few are filled from the stream buffer, when its task has just ended, then from storage
        slots = self._select_rng.permutation(np.flatnonzero(new))
        slots = slots[rank_in_class(buffer.labels[slots]) < lacking[buffer.labels[slots]]]
        for chunk in in_chunks(slots):
            memory.reserve(buffer.ids_at(chunk))
            memory.array.append(*buffer.copy_of(chunk))
        if not self.hierarchical:
            return
        lacking = quotas - memory.class_counts(num_labels)
        ids = memory.draw_absent(np.repeat(np.arange(num_labels), lacking), self._select_rng)
        fill_episodic(self.storage, memory, ids[ids >= 0])
        if (empty := np.flatnonzero((quotas > 0) & (memory.class_counts(num_labels) == 0))).size:
            raise no_sample_left(self.storage, int(empty[0]))

    def _drop_evicted(self) -> None:
        """Drops from RAM what storage has evicted, so that ids are enough to say in a checkpoint what RAM holds."""
        memory, ids = self.episodic_memory, self.episodic_memory.array.ids
        evicted = np.flatnonzero((ids & ORDINAL_MASK) >= self._stored[labels_of(ids)])
        memory.array.discard(evicted)
        self.seen.old = np.minimum(self.seen.old, self._stored)
        memory.extend(self._stored, self.seen.old)
        if len(evicted):
            self._layout += 1
            self._balance_episodic(self.config.episodic_size)

    def _check(self, config: MemoryConfig, added: int) -> None:
        """Refuses to swap without a hierarchy, and what both buffers, `added` samples fuller, have no room for."""
        if config.swap_ratio > 0 and not self.hierarchical:
            raise InputError("A single-level memory can't swap; set swap_ratio to 0 or make the memory hierarchical.")
        # each may fit alone, and the system gives memory only as slots are filled: too late for a sentence
        check_available(added * self.slot_bytes, f"A memory of {config.stream_size} + {config.episodic_size} samples")

    @property
    def stored(self) -> int:
        """Training samples on storage."""
        return int(self._stored.sum())

    def reachable(self, flushed: np.ndarray | int = 0) -> np.ndarray:
        """Old samples that training can see, by class, `(num_classes,) int64`: on storage, or held where single-level.

        What is held includes `flushed`, samples by class that are about to be flushed into the episodic memory.
        """
        held = self.episodic_memory.class_counts(len(self._stored))
        return self.seen.old.copy() if self.hierarchical else held + flushed

    def reach(self, drawn: float) -> float:
        """Share of the stored old samples that training sees, in [0, 1]: those held, and so many drawn at random."""
        stored, held = int(self.seen.old.sum()), len(self.episodic_memory)
        return 1 - (1 - held / stored) * math.exp(-drawn / stored) if stored else 0.0

    @property
    def allocated_bytes(self) -> int:
        """Bytes of RAM that the slots of the two buffers take when full."""
        return self.stream_buffer.array.allocated_bytes + self.episodic_memory.array.allocated_bytes

    @property
    def overhead_bytes(self) -> int:
        """Bytes of RAM beside the slots: samples on their way, and the index of what is on storage."""
        return self.staged * self.slot_bytes + self.index_bytes

    @property
    def memory_bytes(self) -> int:
        """Bytes of RAM in all: slots when full, samples on their way, and the index."""
        return self.allocated_bytes + self.overhead_bytes

    @property
    def index_bytes(self) -> int:
        """Bytes of RAM that say what is on storage: five a stored sample, and some a class."""
        own = self._stored.nbytes + len(self._stored)
        own += sum(row.nbytes for row in (*self.seen.ends[2:], *self.seen.judged[2:]))
        return self.storage.index_bytes + self.episodic_memory.index_bytes + own

    @property
    def slot_bytes(self) -> int:
        """Bytes of RAM that one sample takes in either buffer, label and id included; the mean of encoded samples."""
        return self.storage.fingerprint.slot_bytes

    def validation_ids(self) -> np.ndarray:
        """Ids of the validation samples received so far, `(n,) int64`."""
        # After a resume, storage may know more classes than have been received.
        counts = np.minimum(self.seen.judged[-1], self.storage.counts(len(self._stored), "validation"))
        return make_ids(np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(n) for n in counts]))

    def judged_ids(self) -> np.ndarray:
        """The same in an order of which every prefix is balanced by class, and by the tasks that a class came with."""
        ids = self.validation_ids()
        ordinals, first = ids & ORDINAL_MASK, np.zeros(len(ids), dtype=np.int64)
        for ends in self.seen.judged:
            first = np.where(ends[labels_of(ids)] <= ordinals, ends[labels_of(ids)], first)
        return ids[np.argsort(ordinals - first, kind="stable")]

    def fill(self) -> list[dict[str, object]]:
        """Samples and bytes of each tier by class, one row each, ready for a DataFrame."""
        size, labels = self.storage.fingerprint.sample_bytes, len(self._stored)
        held = np.bincount(self.stream_buffer.array.labels, minlength=labels)
        replayed = self.episodic_memory.class_counts(labels)
        tiers = (("stream buffer", held), ("episodic memory", replayed), ("storage", self._stored))
        rows = ((tier, label, int(count)) for tier, counts in tiers for label, count in enumerate(counts))
        return [{"tier": t, "label": label, "samples": n, "size_bytes": n * size} for t, label, n in rows]

    def _tiers(self) -> list[dict[str, str]]:
        """What each tier holds, one row each; encoded samples count with their mean size."""
        tiers = (
            ("stream buffer", (len(self.stream_buffer), self.config.stream_size), self.slot_bytes),
            ("episodic memory", (len(self.episodic_memory), self.config.episodic_size), self.slot_bytes),
            ("storage", (self.stored,), self.storage.fingerprint.sample_bytes),
        )
        return [
            {
                "tier": tier,
                "samples": " of ".join(f"{count:,}" for count in counts),
                "size": " of ".join(size_text(count * size_bytes) for count in counts),
            }
            for tier, counts, size_bytes in tiers
        ]

    def __repr__(self) -> str:
        tiers = "; ".join("{tier} {samples} samples ({size})".format_map(row) for row in self._tiers())
        return f"TieredMemory({tiers}; swap ratio {self.config.swap_ratio:g})"

    def _repr_html_(self) -> str:
        return grid(f"Tiered memory, swap ratio {self.config.swap_ratio:g}", self._tiers())

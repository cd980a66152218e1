"""The tiered memory: stream buffer and episodic memory in RAM, every sample ever seen on storage.

The stages are the paper's (Fig. 1): `receive` buffers a new task, `batches` and `swap` serve training, `retain`
flushes the stream buffer into the episodic memory when the task ends.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from mirolib.base.display import grid, size_text
from mirolib.base.errors import InputError
from mirolib.base.state import Flags, Ids, State, generator_of, loaded
from mirolib.data.stream import ORDINAL_MASK, Task, labels_of, make_ids, rank_in_class
from mirolib.memory.available_memory import check_available
from mirolib.memory.buffers import EpisodicMemory, SampleArray, StreamBuffer, balanced_quotas, in_chunks
from mirolib.memory.config import MemoryConfig
from mirolib.memory.replace_damaged import fill_episodic, fill_stream, no_sample_left, refill_stream
from mirolib.memory.storage import Storage
from mirolib.memory.swapper import SwapCounts, Swapper, SwapPolicy


@dataclass(frozen=True)
class Batch:
    """Samples of one training step: those of the stream buffer first, then the replayed ones.

    Attributes:
        samples: `(n, *sample_shape)` raw samples.
        labels: `(n,) int64`.
        replayed: Slots in the episodic memory of the last `len(replayed)` samples.
    """

    samples: np.ndarray
    labels: np.ndarray
    replayed: np.ndarray


@dataclass(frozen=True)
class _Kept:
    """What `TieredMemory.state` gives, with the types it must have."""

    config: MemoryConfig
    stream_ids: Ids
    stream_order: Ids
    episodic_ids: Ids
    lost: Ids
    damaged: list[Ids]
    stored: Ids
    old_classes: Flags
    generators: list[State]
    exchanger: State


def _generators(seed: int) -> Iterator[np.random.Generator]:
    """A generator for each kind of draw: how often one is asked must not change what another gives."""
    return (np.random.default_rng(child) for child in np.random.SeedSequence([seed, 2]).spawn(3))


class TieredMemory:
    """Joins stream buffer, episodic memory, storage and swapper."""

    def __init__(
        self,
        storage: Storage,
        config: MemoryConfig,
        num_classes: int,
        *,
        seed: int = 0,
        hierarchical: bool = True,
        lag: int = 2,
        policy: SwapPolicy | None = None,
    ) -> None:
        """An empty memory.

        Args:
            storage: The storage tier; `close` closes it too, as does a memory that is refused.
            config: Sizes and swap ratio to begin with.
            num_classes: Classes over the whole stream.
            seed: Seed of every draw made here.
            hierarchical: False makes it a single-level episodic memory: it never takes a sample back from storage
                (which is still written, and read where a controller enlarges the stream buffer).
            lag: Steps between asking storage for a sample and taking it in.
            policy: Which replayed samples make room; uniform by default.

        Raises:
            InputError: If `lag` is below 1, swapping is asked of a single-level memory, or the process may not take as
                much memory.
        """
        self.storage, self.config, self.hierarchical = storage, config, hierarchical
        try:
            if lag < 1:
                raise InputError(f"lag is {lag}; choose 1 step or more between fetch and commit.")
            self._check(config, config.stream_size + config.episodic_size)
            kind = storage.fingerprint.sample_shape, storage.fingerprint.sample_dtype
            self.stream_buffer = StreamBuffer(SampleArray(config.stream_size, *kind))
            self.episodic_memory = EpisodicMemory(SampleArray(config.episodic_size, *kind))
        except BaseException:
            storage.close()  # its lock would keep the next try out of the folder
            raise
        self._batch_rng, swap_rng, self._select_rng, self._lag = *_generators(seed), lag
        self._swapper = Swapper(storage, lag, policy, swap_rng)
        self._stored = np.zeros(num_classes, dtype=np.int64)
        self._old_classes = np.zeros(num_classes, dtype=bool)
        self._layout, self._owns_storage = 0, True  # the first counts what makes the slots of a batch stale

    def receive(self, task: Task) -> None:
        """Buffering: writes the samples of a new task to storage and fills the stream buffer.

        Under a budget storage keeps some of them only, and the stream buffer takes its samples from these.

        Raises:
            InputError: If the store's budget does not hold a training sample of each class.
            StorageError: If storage can't take them.
        """
        self.store(task)
        shrunk = [] if self.storage.size_budget is None else np.flatnonzero(self._old_classes).tolist()
        for label in (*shrunk, *task.classes):
            self._stored[label] = self.storage.count(label)
        self._drop_evicted()
        kept = (task.train_ids & ORDINAL_MASK) < self._stored[labels_of(task.train_ids)]
        self.stream_buffer.begin(task.train_ids[kept], self._select_rng)
        # from the data set, which is at hand, rather than from the store that has just been written
        order = np.argsort(task.train_ids)
        for wanted in in_chunks(self.stream_buffer.missing()):
            positions = order[np.searchsorted(task.train_ids, wanted, sorter=order)]
            self.stream_buffer.array.append(task.train.read(positions), wanted)

    def batches(self, batch_size: int, *, replay: bool = True) -> Iterator[Batch]:
        """One epoch over stream buffer and episodic memory, shuffled together.

        The samples are spread evenly over the batches, so that none is much smaller than the others.

        Args:
            batch_size: Most samples in a batch.
            replay: False leaves the episodic memory out.

        Raises:
            InputError: If the buffers are resized or flushed before the epoch is over.
        """
        layout, kind = self._layout, self.storage.fingerprint
        streamed = len(self.stream_buffer)
        total = streamed + (len(self.episodic_memory) if replay else 0)
        order = self._batch_rng.permutation(total)
        # none of one sample, over which nothing can be normalised, unless that was asked for
        for part in np.array_split(order, max(1, min(-(-total // batch_size), total // min(2, batch_size)))):
            new, replayed = part[part < streamed], part[part >= streamed] - streamed
            samples = np.empty((len(part), *kind.sample_shape), kind.sample_dtype)
            labels = np.empty(len(part), dtype=np.int64)
            self.stream_buffer.array.gather(new, samples[: len(new)], labels[: len(new)])
            self.episodic_memory.array.gather(replayed, samples[len(new) :], labels[len(new) :])
            yield Batch(samples, labels, replayed)
            if self._layout != layout:
                raise InputError("The buffers changed size during an epoch; call batches again after a resize.")

    def swap(self, batch: Batch) -> None:
        """Swapping: commits the exchanges that are due, then asks for those of this batch.

        Over time, `swap_ratio` of the replayed samples are exchanged, each for a random stored sample of its class.
        """
        self._swapper.swap(self.episodic_memory, batch.replayed, self.config.swap_ratio)

    def settle(self) -> None:
        """Commits every exchange under way: before slots move, and at the end of a task's training.

        Raises:
            StorageError: If a sample could not be read.
        """
        self._swapper.settle(self.episodic_memory)

    def retain(self, task: Task) -> None:
        """Flushing: the episodic memory takes samples of the stream buffer, and old classes make room."""
        self.settle()
        self._layout += 1
        self._old_classes[list(task.classes)] = True
        self._balance_episodic(self.config.episodic_size)
        self.stream_buffer.clear()

    def resize(self, config: MemoryConfig) -> None:
        """Applies a configuration between two epochs.

        What fits is kept; new room in the stream buffer, and in a hierarchical episodic memory, is filled from storage.

        Raises:
            InputError: If the process may not take as much; nothing is changed then.
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
            self.stream_buffer.resize(config.stream_size)
            fill_stream(self.storage, self.stream_buffer)
        if config.episodic_size != self.config.episodic_size:
            self._balance_episodic(config.episodic_size)
        self.config = config

    def _balance_episodic(self, capacity: int) -> None:
        """Brings the episodic memory to a capacity, class-balanced over the old classes.

        Classes that have too few samples are filled from the stream buffer (when its task has just ended) and then,
        in a hierarchical memory, from storage.
        """
        memory, buffer = self.episodic_memory, self.stream_buffer.array
        num_labels = len(self._stored)
        flushed = np.where(self._old_classes, np.bincount(buffer.labels, minlength=num_labels), 0)
        quotas = balanced_quotas(capacity, self.reachable(flushed))
        memory.rebalance(capacity, quotas, self._select_rng)
        lacking = quotas - memory.class_counts(num_labels)
        slots = self._select_rng.permutation(np.flatnonzero(flushed[buffer.labels]))
        slots = slots[rank_in_class(buffer.labels[slots]) < lacking[buffer.labels[slots]]]
        for chunk in in_chunks(slots):
            memory.add(*buffer.copy_of(chunk))
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
        memory.extend(self._stored)
        if len(evicted):
            self._layout += 1
            self._balance_episodic(self.config.episodic_size)

    def store(self, task: Task) -> None:
        """Writes the samples of a task to storage; those that are there are left as they are.

        Raises:
            InputError: If the store's budget does not hold a training sample of each class.
            StorageError: If storage can't take them.
        """
        parts = ("validation", task.validation, task.validation_ids), ("train", task.train, task.train_ids)
        for part, samples, ids in parts:  # validation first: under a budget, training samples get what it leaves
            # every prefix and, on average, every block of neighbours holds the classes alike
            order = np.argsort(ids & ORDINAL_MASK, kind="stable")
            for chunk in in_chunks(order[~self.storage.holds(ids[order], part)]):
                self.storage.put(ids[chunk], samples.read(chunk), part)

    def _check(self, config: MemoryConfig, added: int) -> None:
        """Refuses to swap without a hierarchy, and what both buffers, `added` samples fuller, would not find room for.

        Each may fit alone, and the system gives memory only as slots are filled: too late for a sentence.
        """
        if config.swap_ratio > 0 and not self.hierarchical:
            raise InputError("A single-level memory can't swap; set swap_ratio to 0 or make the memory hierarchical.")
        check_available(added * self.slot_bytes, f"A memory of {config.stream_size} + {config.episodic_size} samples")

    def __enter__(self) -> TieredMemory:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the swapper's thread and closes storage."""
        self._swapper.close()
        if self._owns_storage:
            self.storage.close()

    def fork(self, seed: int) -> TieredMemory:
        """A copy to try something on: buffers and draws of its own over the same storage.

        It takes as much RAM as this memory until it is closed, which leaves storage open. Exchanges under way are
        not copied.

        Args:
            seed: Seed of the copy's draws.
        """
        other = copy.copy(self)
        other.stream_buffer, other.episodic_memory = self.stream_buffer.copy(), self.episodic_memory.copy()
        other._stored, other._old_classes = self._stored.copy(), self._old_classes.copy()
        other._batch_rng, swap_rng, other._select_rng = _generators(seed)
        other._swapper = Swapper(self.storage, self._lag, copy.deepcopy(self._swapper.policy), swap_rng)
        other._owns_storage = False
        return other

    def state(self) -> State:
        """Which samples are where, by their ids, what is under way, and the generators; the samples are in storage."""
        return {
            "config": asdict(self.config),
            "stream_ids": self.stream_buffer.array.ids,
            "stream_order": self.stream_buffer.order,
            "episodic_ids": self.episodic_memory.array.ids,
            "lost": self.episodic_memory.damaged,
            "damaged": [np.array(sorted(ids), dtype=np.int64) for ids in self.storage.damaged.values()],
            "stored": self._stored,
            "old_classes": self._old_classes,
            "generators": [rng.bit_generator.state for rng in (self._batch_rng, self._select_rng)],
            "exchanger": self._swapper.state(),
        }

    def restore(self, state: State) -> None:
        """Brings a new memory to a state that `state` gave: the samples are read from storage.

        Raises:
            InputError: If the state is not that of such a memory.
            StorageError: If a sample can't be read.
        """
        kept = loaded(_Kept, state)
        self._check(kept.config, 0)  # for room, each buffer looks as it is resized below
        self.config, self._stored, self._old_classes = kept.config, kept.stored, kept.old_classes
        self._batch_rng, self._select_rng = map(generator_of, kept.generators)
        for ids, found in zip(kept.damaged, self.storage.damaged.values(), strict=True):
            found.update(ids.tolist())
        self.stream_buffer.order = kept.stream_order
        self.stream_buffer.array.reset(kept.config.stream_size)
        refill_stream(self.storage, self.stream_buffer, kept.stream_ids)
        self.episodic_memory.array.reset(kept.config.episodic_size)
        self.episodic_memory.damaged = kept.lost
        self.episodic_memory.extend(self._stored)
        fill_episodic(self.storage, self.episodic_memory, kept.episodic_ids)
        # last: what is under way is marked as held, which the memory must not hold yet
        self._swapper.restore(kept.exchanger, self.episodic_memory)

    @property
    def counts(self) -> SwapCounts:
        """Swapping so far."""
        return self._swapper.counts

    @property
    def stored(self) -> int:
        """Training samples on storage."""
        return int(self._stored.sum())

    def reachable(self, flushed: np.ndarray | int = 0) -> np.ndarray:
        """Old samples that training can see, by class, `(num_classes,) int64`: on storage, or held where single-level.

        Args:
            flushed: Samples by class that are about to be flushed into the episodic memory.
        """
        held = self.episodic_memory.class_counts(len(self._stored))
        return np.where(self._old_classes, self._stored if self.hierarchical else held + flushed, 0)

    @property
    def allocated_bytes(self) -> int:
        """Bytes of RAM that the two buffers take when full; a byte a stored sample comes on top."""
        return self.stream_buffer.array.allocated_bytes + self.episodic_memory.array.allocated_bytes

    @property
    def index_bytes(self) -> int:
        """Bytes of RAM that say what is on storage: five a stored sample, and some a class."""
        own = self._stored.nbytes + self._old_classes.nbytes
        return self.storage.index_bytes + self.episodic_memory.index_bytes + own

    @property
    def slot_bytes(self) -> int:
        """Bytes of RAM that one sample takes in either buffer, label and id included; the mean of encoded samples."""
        return self.storage.fingerprint.slot_bytes

    def validation_ids(self) -> np.ndarray:
        """Ids of the validation samples of every class seen so far, `(n,) int64`."""
        # After a resume, storage may know more classes than have been received.
        counts = np.where(self._stored > 0, self.storage.counts(len(self._stored), "validation"), 0)
        return make_ids(np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(n) for n in counts]))

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

"""The tiered memory: stream buffer and episodic memory in RAM, every sample ever seen on storage.

The stages are the paper's (Fig. 1): `receive` buffers a new task, `batches` and `swap` serve training, `retain`
flushes the stream buffer into the episodic memory when the task ends.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, make_dataclass

import numpy as np

from mirolib.base.errors import InputError
from mirolib.base.state import Flags, Ids, State, generator_of, loaded
from mirolib.data.stream import labels_of
from mirolib.memory.config import MemoryConfig
from mirolib.memory.replace_damaged import append_sound, fill_episodic, fill_stream
from mirolib.memory.rotation import LAG, Position, Rotation, most_new, replays
from mirolib.memory.storage import Storage
from mirolib.memory.swapper import Replayed, SwapCounts, Swapper, SwapPolicy
from mirolib.memory.tiers import Seen, Tiers


@dataclass(frozen=True)
class Batch:
    """Samples of one training step: those of the stream buffer first, then the replayed ones.

    Attributes:
        samples: `(n, *sample_shape)` raw samples.
        labels: `(n,) int64`.
        replayed: Slots in the episodic memory of the last `len(replayed)` samples.
        streamed: Slots in the stream buffer of the others, where they go through it pass by pass.
    """

    samples: np.ndarray
    labels: np.ndarray
    replayed: np.ndarray
    streamed: np.ndarray | None = None


_Kept = make_dataclass("_Kept", [*{  # what `TieredMemory.state` gives, with the types it must have
    "config": MemoryConfig, "stream_ids": Ids, "stream_order": Ids, "episodic_ids": Ids, "lost": Ids,
    "damaged": list[Ids], "stored": Ids, "old_classes": Flags, "generators": list[State], "exchanger": State,
    "position": Position, "streamer": State, "turns": Ids, "staged": int,
}.items(), ("seen", Seen | None, None)])  # fmt: skip


class TieredMemory(Tiers, AbstractContextManager["TieredMemory"]):
    """Joins stream buffer, episodic memory, storage and swapper."""

    def __init__(
        self, storage: Storage, config: MemoryConfig, num_classes: int, *, seed: int = 0, hierarchical: bool = True,
        lag: int = LAG, policy: SwapPolicy | None = None, block: int = 1, balance: str = "class",
    ) -> None:  # fmt: skip
        """An empty memory.

        Args:
            storage: The storage tier; `close` closes it too, as does a memory that is refused.
            config: Sizes and swap ratio to begin with.
            num_classes: Classes over the whole stream, as far as they are known.
            seed: Seed of every draw made here.
            hierarchical: False makes it a single-level episodic memory: it never takes a sample back from storage
                (which is still written, and read where a controller enlarges the stream buffer).
            lag: Steps between asking storage for a sample and taking it in.
            policy: Which replayed samples make room; uniform by default.
            block: Neighbours on storage that are exchanged together in passes: more take fewer random reads.
            balance: What old samples are balanced by, one of `BALANCES`.

        Raises:
            InputError: If `lag` or `block` is below 1, swapping is asked of a single-level memory, or the process may
                not take as much memory.
        """
        try:
            if lag < 1 or block < 1:
                raise InputError(f"lag is {lag} and block {block}; choose 1 or more of each.")
            super().__init__(storage, config, num_classes, hierarchical, balance)
        except BaseException:
            storage.close()  # its lock would keep the next try out of the folder
            raise
        self._lag, self._block, self._owns_storage = lag, block, True
        self._draw_anew(seed, policy)

    def _draw_anew(self, seed: int, policy: SwapPolicy | None) -> None:
        """Swappers and draws from a seed; a generator for each kind: how often one is asked must not change others."""
        rngs = [np.random.default_rng(child) for child in np.random.SeedSequence([seed, 2]).spawn(4)]
        self._batch_rng, swap_rng, self._select_rng, stream_rng = rngs
        self._swapper = Swapper(self.storage, self._lag, policy, swap_rng)
        self._streamer = Swapper(self.storage, self._lag, rng=stream_rng)
        self._replayed = Replayed(self.episodic_memory, self.storage, self._block)
        self.rotation = Rotation(self.stream_buffer, self.episodic_memory, seed, self.storage, self._block)

    def batches(self, batch_size: int, *, replay: bool = True) -> Iterator[Batch]:
        """One epoch over stream buffer and episodic memory, shuffled together.

        The samples are spread evenly over the batches, of `batch_size` at most, so that none is much smaller than the
        others. Without `replay` the episodic memory is left out. There is an `InputError` if the buffers are resized or
        flushed before the epoch is over.
        """
        streamed = len(self.stream_buffer)
        total = streamed + (len(self.episodic_memory) if replay else 0)
        order = self._batch_rng.permutation(total)
        # none of one sample, over which nothing can be normalised, unless that was asked for
        for part in np.array_split(order, max(1, min(-(-total // batch_size), total // min(2, batch_size)))):
            yield from self._gathered(part[part < streamed], part[part >= streamed] - streamed)

    def replays(self, replay_ratio: float | str) -> float:
        """Replayed samples for each new one of the task at hand, of a number or a name from `RATIOS`."""
        # a class counts once for each task that it came with: new persons are as new as new classes
        old, new = int(self.seen.tasks.sum()), len(np.unique(labels_of(self.stream_buffer.order)))
        return replays("replay_ratio", replay_ratio, old, new)

    def passes(
        self, batch_size: int, replay_ratio: float | str, begin: float = 0.0, end: float = 1.0
    ) -> Iterator[Batch]:
        """One pass over all samples of the task, however few the stream buffer holds, with old ones beside them.

        `swap` must be called with each batch before the next; it has `batch_size` samples at most, less where slots are
        few. `replay_ratio` is how many samples are replayed for each new one: a number, 0 for none, or a name from
        `RATIOS`. A part of a pass goes from `begin`, the passes done so far, to `end`. There is an `InputError` if the
        stream buffer is too small for such batches, or the ratio is none.
        """
        ratio, rotation, size = self.replays(replay_ratio), self.rotation, self.config.stream_size
        most = batch_size if rotation.whole else most_new(size, self._passing, self._lag, batch_size=1)
        if rotation.whole and begin == int(begin):  # another order, where the whole task is in RAM
            rotation.position.queue = self._batch_rng.permutation(rotation.position.queue)
        for streamed, replayed in rotation.steps(batch_size, ratio, begin, end, most):
            slots = rotation.new(streamed), rotation.replayed(replayed, self._batch_rng)
            yield from self._gathered(*slots, passing=True)

    def loader(self, batch_size: int, replay_ratio: float | str = "sqrt", device: str = "cpu") -> Iterator[tuple]:
        """One pass over the task for a training loop of your own, swapping on the way; see `passes`.

        `device` is PyTorch's; to a GPU, batches go from pinned memory while the processor goes on.

        Yields:
            Raw samples `(n, *sample_shape)` and their labels `(n,) int64`, new and old ones mixed, as tensors.
        """
        from torch import from_numpy

        for batch in self.passes(batch_size, replay_ratio):
            order = self._batch_rng.permutation(len(batch.labels))
            tensors = [from_numpy(batch.samples[order]), from_numpy(batch.labels[order])]
            if device.startswith("cuda"):
                tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
            yield tuple(tensors)
            self.swap(batch)

    def _gathered(self, new: np.ndarray, replayed: np.ndarray, *, passing: bool = False) -> Iterator[Batch]:
        """A batch of slots, once; it must be done with before the slots move."""
        layout, kind, count = self._layout, self.storage.fingerprint, len(new) + len(replayed)
        samples, labels = np.empty((count, *kind.sample_shape), kind.sample_dtype), np.empty(count, dtype=np.int64)
        self.stream_buffer.array.gather(new, samples[: len(new)], labels[: len(new)])
        self.episodic_memory.array.gather(replayed, samples[len(new) :], labels[len(new) :])
        yield Batch(samples, labels, replayed, new if passing else None)
        if self._layout != layout:
            raise InputError("The buffers changed size during an epoch; call batches again after a resize.")

    def swap(self, batch: Batch) -> None:
        """Swapping: commits the exchanges that are due, then asks for those of this batch.

        Over time, `swap_ratio` of the replayed samples are exchanged, each for a random stored one, and as many of
        those of the task, where they go through the stream buffer, each for the next. A single-level memory lets its
        task go through, for its samples are at hand, and leaves the episodic memory as it is.
        """
        ratio, self._replayed.takes_turns = self.config.swap_ratio, batch.streamed is not None
        if batch.streamed is None:
            self._swapper.swap(self._replayed, batch.replayed, ratio)
        else:
            self._swapper.swap(self._replayed, np.unique(batch.replayed), ratio)  # one may be replayed twice in a batch
            waiting = self._streamer.swap(self.rotation, batch.streamed, self._passing)
            self.rotation.wait(batch.streamed[~np.isin(batch.streamed, waiting)])
        self.staged = max(self.staged, self._swapper.under_way + self._streamer.under_way)

    @property
    def _passing(self) -> float:
        """Share of the samples trained on that make room for others of the task."""
        return 0.0 if self.rotation.whole else self.config.swap_ratio if self.hierarchical else 1.0

    def settle(self) -> None:
        """Commits every exchange under way: before slots move, and at the end of a task's training."""
        self._swapper.settle(self._replayed)
        self._streamer.settle(self.rotation)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the swapper's thread and closes storage."""
        self._swapper.close()
        self._streamer.close()
        if self._owns_storage:
            self.storage.close()

    def fork(self, seed: int) -> TieredMemory:
        """A copy to try something on: buffers and draws of its own over the same storage.

        It takes as much RAM as this memory until it is closed, which leaves storage open. Exchanges under way are
        not copied; draws are those of `seed`.
        """
        other = copy.copy(self)
        own = self.stream_buffer, self.episodic_memory, self._stored, self.seen
        other.stream_buffer, other.episodic_memory, other._stored, other.seen = copy.deepcopy(own)
        other._draw_anew(seed, copy.deepcopy(self._swapper.policy))
        other.rotation.position.fetched = self.rotation.position.fetched
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
            "old_classes": self.seen.tasks > 0,
            "seen": asdict(self.seen),
            "generators": [rng.bit_generator.state for rng in (self._batch_rng, self._select_rng)],
            "exchanger": self._swapper.state(),
            "position": asdict(self.rotation.position),
            "streamer": self._streamer.state(),
            "turns": self._replayed.turns,
            "staged": self.staged,
        }

    def restore(self, state: State) -> None:
        """Brings a new memory to a state that `state` gave: the samples are read from storage.

        There is an `InputError` if the state is not that of such a memory, and a `StorageError` if a sample can't be
        read.
        """
        kept = loaded(_Kept, state)
        self._check(kept.config, 0)  # for room, each buffer looks as it is resized below
        self.config, self._stored = kept.config, kept.stored
        # checkpoints of former versions are of classes that came once
        judged = np.where(kept.stored > 0, self.storage.counts(len(kept.stored), "validation"), 0)
        old = np.where(kept.old_classes, kept.stored, 0), kept.old_classes.astype(np.int64)
        self.seen = kept.seen or Seen(*old, [0 * judged, kept.stored], [0 * judged, judged])
        self._batch_rng, self._select_rng = map(generator_of, kept.generators)
        for ids, found in zip(kept.damaged, self.storage.damaged.values(), strict=True):
            found.update(ids.tolist())
        self.stream_buffer.order = kept.stream_order
        self.stream_buffer.array.reset(kept.config.stream_size)
        append_sound(self.storage, self.stream_buffer, kept.stream_ids)
        if len(self.stream_buffer) < len(kept.stream_ids):  # damage since: need no longer be a prefix of the order
            self.stream_buffer.array.reset(kept.config.stream_size)
            fill_stream(self.storage, self.stream_buffer)
        self.episodic_memory.array.reset(kept.config.episodic_size)
        self.episodic_memory.damaged = kept.lost
        self.episodic_memory.extend(self._stored, self.seen.old)
        fill_episodic(self.storage, self.episodic_memory, kept.episodic_ids)
        # last: what is under way is marked as held, which the memory must not hold yet
        self._mark_old()
        self.rotation.position, self._replayed.turns, self.staged = kept.position, kept.turns, kept.staged
        self._swapper.restore(kept.exchanger, self._replayed)
        self._streamer.restore(kept.streamer, self.rotation)

    @property
    def counts(self) -> SwapCounts:
        """Swapping so far."""
        new = self._streamer.counts
        return self._swapper.counts + SwapCounts(stall_s=new.stall_s, passed=new.replayed, streamed=new.swapped)

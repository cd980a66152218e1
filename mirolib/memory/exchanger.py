"""Which replayed samples go back to storage for others of their class, and when (paper: data swapping, Fig. 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from mirolib.base.state import Ids, State, generator_of, loaded
from mirolib.memory.buffers import EpisodicMemory
from mirolib.memory.mending import replaced
from mirolib.memory.storage import Storage
from mirolib.memory.swapper import Exchange, SwapCounts, Swapper, SwapPolicy


@dataclass(frozen=True)
class _Kept:
    """What `Exchanger.state` gives, with the types it must have."""

    owed: float
    counts: SwapCounts
    under_way: list[tuple[int, Ids, Ids]]
    generator: State
    policy: State


class Exchanger:
    """Exchanges a share of the replayed samples, each for a random stored sample of its class.

    Attributes:
        policy: Which replayed samples make room.
    """

    def __init__(self, storage: Storage, lag: int, policy: SwapPolicy, rng: np.random.Generator) -> None:
        """Nothing exchanged yet.

        Args:
            storage: Where samples come from; those that go are there already.
            lag: Steps between asking storage for a sample and taking it in.
            policy: Which replayed samples make room.
            rng: Draws slots and samples.
        """
        self.policy = policy
        self._storage, self._rng = storage, rng
        self._swapper = Swapper(storage, lag)
        self._owed = 0.0
        self._counts = SwapCounts()

    @property
    def counts(self) -> SwapCounts:
        """Swapping so far."""
        return replace(self._counts, stall_s=self._swapper.stall_s)

    def swap(self, memory: EpisodicMemory, replayed: np.ndarray, ratio: float) -> None:
        """Commits the exchanges that are due, then asks for those of a batch.

        Args:
            memory: The episodic memory.
            replayed: Its slots that the batch was made of.
            ratio: Share of the replayed samples that is exchanged over time.

        Raises:
            StorageError: If storage can't be read.
        """
        counts = self._counts
        step = counts.steps
        self._commit(memory, self._swapper.due(step))
        requested, unavailable = self._request(memory, step, replayed, ratio)
        self._counts = SwapCounts(
            step + 1,
            counts.replayed + len(replayed),
            counts.swapped + requested,
            counts.unavailable + unavailable,
        )

    def settle(self, memory: EpisodicMemory) -> None:
        """Commits every exchange under way.

        Raises:
            StorageError: If storage can't be read.
        """
        self._commit(memory, self._swapper.drain())

    def _request(self, memory: EpisodicMemory, step: int, replayed: np.ndarray, ratio: float) -> tuple[int, int]:
        """Asks storage for exchanges of some replayed slots; how many were asked for and how many can't be had."""
        if ratio == 0 or not len(replayed):
            return 0, 0
        self._owed += ratio * len(replayed)
        owed = int(self._owed + 1e-9)
        self._owed -= owed
        slots = self.policy.choose(replayed, min(owed, len(replayed)), self._rng)
        ids = memory.draw_absent(memory.array.labels_at(slots), self._rng)
        found = ids >= 0
        if found.any():
            memory.reserve(ids[found])
            self._swapper.request(step, slots[found], ids[found])
        return int(found.sum()), int((~found).sum())

    def _commit(self, memory: EpisodicMemory, exchanges: Iterator[Exchange]) -> None:
        """Puts fetched samples into their slots; a slot keeps its sample where storage has no sound one for it."""
        for exchange in exchanges:
            samples, ids = replaced(self._storage, memory, exchange.ids, exchange.samples, exchange.sound)
            memory.exchange(exchange.slots[ids >= 0], samples, ids[ids >= 0])

    def state(self) -> State:
        """What is owed and under way, the counts, and the generator."""
        return {
            "owed": self._owed,
            "counts": asdict(self.counts),
            "under_way": [[step, slots, ids] for step, slots, ids in self._swapper.under_way()],
            "generator": self._rng.bit_generator.state,
            "policy": self.policy.state(),
        }

    def restore(self, state: State, memory: EpisodicMemory) -> None:
        """Goes on from a state that `state` gave, asking again for what was under way.

        Args:
            state: That state.
            memory: The episodic memory as it was then.

        Raises:
            InputError: If it is no such state.
        """
        kept = loaded(_Kept, state)
        self._owed, self._counts = kept.owed, kept.counts
        self._rng = generator_of(kept.generator)
        self.policy.restore(kept.policy)
        for step, slots, ids in kept.under_way:
            memory.reserve(ids)
            self._swapper.ask(step, slots, ids)
        self._swapper.stall_s = kept.counts.stall_s

    def close(self) -> None:
        """Ends the swapper's thread; what is under way is dropped."""
        self._swapper.close()

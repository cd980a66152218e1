"""The resource monitor: what a controller may adapt to — a memory budget and how long training waits for storage."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mirolib.memory.budget import BudgetSchedule, MemoryBudget, SlotBytes
from mirolib.memory.tiered import TieredMemory
from mirolib.records import EpochRecord

_SHORTAGE_EVERY_S = 1.0


@dataclass(frozen=True)
class Resources:
    """State of memory and I/O, read once an epoch (paper: Fig. 8, probe).

    Attributes:
        memory_budget_bytes: Most bytes that slots may take, None for no limit: a budget in bytes less what RAM holds
            beside them.
        stall_s: Seconds of the last epoch that training waited for storage; 0 where no epoch has just ended.
        elapsed_s: Seconds that epoch took; 0 where none has just ended.
        swap_ratio_cap: Highest swap ratio that is allowed, in [0, 1].
    """

    memory_budget_bytes: int | None
    stall_s: float
    elapsed_s: float
    swap_ratio_cap: float = 1.0

    @property
    def after_epoch(self) -> bool:
        """Whether an epoch of training has just ended."""
        return self.elapsed_s > 0

    @property
    def stall_share(self) -> float:
        """Share of that epoch that training waited for storage, in [0, 1]: the sign of I/O congestion."""
        return self.stall_s / self.elapsed_s if self.after_epoch else 0.0


class ResourceMonitor:
    """Reads the state of memory and I/O, and lets experiments and people interfere with it.

    Attributes:
        budget: Where the memory budget comes from; may be replaced while a run goes on.
        swap_ratio_cap: Highest swap ratio that controllers may choose, in [0, 1]; may be set while a run goes on.
        short: Whether memory was too short when it was last looked at.
    """

    def __init__(
        self,
        memory: TieredMemory,
        budget: MemoryBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        injectors: Sequence[Callable[[float], None]] = (),
    ) -> None:
        """A monitor of one memory; without a budget there is no limit.

        Before each probe it calls the injectors with the number of epochs trained since the run began.
        """
        self.budget = budget or BudgetSchedule({})
        self.swap_ratio_cap = 1.0
        self._memory, self._clock, self._injectors = memory, clock, injectors
        self._next_look, self.short = clock(), False

    def probe(self, epochs_done: float = 0.0, last: EpochRecord | None = None) -> Resources:
        """The state after so many epochs of the run, parts included; `last` is the one that has just ended, if any."""
        for inject in self._injectors:
            inject(epochs_done)
        stall_s, elapsed_s = (last.swaps.stall_s, last.duration_s) if last else (0.0, 0.0)
        return Resources(self.slots_budget(epochs_done), stall_s, elapsed_s, self.swap_ratio_cap)

    def slots_budget(self, epochs_done: float) -> int | None:
        """Most bytes that slots may take; None for no limit."""
        # a budget of free memory counts in what the buffers have taken of it already
        budget = self.budget.read(epochs_done, self._memory.allocated_bytes)
        if budget is None or isinstance(budget, SlotBytes):
            return budget
        return max(0, budget - self._memory.overhead_bytes)

    def is_short(self) -> bool:
        """Whether memory has just become so short that the next epoch is too late; looks once a second."""
        if self._clock() < self._next_look:
            return False
        self._next_look = self._clock() + _SHORTAGE_EVERY_S
        before, self.short = self.short, self.budget.is_short()
        return self.short and not before

"""The resource monitor: what a controller may adapt to — a memory budget and how long training waits for storage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mirolib.errors import InputError
from mirolib.memory import TieredMemory


@dataclass(frozen=True)
class Resources:
    """State of memory and I/O, read once an epoch (paper: Fig. 8, probe).

    Attributes:
        memory_budget_bytes: Most bytes the two buffers may take; None for no limit.
        memory_used_bytes: Bytes they take when full.
        stall_s: Seconds that training waited for storage since the last probe.
        elapsed_s: Seconds since the last probe.
    """

    memory_budget_bytes: int | None
    memory_used_bytes: int
    stall_s: float
    elapsed_s: float

    @property
    def stall_share(self) -> float:
        """Share of the time that training waited for storage, in [0, 1]: the sign of I/O congestion."""
        return self.stall_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


class ResourceMonitor:
    """Reads the state of memory and I/O."""

    def __init__(
        self,
        memory: TieredMemory,
        memory_budget_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A monitor of one memory.

        Args:
            memory: The memory whose swapper is watched.
            memory_budget_bytes: Most bytes the two buffers may take; None for no limit.
            clock: Seconds of a monotonic clock.

        Raises:
            InputError: If the budget is not positive.
        """
        if memory_budget_bytes is not None and memory_budget_bytes <= 0:
            raise InputError(
                f"The memory budget is {memory_budget_bytes} bytes; give a positive number, or None for no limit."
            )
        self.memory_budget_bytes = memory_budget_bytes
        self._memory = memory
        self._clock = clock
        self._last = (clock(), memory.counts.stall_s)

    def probe(self) -> Resources:
        """The state now, with the stall time since the last probe."""
        now, stall = self._clock(), self._memory.counts.stall_s
        then, stalled = self._last
        self._last = (now, stall)
        return Resources(self.memory_budget_bytes, self._memory.allocated_bytes, stall - stalled, now - then)

"""RAM and swap ratio by rule: as little as keeps training from waiting, or all of a memory budget (paper: P3, P4)."""

from dataclasses import replace

from mirolib.base.errors import InputError
from mirolib.controller.adaptation import AdaptiveController, CongestionPolicy, limit_of
from mirolib.controller.base import Decision
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.rotation import least_slots, most_new
from mirolib.memory.tiered import TieredMemory

WAITING = 0.02
"""Share of an epoch that training may wait for storage before slots are doubled, where there is no memory budget."""

_PER_CLASS = 2  # slots for each old class, so that all of them are replayed all the time


class AllottingController(AdaptiveController):
    """Base of controllers that choose work: RAM and swap ratio follow from rules.

    With work and mix chosen apart RAM is a cache: without a memory budget there are slots for what a step takes and
    what is on its way, and two a class in the episodic memory. They are doubled while training waits for storage or
    the swap ratio has to fall, for what swapping does not bring must be held; storage is read less as buffers come to
    hold all there is. A budget is used up, a quarter of it or what full steps need by the stream buffer.
    """

    _KEPT = AdaptiveController._KEPT | {"scale": int, "new": int, "old": int, "step": int, "classes": int}

    def __init__(self, *, swap_ratio: float = 1.0, congestion: CongestionPolicy | None = None) -> None:
        """A controller that has seen no task; a swap ratio without congestion in [0, 1].

        Raises:
            InputError: If a value is out of range.
        """
        super().__init__(swap_ratio, congestion)
        self.scale = 1
        self.new = self.old = self.step = self.classes = 0

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Sizes and swap ratio for a task.

        Raises:
            InputError: If epochs are the buffers', or the memory budget holds no sample for each buffer.
        """
        if learner.settings.epoch_of == "buffers":
            raise InputError(
                "This controller chooses the work of a task; give the learner a preset with epochs of the task, as "
                "preset.with_epochs(5, 'task') makes them."
            )
        capped = self._begin(memory, resources)
        self.new, self.step = len(memory.stream_buffer.order), learner.batch_size
        # a single-level memory keeps what it is to have of this task, too
        self.old = memory.stored - (len(task.train) if memory.hierarchical else 0)
        self.classes = len(memory.episodic_memory.classes)
        config = self._config(resources.memory_budget_bytes)
        why = "all of the memory budget" if resources.memory_budget_bytes is not None else self._why()
        reason = f"{config.stream_size} + {config.episodic_size} slots: {why}."
        return Decision(config, " ".join(filter(None, [reason, capped])))

    def _why(self) -> str:
        if not self.swaps:
            return "all there is, for nothing comes from storage"
        return "what steps and exchanges need" + (f", times {self.scale} against waiting" if self.scale > 1 else "")

    def _config(self, budget_bytes: int | None) -> MemoryConfig:
        """Sizes under a budget, with the swap ratio in force, or less where so few slots can't be swapped as fast."""
        ratio, old = self.ratio, max(1, self.old)
        if budget_bytes is None and self.swaps:
            least = least_slots(self.step, ratio)
            stream = min(self.new, self.scale * least)
            return MemoryConfig(stream, min(old, self.scale * max(least, _PER_CLASS * self.classes)), ratio)
        slots = self.new + old if budget_bytes is None else budget_bytes // self.slot_bytes
        if slots < 2:
            needed = f"one sample in each buffer ({2 * self.slot_bytes:,} bytes)"
            raise InputError(f"A memory budget of {budget_bytes:,} bytes does not hold {needed}; raise it.")
        # a quarter was best at low ratios (docs/controller.md, digits); full steps where that leaves the other half
        wanted = max(slots // 4, slots - old, min(least_slots(self.step, ratio), slots // 2))
        stream = min(self.new, max(wanted, min(least_slots(1, ratio), slots - 1)))
        return MemoryConfig(stream, min(old, slots - stream), self._ratio(stream))

    def _ratio(self, stream: int) -> float:
        """The swap ratio in force, or none where there is no room for what would be on its way."""
        return self.ratio if stream >= self.new or most_new(stream, self.ratio) else 0.0

    def _resized(self, config: MemoryConfig, resources: Resources, anew: bool, fell: bool) -> tuple[MemoryConfig, str]:
        budget, size = resources.memory_budget_bytes, config.stream_size + config.episodic_size
        waits = resources.stall_share > WAITING and resources.stall_s >= self.swap_governor.policy.least_wait_s
        why = limit_of(budget)
        if budget is None and self.swaps and (waits or fell) and size < self.new + max(1, self.old):
            self.scale, anew = 2 * self.scale, True
            why = f"training waited for storage {resources.stall_share:.0%}" if waits else "less is swapped"
        return self._config(budget) if anew else replace(config, swap_ratio=self._ratio(config.stream_size)), why

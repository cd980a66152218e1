"""RAM and swap ratio by rule: as little as keeps training from waiting, or all of a memory budget (paper: P3, P4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from mirolib.base.errors import InputError
from mirolib.base.state import State, dumped, loaded
from mirolib.controller.adaptation import BudgetGovernor, CongestionPolicy, SwapGovernor
from mirolib.controller.base import Controller, Decision
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.rotation import least_slots, most_new
from mirolib.memory.tiered import TieredMemory
from mirolib.records import TaskRecord

WAITING = 0.02
"""Share of an epoch that training may wait for storage before slots are doubled, where there is no memory budget."""

_PER_CLASS = 2  # slots for each old class, so that all of them are replayed all the time


class AllottingController(Controller):
    """Base of controllers that choose work: RAM and swap ratio follow from rules.

    With work and mix chosen apart RAM is a cache: without a memory budget there are slots for what a step takes and
    what is on its way, and two a class in the episodic memory. They are doubled while training waits for storage or
    the swap ratio has to fall, for what swapping does not bring must be held; storage is read less as buffers come to
    hold all there is. A budget is used up, a quarter of it or what full steps need by the stream buffer.
    """

    def __init__(self, *, swap_ratio: float = 1.0, congestion: CongestionPolicy | None = None) -> None:
        """A controller that has seen no task; a swap ratio without congestion in [0, 1].

        Raises:
            InputError: If a value is out of range.
        """
        highest = MemoryConfig(1, 1, swap_ratio).swap_ratio  # which checks its range
        self.swap_governor = SwapGovernor(highest, congestion or CongestionPolicy())
        self.budget_governor = BudgetGovernor()
        self.scale, self.pending, self.waited = 1, "", 0.0
        self.new = self.old = self.step = self.classes = 0
        self.swaps, self.slot_bytes = False, 1

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
        self.swaps = memory.hierarchical and self.swap_governor.highest > 0
        self.new, self.step = len(memory.stream_buffer.order), learner.batch_size
        # a single-level memory keeps what it is to have of this task, too
        self.old = memory.stored - (len(task.train) if memory.hierarchical else 0)
        self.classes, self.slot_bytes = task.classes[0], memory.slot_bytes
        self.budget_governor.begin(resources.memory_budget_bytes)
        capped = self.swap_governor.cap(resources.swap_ratio_cap)
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
        ratio = self.swap_governor.ratio if self.swaps else 0.0
        old = max(1, self.old)
        if budget_bytes is None and self.swaps:
            least = least_slots(self.step, ratio)
            stream = min(self.new, self.scale * least)
            return MemoryConfig(stream, min(old, self.scale * max(least, _PER_CLASS * self.classes)), ratio)
        slots = self.new + old if budget_bytes is None else budget_bytes // self.slot_bytes
        if slots < 2:
            needed = f"one sample in each buffer ({2 * self.slot_bytes:,} bytes)"
            raise InputError(f"A memory budget of {budget_bytes:,} bytes does not hold {needed}; raise it.")
        # a quarter was best at every low ratio (docs/controller.md); full steps where that leaves the other half
        wanted = max(slots // 4, slots - old, min(least_slots(self.step, ratio), slots // 2))
        stream = min(self.new, max(wanted, min(least_slots(1, ratio), slots - 1)))
        return MemoryConfig(stream, min(old, slots - stream), self._ratio(stream))

    def _ratio(self, stream: int) -> float:
        """The swap ratio in force, or none where there is no room for what would be on its way."""
        ratio = self.swap_governor.ratio if self.swaps else 0.0
        return ratio if stream >= self.new or most_new(stream, ratio) else 0.0

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The swap ratio follows congestion, sizes the budget, or waiting where there is none (P3, P4)."""
        budget, governor, reasons = resources.memory_budget_bytes, self.swap_governor, [self.pending]
        before, self.pending = governor.ratio, ""
        if self.swaps:
            reasons.append(governor.cap(resources.swap_ratio_cap))
            if resources.after_epoch:
                reasons.append(governor.step(resources.stall_share, resources.stall_s))
        waits = self.swaps and resources.stall_share > WAITING and resources.stall_s >= governor.policy.least_wait_s
        size = config.stream_size + config.episodic_size
        anew = self.budget_governor.step(budget, self.slot_bytes * size)
        if budget is None and (waits or governor.ratio < before) and size < self.new + max(1, self.old):
            self.scale, anew = 2 * self.scale, True
        if not anew:
            return Decision(replace(config, swap_ratio=self._ratio(config.stream_size)), _joined(reasons))
        found = self._config(budget)
        if (target := found.stream_size + found.episodic_size) != size:
            if budget is not None:
                why = f"memory budget {budget:,} bytes"
            elif waits:
                why = f"training waited for storage {resources.stall_share:.0%} of the epoch"
            else:
                why = "there is no memory budget any more" if governor.ratio >= before else "less is swapped in"
            reasons.append(f"{why}: {size} to {target} samples")
        return Decision(found, _joined(reasons))

    def observe(self, record: TaskRecord) -> None:
        """Adapts the swap ratio to the task's last epoch; said with the next decision."""
        if self.swaps:
            last = record.epochs[-1]
            self.pending = self.swap_governor.step(last.stall_share, last.swaps.stall_s)

    _KEPT: ClassVar[dict[str, Any]] = {
        "swap_governor": SwapGovernor, "budget_governor": BudgetGovernor, "scale": int, "pending": str, "new": int,
        "old": int, "step": int, "classes": int, "swaps": bool, "slot_bytes": int,
    }  # fmt: skip

    def state(self) -> State:
        """What is known and decided, for a checkpoint."""
        return {name: dumped(kind, getattr(self, name)) for name, kind in self._KEPT.items()}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave."""
        kept = {name: loaded(kind, state[name]) for name, kind in self._KEPT.items()}
        for name, part in kept.items():
            setattr(self, name, part)


def _joined(reasons: list[str]) -> str:
    return "; ".join(filter(None, reasons))

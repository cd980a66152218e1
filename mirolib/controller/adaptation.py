"""Adapting to resources: the swap ratio to I/O congestion, the sizes to the memory budget (paper: P3, P4)."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mirolib.base.errors import InputError
from mirolib.base.state import State, dumped, loaded
from mirolib.controller.base import Controller, Decision, cap_sentence
from mirolib.controller.resources import Resources
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory
from mirolib.records import TaskRecord


@dataclass(frozen=True)
class CongestionPolicy:
    """When the swap ratio falls and rises.

    Attributes:
        threshold: Share of the time that training may wait for storage before the ratio is halved.
        floor: Lowest ratio, as a share of the highest.
        clean_epochs: Epochs without congestion after which the ratio is doubled again.
        least_wait_s: A shorter wait in an epoch is no congestion, whatever its share: on epochs of milliseconds the
            share says more about the scheduler than about the disk.
    """

    threshold: float = 0.1
    floor: float = 1 / 16
    clean_epochs: int = 2
    least_wait_s: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"The congestion threshold is {self.threshold}; choose a share between 0 and 1.")
        if not 0 < self.floor <= 1:
            raise InputError(f"The floor of the swap ratio is {self.floor}; choose a share of it above 0, up to 1.")
        if self.clean_epochs < 1:
            raise InputError(f"clean_epochs is {self.clean_epochs}; choose 1 or more.")


@dataclass
class SwapGovernor:
    """Halves the swap ratio when training waits for storage and doubles it again after clean epochs.

    A rise that brings congestion back doubles the number of clean epochs before the next try, so that under constant
    conditions the ratio changes ever more rarely; that number falls back as soon as a rise has lasted, or there is less
    waiting at the lower ratio than there was when it was last reached.

    Attributes:
        highest: The ratio without congestion, in [0, 1].
        policy: Threshold, floor and patience.
        allowed: The highest ratio that is allowed from outside.
        uncapped: What congestion leaves, whatever is allowed.
        clean: Epochs without congestion since the last change.
        patience: How many of them it takes before the ratio rises; the policy's to begin with.
        just_risen: Whether the last epoch was the first after a rise.
        waiting: Share of waiting in the first epoch after a halving.
        failed_at: The ratio that last brought congestion.
    """

    highest: float
    policy: CongestionPolicy = field(default_factory=CongestionPolicy)
    allowed: float = 1.0
    uncapped: float = 1.0
    clean: int = 0
    patience: int = 0
    just_risen: bool = False
    waiting: float | None = None
    failed_at: float = float("inf")

    def __post_init__(self) -> None:
        self.patience = self.patience or self.policy.clean_epochs

    @property
    def ratio(self) -> float:
        """The swap ratio for the next epoch, in [0, 1]."""
        return min(self.uncapped, self._within)

    @property
    def _within(self) -> float:
        return min(self.highest, self.allowed)

    def cap(self, most: float) -> str:
        """Takes in the highest ratio that is allowed from outside, in [0, 1]; says why the ratio changed, if it did."""
        before, self.allowed = self.ratio, most
        return cap_sentence(most, before, self.ratio) if self.ratio != before else ""

    def step(self, stall_share: float, stall_s: float = float("inf")) -> str:
        """Takes in an epoch's wait for storage, a share in [0, 1] and seconds; says why `ratio` changed, if it did."""
        policy, before = self.policy, self.ratio
        if stall_share > policy.threshold and stall_s >= policy.least_wait_s:
            return self._halve(stall_share)
        if before < self._within:
            if self.waiting is None:
                self.waiting = stall_share
            elif self.waiting > policy.threshold / 4 and stall_share < self.waiting / 2:
                self.patience = policy.clean_epochs  # conditions have changed for the better
        self.just_risen = False
        self.clean += 1
        if before >= self.failed_at and self.clean >= policy.clean_epochs:
            # the ratio that once was too high has lasted: what was learnt of the disk holds no more
            self.patience, self.failed_at = policy.clean_epochs, float("inf")
        if before == self._within or self.clean < self.patience:
            return ""
        self.uncapped = min(2 * before, self.highest)
        epochs, self.clean, self.just_risen, self.waiting = self.clean, 0, True, None
        return f"{epochs} epochs without congestion: swap ratio {before:g} to {self.ratio:g}"

    def _halve(self, stall_share: float) -> str:
        policy, before = self.policy, self.ratio
        if self.just_risen:
            self.patience *= 2  # else a disk that is always too slow would be tried again every few epochs
        self.clean, self.just_risen, self.waiting, self.failed_at = 0, False, None, before
        self.uncapped = max(before / 2, policy.floor * self.highest)
        sentence = f"training waited for storage {stall_share:.0%} of the epoch (more than {policy.threshold:.0%})"
        return f"{sentence}: swap ratio {before:g} to {self.ratio:g}" if self.ratio < before else ""


@dataclass
class BudgetGovernor:
    """Says when sizes must be picked anew because the memory budget has changed.

    A smaller budget takes effect at once, a larger one when it has lasted some epochs, and twice as long each time it
    is taken back again. Sizes that fit are kept as long as the budget is no larger than when they were picked.

    Attributes:
        highest_bytes: The highest budget there has been; None for no limit.
        settled_bytes: The budget under which the sizes in force were picked; None for no limit.
        larger_for: Epochs that the budget has been larger than that.
        patience: Epochs that it must be before larger buffers come back.
        has_returned: Whether they have come back since the budget last fell.
    """

    highest_bytes: int | None = None
    settled_bytes: int | None = None
    larger_for: int = 0
    patience: int = 2  # growing buffers are filled from storage: not for a budget that is larger for one epoch only
    has_returned: bool = False

    def begin(self, budget_bytes: int | None) -> None:
        """A task begins, whose sizes are picked under this budget."""
        self.highest_bytes = None if budget_bytes is None else max(budget_bytes, self.highest_bytes or 0)
        self.settled_bytes, self.larger_for = budget_bytes, 0

    def step(self, budget_bytes: int | None, used_bytes: int) -> bool:
        """Takes in the budget before an epoch and what sizes in force take; whether sizes must be picked anew."""
        over = budget_bytes is not None and used_bytes > budget_bytes
        risen = self.settled_bytes is not None and (budget_bytes is None or budget_bytes > self.settled_bytes)
        self.larger_for = self.larger_for + 1 if risen and not over else 0
        if not over and self.larger_for < self.patience:
            return False
        if over and self.has_returned:
            self.patience *= 2  # they came back in vain, and were filled from storage for that
        self.settled_bytes, self.larger_for, self.has_returned = budget_bytes, 0, not over
        return True


class AdaptiveController(Controller):
    """Base of controllers whose swap ratio follows congestion, and whose sizes follow the memory budget.

    Attributes:
        swap_governor: The swap ratio under congestion.
        budget_governor: When the memory budget asks for other sizes.
        swaps: Whether there is a storage tier to swap with.
        slot_bytes: Bytes of RAM that a sample takes.
        pending: What the swap governor decided on a task's last epoch, after which `adapt` is not asked any more.
    """

    _KEPT: ClassVar[dict[str, Any]] = {
        "swap_governor": SwapGovernor, "budget_governor": BudgetGovernor, "swaps": bool, "slot_bytes": int,
        "pending": str,
    }  # fmt: skip
    """What a checkpoint holds, and of what type; all else is given anew, by those who make the controller."""
    _picked: ClassVar[str] = ""  # how sizes are, in the reason of a change

    def __init__(self, swap_ratio: float, congestion: CongestionPolicy | None) -> None:
        highest = MemoryConfig(1, 1, swap_ratio).swap_ratio  # which checks its range
        self.swap_governor = SwapGovernor(highest, congestion or CongestionPolicy())
        self.budget_governor = BudgetGovernor()
        self.swaps, self.slot_bytes, self.pending = False, 1, ""

    @property
    def ratio(self) -> float:
        """The swap ratio in force, in [0, 1]."""
        return self.swap_governor.ratio if self.swaps else 0.0

    def _begin(self, memory: TieredMemory, resources: Resources) -> str:
        """A task begins; why a cap has changed the swap ratio, if it has."""
        self.swaps, self.slot_bytes = memory.hierarchical and self.swap_governor.highest > 0, memory.slot_bytes
        self.budget_governor.begin(resources.memory_budget_bytes)
        return self.swap_governor.cap(resources.swap_ratio_cap)

    @abstractmethod
    def _resized(self, config: MemoryConfig, resources: Resources, anew: bool, fell: bool) -> tuple[MemoryConfig, str]:
        """Sizes from now on, with the ratio in force, and why they change.

        `anew`: the budget asks for it; `fell`: the swap ratio has just fallen.
        """

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The swap ratio follows congestion, the sizes follow the budget (P4)."""
        before, reasons, self.pending = self.ratio, [self.pending], ""
        if self.swaps:
            reasons.append(self.swap_governor.cap(resources.swap_ratio_cap))
            if resources.after_epoch:
                reasons.append(self.swap_governor.step(resources.stall_share, resources.stall_s))
        size = config.stream_size + config.episodic_size
        anew = self.budget_governor.step(resources.memory_budget_bytes, self.slot_bytes * size)
        found, why = self._resized(config, resources, anew, self.ratio < before)
        if (target := found.stream_size + found.episodic_size) != size:
            reasons.append(f"{why}: {size} to {target} samples{self._picked}")
        return Decision(found, "; ".join(filter(None, reasons)))

    def observe(self, record: TaskRecord) -> None:
        """Adapts the swap ratio to the task's last epoch; said with the next decision."""
        if self.swaps:
            last = record.epochs[-1]
            self.pending = self.swap_governor.step(last.stall_share, last.swaps.stall_s)

    def state(self) -> State:
        """What is known and decided, for a checkpoint."""
        return {name: dumped(kind, getattr(self, name)) for name, kind in self._KEPT.items()}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave; an `InputError` if it is not that of such a controller."""
        for name, part in {name: loaded(kind, state[name]) for name, kind in self._KEPT.items()}.items():
            setattr(self, name, part)


def limit_of(budget_bytes: int | None) -> str:
    """A memory budget in words."""
    return "there is no memory budget any more" if budget_bytes is None else f"memory budget {budget_bytes:,} bytes"

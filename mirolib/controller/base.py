"""What every controller has in common, and the one that never changes its mind."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from mirolib.base.state import State
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.energy import Reading
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory
from mirolib.records import TaskRecord


@dataclass(frozen=True)
class Decision:
    """What a controller decided.

    Attributes:
        config: The configuration to train with.
        reason: Why, in a sentence; empty where nothing was weighed.
        epochs: Epochs of the task at hand; None for as many as it has.
        trials: The ranked table of candidates it rests on, a row each; empty where none was made.
    """

    config: MemoryConfig
    reason: str = ""
    trials: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)
    epochs: float | None = None


def within_cap(config: MemoryConfig, swap_ratio: float, resources: Resources) -> Decision:
    """The configuration in force with a swap ratio, or the highest that is allowed; says so where that changes it."""
    allowed = min(swap_ratio, resources.swap_ratio_cap)
    if allowed == config.swap_ratio:
        return Decision(config)
    changed = replace(config, swap_ratio=allowed)
    return Decision(changed, cap_sentence(resources.swap_ratio_cap, config.swap_ratio, allowed))


def cap_sentence(cap: float, before: float, after: float) -> str:
    """Why a cap changed the swap ratio."""
    return f"at most {cap:g} of the replayed samples may be swapped: swap ratio {before:g} to {after:g}"


class Controller(ABC):
    """Decides the memory configuration; deciding changes neither learner nor memory."""

    @property
    def trials(self) -> pd.DataFrame:
        """The ranked table as it stands, the row in force marked; empty where none is made. Any thread may ask."""
        return pd.DataFrame()

    @abstractmethod
    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """The configuration to train a new task with, after its samples have arrived (paper: P1, P2)."""

    @abstractmethod
    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration for the next epoch, given the one in force and the state of memory and I/O (P4)."""

    @property
    def next_look(self) -> float:
        """Epochs of the task at hand after which it wants to look at the model; never, unless it says otherwise."""
        return float("inf")

    def look(
        self, config: MemoryConfig, learner: Learner, memory: TieredMemory, readings: Sequence[Reading]
    ) -> Decision:
        """How long to go on with the task at hand; after its last epoch, no more than a look.

        `readings` is the energy ledger of the run so far.
        """
        return Decision(config)

    def state(self) -> State:
        """What the controller has learnt and decided so far, for a checkpoint; nothing unless it says otherwise."""
        return {}

    def restore(self, state: State) -> None:  # noqa: B027
        """Takes back what `state` gave."""

    def observe(self, record: TaskRecord) -> None:  # noqa: B027 (most controllers need not look)
        """Is told what a task really cost and reached, once it is over; test accuracies are not to be used."""


@dataclass(frozen=True)
class FixedController(Controller):
    """The same configuration, `config`, for every task, whatever the resources."""

    config: MemoryConfig

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """The fixed configuration, its swap ratio within the cap."""
        return within_cap(self.config, self.config.swap_ratio, resources)

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force, its swap ratio within the cap."""
        return within_cap(config, self.config.swap_ratio, resources)

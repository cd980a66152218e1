"""Controllers to compare with."""

from dataclasses import replace

import numpy as np

from mirolib.base.state import State, generator_of
from mirolib.controller.allotment import AllottingController
from mirolib.controller.base import Controller, Decision, within_cap
from mirolib.controller.grid import candidate_grid
from mirolib.controller.profiler import ProfileRequest
from mirolib.controller.resources import Resources
from mirolib.controller.trials import train_on_copy
from mirolib.data.stream import Task
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory


class RandomController(Controller):
    """A random candidate of the paper's grid at each task."""

    def __init__(self, *, swap_ratio: float = 1.0, seed: int = 0) -> None:
        """Candidates have a swap ratio in [0, 1]; draws come from a generator of its own, made from `seed`."""
        self._ratio, self._rng = swap_ratio, np.random.default_rng([seed, 6])

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """A candidate within the budget, its swap ratio within the cap."""
        self._ratio = self._ratio if memory.hierarchical else 0.0
        ratio = min(self._ratio, resources.swap_ratio_cap)
        grid = candidate_grid(task, memory, resources.memory_budget_bytes, swap_ratio=ratio)
        return Decision(grid[self._rng.integers(len(grid))], f"Drawn at random from {len(grid)} candidates.")

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force, its swap ratio within the cap."""
        return within_cap(config, self._ratio, resources)

    def state(self) -> State:
        """The generator."""
        return {"generator": self._rng.bit_generator.state}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave."""
        self._rng = generator_of(state["generator"])


class ShareController(Controller):
    """The same share of the task and of what is stored, in epochs of the buffers, whatever they hold.

    Attributes:
        share: Of the task's samples in the stream buffer, and of the stored ones in the episodic memory, in (0, 1]; a
            share of 1 takes as much as a memory budget allows.
        epochs: Epochs as a share of the preset's, in (0, 1].
    """

    def __init__(self, share: float = 0.5, epochs: float = 1.0, *, swap_ratio: float = 1.0) -> None:
        """A controller all of whose choices have a swap ratio in [0, 1]."""
        self.share, self.epochs, self._ratio = share, epochs, swap_ratio

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """The shares, as much smaller as a memory budget asks for."""
        self._ratio = self._ratio if memory.hierarchical else 0.0
        # a single-level memory keeps what it is to have of this task, too
        new, old = len(task.train), max(1, memory.stored - (len(task.train) if memory.hierarchical else 0))
        budget = resources.memory_budget_bytes
        slots = max(int(self.share * (new + old)), learner.num_classes)
        slots = max(2, slots if budget is None else min(slots, budget // memory.slot_bytes))
        stream = min(max(slots * new // (new + old), len(task.classes)), slots - 1)
        decision = within_cap(MemoryConfig(stream, slots - stream, self._ratio), self._ratio, resources)
        whole, share = max(1, round(self.epochs * learner.epochs)), slots / (new + old)
        return replace(decision, reason=f"{share:.2g} of the task and of what is stored.", epochs=whole)

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force, its swap ratio within the cap."""
        return within_cap(config, self._ratio, resources)


class TunedController(AllottingController):
    """Tries several works out at the first task and keeps, for all tasks, the least that does within a point."""

    def __init__(self, *, swap_ratio: float = 1.0, seed: int = 0) -> None:
        """As `AllottingController`; the tries draw from `seed`."""
        super().__init__(swap_ratio=swap_ratio)
        self.epochs, self._seed = 0.0, seed

    _KEPT = AllottingController._KEPT | {"epochs": float}

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Sizes and swap ratio by rule, and the work that was found at the first task."""
        decision = super().choose(task, learner, memory, resources)
        if not self.epochs:
            tries = np.geomspace(learner.epochs / 16, learner.epochs, 5)
            found = [self._tried(float(epochs), task, learner, memory, decision.config) for epochs in tries]
            self.epochs = float(tries[np.argmax(np.array(found) >= max(found) - 0.01)])
        reason = f"{self.epochs:.3g} epochs, the least within a point of the best at the first task. {decision.reason}"
        return replace(decision, epochs=self.epochs, reason=reason)

    def _tried(self, epochs: float, task: Task, learner: Learner, live: TieredMemory, config: MemoryConfig) -> float:
        """Held-out accuracy of a clone after so many epochs."""
        clone = learner.clone(self._seed)
        clone.epochs = epochs
        train_on_copy(clone, live, self._seed, config, epochs)
        return ProfileRequest(task, clone, live, [], self._seed).accuracy(clone)

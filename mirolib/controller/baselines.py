"""Controllers to compare with."""

from __future__ import annotations

import numpy as np

from mirolib.base.state import State, generator_of
from mirolib.controller.base import Controller, Decision, within_cap
from mirolib.controller.grid import candidate_grid
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory


class RandomController(Controller):
    """A random candidate of the same grid at each task."""

    def __init__(self, *, swap_ratio: float = 1.0, seed: int = 0) -> None:
        """Draws with a generator of its own.

        Args:
            swap_ratio: Swap ratio of every candidate, in [0, 1].
            seed: Seed of the draws.
        """
        self._ratio, self._rng = swap_ratio, np.random.default_rng([seed, 6])

    def state(self) -> State:
        """The generator."""
        return {"generator": self._rng.bit_generator.state}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave."""
        self._rng = generator_of(state["generator"])

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Any candidate within the budget."""
        self._ratio = self._ratio if memory.hierarchical else 0.0
        ratio = min(self._ratio, resources.swap_ratio_cap)
        grid = candidate_grid(task, memory, resources.memory_budget_bytes, swap_ratio=ratio)
        return Decision(grid[self._rng.integers(len(grid))], f"Drawn at random from {len(grid)} candidates.")

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force, its swap ratio within the cap."""
        return within_cap(config, self._ratio, resources)


class WholeBudgetController(Controller):
    """All of the task in the stream buffer and an episodic memory as large as the rest of the budget allows."""

    def __init__(self, *, swap_ratio: float = 1.0) -> None:
        """A controller.

        Args:
            swap_ratio: Swap ratio, in [0, 1].
        """
        self._ratio = swap_ratio

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """The largest candidate, of equals that with the larger episodic memory."""
        self._ratio = self._ratio if memory.hierarchical else 0.0
        ratio = min(self._ratio, resources.swap_ratio_cap)
        grid = candidate_grid(task, memory, resources.memory_budget_bytes, swap_ratio=ratio)
        largest = max(grid, key=lambda c: (c.stream_size + c.episodic_size, c.episodic_size))
        return Decision(largest, "As much memory as the budget allows.")

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force, its swap ratio within the cap."""
        return within_cap(config, self._ratio, resources)

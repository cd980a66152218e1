"""Controllers to compare with."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from mirolib.base.state import State, generator_of
from mirolib.controller.base import Controller, Decision, within_cap
from mirolib.controller.grid import candidate_grid
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory


class GridController(Controller):
    """Picks a candidate of Miro's grid at each task, with a rule that looks at nothing but the grid."""

    def __init__(self, *, swap_ratio: float = 1.0) -> None:
        """A controller all of whose candidates have a swap ratio in [0, 1]."""
        self._ratio = swap_ratio

    @abstractmethod
    def pick(self, grid: list[MemoryConfig]) -> tuple[MemoryConfig, str]:
        """One of the candidates, and why."""

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """A candidate within the budget, its swap ratio within the cap."""
        self._ratio = self._ratio if memory.hierarchical else 0.0
        ratio = min(self._ratio, resources.swap_ratio_cap)
        return Decision(*self.pick(candidate_grid(task, memory, resources.memory_budget_bytes, swap_ratio=ratio)))

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force, its swap ratio within the cap."""
        return within_cap(config, self._ratio, resources)


class RandomController(GridController):
    """A random candidate of the same grid at each task."""

    def __init__(self, *, swap_ratio: float = 1.0, seed: int = 0) -> None:
        """As `GridController`; draws with a generator of its own, made from `seed`."""
        super().__init__(swap_ratio=swap_ratio)
        self._rng = np.random.default_rng([seed, 6])

    def pick(self, grid: list[MemoryConfig]) -> tuple[MemoryConfig, str]:
        """Any candidate."""
        return grid[self._rng.integers(len(grid))], f"Drawn at random from {len(grid)} candidates."

    def state(self) -> State:
        """The generator."""
        return {"generator": self._rng.bit_generator.state}

    def restore(self, state: State) -> None:
        """Takes back what `state` gave."""
        self._rng = generator_of(state["generator"])


class WholeBudgetController(GridController):
    """All of the task in the stream buffer and an episodic memory as large as the rest of the budget allows."""

    def pick(self, grid: list[MemoryConfig]) -> tuple[MemoryConfig, str]:
        """The largest candidate, of equals that with the larger episodic memory."""
        largest = max(grid, key=lambda c: (c.stream_size + c.episodic_size, c.episodic_size))
        return largest, "As much memory as the budget allows."

"""The Miro controller: profile, choose, adapt (paper: Fig. 8, principles P1 to P4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mirolib.controller.adaptation import CongestionPolicy, SwapGovernor
from mirolib.controller.base import Controller, Decision
from mirolib.controller.calibration import Calibration
from mirolib.controller.costs import FORWARD_SHARE, CostModel
from mirolib.controller.grid import EPISODIC_STEPS, STREAM_STEPS, candidate_grid
from mirolib.controller.probe import ProbeProfiler
from mirolib.controller.profiler import Profiler
from mirolib.controller.selectors import CheapestWithin, Outlook, Selector, WithinBudget, above_cutline
from mirolib.energy import total_energy_j
from mirolib.errors import InputError
from mirolib.learner import Learner
from mirolib.memory import MemoryConfig, TieredMemory
from mirolib.resources import Resources
from mirolib.stream import Task

if TYPE_CHECKING:
    from mirolib.loop import TaskRecord

_RETURN_EPOCHS = 2  # epochs that a larger budget must last before larger buffers come back


class MiroController(Controller):
    """Ranks candidates when a task arrives, picks one, and moves along the same table as resources change."""

    def __init__(
        self,
        profiler: Profiler | None = None,
        selector: Selector | None = None,
        *,
        swap_ratio: float = 1.0,
        cutline: float = 0.5,
        congestion: CongestionPolicy | None = None,
        pairs: Sequence[tuple[int, int]] = (),
        grid_limit: int = STREAM_STEPS * EPISODIC_STEPS,
        num_tasks: int | None = None,
        seed: int = 0,
    ) -> None:
        """A controller that has seen no task.

        Args:
            profiler: Scores the candidates; the probe by default.
            selector: Picks one; by default the cheapest within two points of the best.
            swap_ratio: The ratio without congestion (P3: as high as possible), in [0, 1].
            cutline: Top share of the candidates by accuracy, for the selectors that use it, in (0, 1].
            congestion: When the swap ratio falls and rises.
            pairs: The user's own candidates (stream_size, episodic_size) instead of the derived grid.
            grid_limit: Most candidates at a task.
            num_tasks: Length of the stream, for a selector that plans to its end.
            seed: Seed of every draw that profiling makes.

        Raises:
            InputError: If a value is out of range, or an energy budget is to be kept over a stream of unknown length.
        """
        self.profiler = profiler or ProbeProfiler()
        self.selector = selector or CheapestWithin()
        above_cutline(pd.Series([1.0]), cutline)
        if isinstance(self.selector, WithinBudget) and num_tasks is None:
            raise InputError("An energy budget is planned over the whole stream; give num_tasks.")
        self.calibration, self.costs = Calibration(), CostModel()
        self._ratio, self._cutline, self._pairs = MemoryConfig(1, 1, swap_ratio).swap_ratio, cutline, tuple(pairs)
        self._governor, self._grid_limit = SwapGovernor(self._ratio, congestion), grid_limit
        self._num_tasks, self._seed = num_tasks, seed
        self._outlook = Outlook()
        self._highest_budget: int | None = None
        self._table = pd.DataFrame()
        self._slot_bytes, self._epochs, self._sample_bytes, self._replayable = 0, 1, 0, 0
        self._larger_for = 0
        self._spent: dict[str, list[float]] = {"train": [], "beside": []}

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Profiles the grid and picks a row (P1, P2).

        Raises:
            InputError: If the memory budget holds no candidate.
        """
        budget = resources.memory_budget_bytes
        self._highest_budget = None if budget is None else max(budget, self._highest_budget or 0)
        self._slot_bytes, self._epochs = memory.slot_bytes, learner.epochs
        self._sample_bytes, self._replayable = memory.storage.fingerprint.sample_bytes, memory.stored - len(task.train)
        ratio = self._ratio if memory.hierarchical else 0.0
        candidates = candidate_grid(
            task, memory, self._highest_budget, swap_ratio=ratio, pairs=self._pairs, limit=self._grid_limit
        )
        seed = int(np.random.SeedSequence([self._seed, 5, task.index]).generate_state(1)[0])
        situation = self.profiler.situation(task, learner, memory, candidates, seed)
        if not len(situation.validation_ids):
            raise InputError("The controller scores on validation samples; set validation_share above 0.")
        scores = self.profiler.scores(situation)
        reached, now = situation.accuracies()
        trained = self._table[self._table["chosen"]] if len(self._table) else self._table
        if len(trained) == 1 and not np.isnan(reached):
            self.calibration.observe(float(trained["score"].iloc[0]), reached)
        self._plan(task, now)
        self._rank(candidates, scores)
        row = self._best(budget)
        reason = f"{self.selector.caption} Predicted accuracy {row['accuracy']:.1%}, cost {row['cost']:,.4g} "
        return Decision(self._config(row), f"{reason}{self.costs.unit}.", self._marked(row, task.index))

    def _plan(self, task: Task, accuracy_now: float) -> None:
        """What the selector may know beside the table."""
        beside = self._spent["beside"]
        self._outlook = Outlook(
            accuracy_now=accuracy_now,
            spent=sum(self._spent["train"]) + sum(beside),
            overhead=float(np.mean(beside)) if beside else 0.0,
            tasks_left=(self._num_tasks or task.index + 1) - task.index,
        )

    def _rank(self, candidates: Sequence[MemoryConfig], scores: np.ndarray) -> None:
        """The table of candidates, best utility first among the eligible."""
        stream_size, episodic_size = np.array([(c.stream_size, c.episodic_size) for c in candidates]).T
        visits, swapped = self._work(stream_size, episodic_size)
        accuracy = self.calibration.predict(scores)
        table = pd.DataFrame(
            {
                "stream_size": stream_size,
                "episodic_size": episodic_size,
                "memory_bytes": self._slot_bytes * (stream_size + episodic_size),
                "score": scores,
                "accuracy": accuracy,
                "visits": visits,
                "cost": self.costs.predict(visits, swapped),
                "above_cutline": above_cutline(pd.Series(accuracy), self._cutline),
            }
        )
        _, utility, eligible = self.selector.pick(table, self._outlook)
        order = np.lexsort([table["cost"], -utility, ~eligible])
        table = table.assign(utility=utility, eligible=eligible, chosen=False).iloc[order]
        self._table = table.reset_index(drop=True)

    def _work(self, stream_size: np.ndarray, episodic_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample visits of each candidate's training and bytes that it swaps in."""
        replayed = self._epochs * np.minimum(episodic_size, self._replayable)
        return self._epochs * stream_size + replayed, self._governor.ratio * replayed * self._sample_bytes

    def _best(self, budget: int | None) -> pd.Series:
        """The row that the selector picks of those within a memory budget; the smallest one, shrunk, if none is.

        Raises:
            InputError: If the budget does not even hold one sample in each buffer.
        """
        fits = self._table["memory_bytes"] <= (np.inf if budget is None else budget)
        if fits.all():
            return self._table.iloc[0]
        if fits.any():
            rest = self._table[fits].copy()
            rest["above_cutline"] = above_cutline(rest["accuracy"], self._cutline)
            index, _, _ = self.selector.pick(rest, self._outlook)
            return self._table.loc[index]
        row = self._table.loc[self._table["memory_bytes"].idxmin()].copy()
        slots = (budget or 0) // self._slot_bytes
        if slots < 2:
            raise InputError(
                f"A memory budget of {budget:,} bytes does not hold one sample in each buffer "
                f"({2 * self._slot_bytes:,} bytes); raise it."
            )
        share = slots / (row["stream_size"] + row["episodic_size"])
        row["stream_size"] = min(max(1, int(share * row["stream_size"])), slots - 1)
        row["episodic_size"] = min(max(1, int(share * row["episodic_size"])), slots - row["stream_size"])
        return row

    def _config(self, row: pd.Series) -> MemoryConfig:
        ratio = self._governor.ratio if self._ratio else 0.0
        return MemoryConfig(int(row["stream_size"]), int(row["episodic_size"]), ratio)

    def _marked(self, row: pd.Series, task: int) -> pd.DataFrame:
        """The table with the row in force marked, ready for `trials.csv`."""
        self._table["chosen"] = (self._table["stream_size"] == row["stream_size"]) & (
            self._table["episodic_size"] == row["episodic_size"]
        )
        shown = self._table.drop(columns="visits").assign(
            cost_unit=self.costs.unit, profiler=self.profiler.name, selector=self.selector.name
        )
        shown.insert(0, "task", task)
        shown.insert(1, "rank", np.arange(1, len(shown) + 1))
        return shown

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """Moves along the table: rows over the memory budget are blacklisted, the swap ratio follows congestion (P4).

        A smaller budget takes effect at once, a larger one when it has lasted two epochs.
        """
        reasons = [self._governor.step(resources.stall_share)] if self._ratio and resources.after_epoch else [""]
        chosen = replace(config, swap_ratio=self._governor.ratio) if config.swap_ratio else config
        budget = resources.memory_budget_bytes
        row = self._best(budget)
        best = replace(chosen, stream_size=int(row["stream_size"]), episodic_size=int(row["episodic_size"]))
        size, target = (c.stream_size + c.episodic_size for c in (config, best))
        over = budget is not None and self._slot_bytes * size > budget
        self._larger_for = self._larger_for + 1 if not over and best != chosen else 0
        if over or self._larger_for >= _RETURN_EPOCHS:
            change = f"the memory budget is {budget:,} bytes" if budget is not None else "there is no budget any more"
            reasons.append(f"{change}: {size} to {target} samples, the best that fits")
            self._larger_for, chosen = 0, best
            self._marked(row, 0)
        return Decision(chosen, "; ".join(reason for reason in reasons if reason))

    def observe(self, record: TaskRecord) -> None:
        """Refits the cost model on what the task's training really cost and books what was spent."""
        train = [reading for reading in record.readings if reading.window == "train"]
        work = [reading.work for reading in train]
        expected = self._expected_visits(record)
        self.costs.observe(
            sum(w.visits for w in work), sum(w.bytes_read for w in work), total_energy_j(train), expected
        )
        for group, windows in (("train", {"train"}), ("beside", {"receive", "profile", "retain"})):
            readings = [reading for reading in record.readings if reading.window in windows]
            visits = sum(r.work.visits + FORWARD_SHARE * r.work.forward_visits for r in readings)
            self._spent[group].append(visits if self.costs.unit == "visits" else total_energy_j(readings))

    def _expected_visits(self, record: TaskRecord) -> int | None:
        """Visits predicted for the row in force, if it was in force for the whole task."""
        configs = {(epoch.config.stream_size, epoch.config.episodic_size) for epoch in record.epochs}
        chosen = self._table[self._table["chosen"]]
        return int(chosen["visits"].iloc[0]) if len(configs) == 1 and len(chosen) == 1 else None

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
from mirolib.controller.grid import candidate_grid
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
        self._governor = SwapGovernor(self._ratio, congestion)
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
        candidates = candidate_grid(task, memory, self._highest_budget, swap_ratio=ratio, pairs=self._pairs)
        seed = int(np.random.SeedSequence([self._seed, 5, task.index]).generate_state(1)[0])
        situation = self.profiler.situation(task, learner, memory, candidates, seed)
        if not len(situation.validation_ids):
            raise InputError("The controller scores on validation samples; set validation_share above 0.")
        scores = self.profiler.scores(situation)
        reached, now = situation.accuracies()
        if len(self._table) and not np.isnan(reached):
            self.calibration.observe(float(self._table.loc[self._table["chosen"], "score"].iloc[0]), reached)
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
        table = pd.DataFrame([(c.stream_size, c.episodic_size) for c in candidates])
        table.columns = pd.Index(["stream_size", "episodic_size"])
        table["memory_bytes"] = self._slot_bytes * (table["stream_size"] + table["episodic_size"])
        table["score"], table["accuracy"] = scores, self.calibration.predict(scores)
        table["visits"], swapped = self._work(table)
        table["cost"], table["cost_unit"] = self.costs.predict(table["visits"], swapped), self.costs.unit
        table["above_cutline"] = above_cutline(table["accuracy"], self._cutline)
        _, table["utility"], table["eligible"] = self.selector.pick(table, self._outlook)
        table = table.sort_values(["eligible", "utility", "cost"], ascending=[False, False, True], ignore_index=True)
        self._table = table.assign(chosen=False, profiler=self.profiler.name, selector=self.selector.name)

    def _work(self, table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """Sample visits of each row's training and bytes that it swaps in."""
        replayed = self._epochs * table["episodic_size"].clip(upper=self._replayable)
        return self._epochs * table["stream_size"] + replayed, self._governor.ratio * replayed * self._sample_bytes

    def _best(self, budget: int | None) -> pd.Series:
        """The row that the selector picks of those within a memory budget; the smallest one, shrunk, if none is.

        Raises:
            InputError: If the budget does not even hold one sample in each buffer.
        """
        fits = self._table["memory_bytes"] <= (np.inf if budget is None else budget)
        if fits.any():
            rest = self._table[fits].copy()
            rest["above_cutline"] = above_cutline(rest["accuracy"], self._cutline)
            index, _, _ = self.selector.pick(rest, self._outlook)
            return self._table.loc[index]  # type: ignore[call-overload,no-any-return]
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
        return row  # type: ignore[no-any-return]

    def _config(self, row: pd.Series) -> MemoryConfig:
        ratio = self._governor.ratio if self._ratio else 0.0
        return MemoryConfig(int(row["stream_size"]), int(row["episodic_size"]), ratio)

    def _marked(self, row: pd.Series, task: int) -> pd.DataFrame:
        """The table with the row in force marked, ready for `trials.csv`."""
        same = (self._table[["stream_size", "episodic_size"]] == row[["stream_size", "episodic_size"]]).all(axis=1)
        if same.any():
            self._table["chosen"] = same
        shown = self._table.drop(columns="visits")
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

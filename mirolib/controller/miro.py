"""The Miro controller: profile, choose, adapt (paper: Fig. 8, principles P1 to P4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.base.state import State, Table, dumped, loaded
from mirolib.controller.adaptation import CongestionPolicy, SwapGovernor
from mirolib.controller.base import Controller, Decision
from mirolib.controller.costs import FORWARD_SHARE, CostModel
from mirolib.controller.expectation import Calibration
from mirolib.controller.grid import EPISODIC_STEPS, STREAM_STEPS, candidate_grid
from mirolib.controller.probe import ProbeProfiler
from mirolib.controller.profiler import Profiler
from mirolib.controller.resources import Resources
from mirolib.controller.selectors import GainPerJoule, Outlook, Selector, WithinBudget, above_cutline
from mirolib.data.stream import Task
from mirolib.energy import NO_JOULES, Kind, during, total_energy_j
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory

if TYPE_CHECKING:
    from mirolib.records import TaskRecord

_RETURN_EPOCHS = 2  # epochs that a larger budget must last before larger buffers come back


@dataclass(frozen=True)
class _Frame:
    """What holds for the task at hand.

    Attributes:
        task: Its index.
        slot_bytes: Bytes of RAM that a sample takes.
        sample_bytes: Bytes that a swapped sample moves.
        epochs: Epochs of training.
        samples: Samples of the task.
        replayable: Most samples that the episodic memory can hold during training.
        swaps: Whether there is a storage tier to swap with.
    """

    task: int
    slot_bytes: int
    sample_bytes: int
    epochs: int
    samples: int
    replayable: int
    swaps: bool


@dataclass
class _Standing:
    """What the controller remembers beside calibration, cost model and governor.

    Attributes:
        frame: The task at hand; None before the first.
        outlook: What the selector may know.
        table: The ranked candidates.
        spent: Visits and joules of each task, of its training and beside it.
        highest_budget: Most bytes that the memory budget has allowed; None for no limit.
        settled: Budget under which the sizes in force were picked.
        larger_for: Epochs that the budget has been larger than that.
        patience: Epochs that a larger budget must last before larger buffers come back.
        has_returned: Whether larger buffers have come back since the budget last fell.
        pending: What the governor decided on a task's last epoch.
    """

    frame: _Frame | None = None
    outlook: Outlook = field(default_factory=Outlook)
    table: Table = field(default_factory=pd.DataFrame)
    spent: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"train": [], "beside": []})
    highest_budget: int | None = None
    settled: int | None = None
    larger_for: int = 0
    patience: int = _RETURN_EPOCHS
    has_returned: bool = False
    pending: str = ""


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
        energy_kind: Kind = "none",
        seed: int = 0,
    ) -> None:
        """A controller that has seen no task.

        Args:
            profiler: Scores the candidates; the probe by default.
            selector: Picks one; by default the most accuracy gained per unit of cost (the paper's text).
            swap_ratio: The ratio without congestion (P3: as high as possible), in [0, 1].
            cutline: Top share of the candidates by accuracy, for the selectors that use it, in (0, 1].
            congestion: When the swap ratio falls and rises.
            pairs: The user's own candidates (stream_size, episodic_size) instead of the derived grid.
            grid_limit: Most candidates at a task.
            num_tasks: Length of the stream, for a selector that plans to its end.
            energy_kind: How the meter gets its joules; without any, costs are sample visits.
            seed: Seed of every draw that profiling makes.

        Raises:
            InputError: If a value is out of range, or an energy budget is to be kept over a stream of unknown length.
        """
        self.profiler = profiler or ProbeProfiler()
        self.selector = selector or GainPerJoule()
        above_cutline(pd.Series([1.0]), cutline)
        if isinstance(self.selector, WithinBudget) and num_tasks is None:
            raise InputError("An energy budget is planned over the whole stream; give num_tasks.")
        self.calibration, self.costs = Calibration(), CostModel("visits" if energy_kind in NO_JOULES else "J")
        self._energy_kind = energy_kind
        self._ratio, self._cutline, self._pairs = MemoryConfig(1, 1, swap_ratio).swap_ratio, cutline, tuple(pairs)
        self._governor, self._grid_limit = SwapGovernor(self._ratio, congestion), grid_limit
        self._num_tasks, self._seed = num_tasks, seed
        self._now = _Standing()

    @property
    def _frame(self) -> _Frame:
        assert self._now.frame is not None, "nothing has been chosen yet"
        return self._now.frame

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Profiles the grid and picks a row (P1, P2).

        Raises:
            InputError: If the memory budget holds no candidate, or there are no validation samples.
        """
        replays = learner.method.replays
        self._now.frame = _Frame(
            task=task.index,
            slot_bytes=memory.slot_bytes,
            sample_bytes=memory.storage.fingerprint.sample_bytes,
            epochs=learner.epochs,
            samples=len(task.train),
            replayable=memory.replayable if replays else 0,
            swaps=memory.hierarchical and self._ratio > 0,
        )
        capped = self._governor.cap(resources.swap_ratio_cap)
        budget = resources.memory_budget_bytes
        candidates = self._candidates(task, memory, budget, replays)
        seed = int(np.random.SeedSequence([self._seed, 5, task.index]).generate_state(1)[0])
        situation = self.profiler.situation(task, learner, memory, candidates, seed)
        if not len(situation.validation_ids):
            raise InputError("The controller scores on validation samples; set validation_share above 0.")
        reached, now = situation.accuracies()
        trained = self._now.table[self._now.table["chosen"]] if len(self._now.table) else self._now.table
        if len(trained) == 1 and not np.isnan(trained["score"].iloc[0]):
            self.calibration.observe(float(trained["score"].iloc[0]), reached)
        blind = self.profiler.needs_past and task.index == 0
        scores = np.full(len(candidates), np.nan) if blind else self.profiler.scores(situation)
        if not (blind or np.isnan(reached)):
            self.calibration.suppose(float(scores.max()), reached)
        self._plan(now)
        self._rank(candidates, scores)
        self._now.settled, self._now.larger_for = budget, 0
        row = self._best(budget)
        reason = " ".join(sentence for sentence in (self._reason(row), capped) if sentence)
        return Decision(self._config(row), reason, self._marked(row))

    def _candidates(self, task: Task, memory: TieredMemory, budget: int | None, replays: bool) -> list[MemoryConfig]:
        """The grid within the budget, and beside it that within the highest budget so far, should that come back."""
        self._now.highest_budget = None if budget is None else max(budget, self._now.highest_budget or 0)
        grids = [
            candidate_grid(
                task, memory, size_bytes,
                swap_ratio=self._ratio if self._frame.swaps else 0.0, pairs=self._pairs, replays=replays, limit=limit,
            )
            for size_bytes, limit in ((budget, self._grid_limit), (self._now.highest_budget, -(-self._grid_limit // 2)))
        ]  # fmt: skip
        both = grids[0] if self._now.highest_budget == budget else [*grids[0], *grids[1]]
        return sorted(set(both), key=lambda c: (c.stream_size + c.episodic_size, c.stream_size))

    def _plan(self, accuracy_now: float) -> None:
        """What the selector may know beside the table."""
        beside = self._priced("beside")
        self._now.outlook = Outlook(
            accuracy_now=accuracy_now,
            spent=sum(self._priced("train")) + sum(beside),
            overhead=float(np.mean(beside)) if beside else 0.0,
            tasks_left=(self._num_tasks or self._frame.task + 1) - self._frame.task,
            cost_known=self.costs.known,
        )

    def _rank(self, candidates: Sequence[MemoryConfig], scores: np.ndarray) -> None:
        """The table of candidates, best utility first among the eligible.

        Without scores a candidate is as good as the share of the task that its stream buffer holds.
        """
        stream_size, episodic_size = np.array([(c.stream_size, c.episodic_size) for c in candidates]).T
        visits, swapped = self._work(stream_size, episodic_size)
        if np.isnan(scores).all():
            accuracy = stream_size / self._frame.samples
        else:
            accuracy = scores if self.profiler.exact else self.calibration.predict(scores)
        table = pd.DataFrame(
            {
                "stream_size": stream_size,
                "episodic_size": episodic_size,
                "memory_bytes": self._frame.slot_bytes * (stream_size + episodic_size),
                "score": scores,
                "accuracy": accuracy,
                "cost": self.costs.predict(visits, swapped),
                "above_cutline": above_cutline(pd.Series(accuracy), self._cutline),
            }
        )
        _, utility, eligible = self.selector.pick(table, self._now.outlook)
        order = np.lexsort([table["cost"], -utility, ~eligible])
        table = table.assign(utility=utility, eligible=eligible, chosen=False).iloc[order]
        self._now.table = table.reset_index(drop=True)

    def _work(self, stream_size: np.ndarray, episodic_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample visits of each candidate's training and bytes that it swaps in."""
        f = self._frame
        replayed = f.epochs * np.minimum(episodic_size, f.replayable)
        swapped = self._governor.ratio * replayed * f.sample_bytes if f.swaps else np.zeros(len(replayed))
        return f.epochs * np.minimum(stream_size, f.samples) + replayed, swapped

    def _best(self, budget: int | None) -> pd.Series:
        """The row that the selector picks of those within a memory budget; the smallest one, shrunk, if none is.

        Raises:
            InputError: If the budget does not even hold one sample in each buffer.
        """
        fits = self._now.table["memory_bytes"] <= (np.inf if budget is None else budget)
        if fits.all():
            return self._now.table.iloc[0]
        if fits.any():
            rest = self._now.table[fits].copy()
            rest["above_cutline"] = above_cutline(rest["accuracy"], self._cutline)
            index, _, _ = self.selector.pick(rest, self._now.outlook)
            return self._now.table.loc[index]  # type: ignore[call-overload]
        row = self._now.table.iloc[int(self._now.table["memory_bytes"].argmin())].copy()
        slots = (budget or 0) // self._frame.slot_bytes
        if slots < 2:
            raise InputError(
                f"A memory budget of {budget:,} bytes does not hold one sample in each buffer "
                f"({2 * self._frame.slot_bytes:,} bytes); raise it."
            )
        share = slots / (row["stream_size"] + row["episodic_size"])
        row["stream_size"] = min(max(1, int(share * row["stream_size"])), slots - 1)
        row["episodic_size"] = min(max(1, int(share * row["episodic_size"])), slots - row["stream_size"])
        return row

    def _config(self, row: pd.Series) -> MemoryConfig:
        ratio = self._governor.ratio if self._frame.swaps else 0.0
        return MemoryConfig(int(row["stream_size"]), int(row["episodic_size"]), ratio)

    def _reason(self, row: pd.Series) -> str:
        unit = self.costs.unit if self.costs.known else "visits"
        if np.isnan(row["score"]):
            expected = "nothing has been learnt yet, so that candidates are ranked by their share of the task"
        else:
            expected = f"predicted accuracy {row['accuracy']:.1%}"
        cost = f"{row['cost']:,.0f}" if row["cost"] >= 1000 else f"{row['cost']:.4g}"
        return f"{self.selector.caption} Here: {expected}, cost {cost} {unit}."

    def _marked(self, row: pd.Series) -> pd.DataFrame:
        """Marks the row in force and returns the table."""
        table = self._now.table
        chosen = (table["stream_size"] == row["stream_size"]) & (table["episodic_size"] == row["episodic_size"])
        self._now.table = table.assign(chosen=chosen)  # anew, since another thread may be reading
        return self.trials

    @property
    def trials(self) -> pd.DataFrame:
        """The table, ready for `trials.csv`; where there is no score, no accuracy."""
        table = self._now.table
        if not len(table):
            return table
        shown = table.assign(
            accuracy=table["accuracy"].where(table["score"].notna()),
            cost_unit=self.costs.unit if self.costs.known else "visits",
            energy_kind=self._energy_kind,
            profiler=self.profiler.name,
            selector=self.selector.name,
        )
        shown.insert(0, "task", self._frame.task)
        shown.insert(1, "rank", np.arange(1, len(shown) + 1))
        return shown

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """Moves along the table: rows over the memory budget are blacklisted, the swap ratio follows congestion (P4).

        A smaller budget takes effect at once, a larger one when it has lasted two epochs, and twice as long each time
        it is taken back again. Sizes that fit are kept as long as the budget is no larger than when they were picked.
        """
        reasons, self._now.pending = [self._now.pending], ""
        chosen = config
        if self._frame.swaps:
            reasons.append(self._governor.cap(resources.swap_ratio_cap))
            reasons += [self._governor.step(resources.stall_share, resources.stall_s)] if resources.after_epoch else []
            chosen = replace(config, swap_ratio=self._governor.ratio)
        budget, size = resources.memory_budget_bytes, config.stream_size + config.episodic_size
        over = budget is not None and self._frame.slot_bytes * size > budget
        risen = self._now.settled is not None and (budget is None or budget > self._now.settled)
        self._now.larger_for = self._now.larger_for + 1 if risen and not over else 0
        if over or self._now.larger_for >= self._now.patience:
            row = self._best(budget)
            chosen = self._config(row)
            if over:
                self._now.patience *= 2 if self._now.has_returned else 1
            self._now.settled, self._now.larger_for, self._now.has_returned = budget, 0, not over
            self._marked(row)
            if chosen != config:
                target = chosen.stream_size + chosen.episodic_size
                limit = "there is no memory budget any more" if budget is None else f"memory budget {budget:,} bytes"
                reasons.append(f"{limit}: {size} to {target} samples, the best that fits")
        return Decision(chosen, "; ".join(reason for reason in reasons if reason))

    def observe(self, record: TaskRecord) -> None:
        """Refits the cost model on what the task's training really cost and books what was spent."""
        if self._frame.swaps:
            last = record.epochs[-1]
            self._now.pending = self._governor.step(last.stall_share, last.swaps.stall_s)
        train = during(record.readings, "train")
        work = [reading.work for reading in train]
        self.costs.observe(
            sum(w.visits for w in work), sum(w.bytes_read for w in work), total_energy_j(train), self._expected(record)
        )
        beside = during(record.readings, "receive", "profile", "retain")
        for name, readings in (("train", train), ("beside", beside)):
            visits = sum(r.work.visits + FORWARD_SHARE * r.work.forward_visits for r in readings)
            self._now.spent[name].append((visits, total_energy_j(readings)))

    def state(self) -> State:
        """Calibration, cost model, governor, the ranked table and where it stands, for a checkpoint."""
        return {
            "calibration": self.calibration.state(),
            "costs": self.costs.state(),
            "governor": self._governor.state(),
            "standing": dumped(_Standing, self._now),
        }

    def restore(self, state: State) -> None:
        """Takes back what `state` gave.

        Raises:
            InputError: If it is not that of such a controller, or its costs are in another unit.
        """
        self.calibration.restore(state["calibration"])
        self.costs.restore(state["costs"])
        self._governor.restore(state["governor"])
        self._now = loaded(_Standing, state["standing"])

    def _priced(self, name: str) -> list[float]:
        """What was spent in each task; work stands in, at the model's price, for joules that were not seen."""
        if self.costs.unit == "visits":
            return [visits for visits, _ in self._now.spent[name]]
        return [
            float(self.costs.predict(visits, 0.0)) if np.isnan(joules) else joules
            for visits, joules in self._now.spent[name]
        ]

    def _expected(self, record: TaskRecord) -> float | None:
        """Cost predicted for the row in force, if it was in force for the whole task and predicted in joules."""
        configs = {(epoch.config.stream_size, epoch.config.episodic_size) for epoch in record.epochs}
        chosen = self._now.table[self._now.table["chosen"]]
        usable = len(configs) == 1 and len(chosen) == 1 and self.costs.known
        return float(chosen["cost"].iloc[0]) if usable else None

"""The controller of the paper: profile, choose, adapt (paper: Fig. 8, principles P1 to P4)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.base.state import State, loaded
from mirolib.controller.adaptation import AdaptiveController, CongestionPolicy, limit_of
from mirolib.controller.base import Decision
from mirolib.controller.expectation import Calibration, CostModel
from mirolib.controller.grid import EPISODIC_STEPS, STREAM_STEPS, candidate_grid
from mirolib.controller.probe import ProbeProfiler
from mirolib.controller.profiler import Profiler, ProfileRequest
from mirolib.controller.resources import Resources
from mirolib.controller.selectors import SELECTORS, CandidateTable, SelectionContext, Selector
from mirolib.data.stream import Task, labels_of
from mirolib.energy import NO_JOULES, Kind
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.tiered import TieredMemory
from mirolib.records import TaskRecord


class Miro2023Controller(AdaptiveController):
    """Ranks candidates when a task arrives, picks one, and moves along the same table as resources change.

    Attributes:
        calibration: From scores to accuracies, by what finished tasks reached.
        costs: From sizes to costs, by what finished tasks took.
        table: The ranked candidates of the task at hand.
    """

    _picked = ", the best that fits"
    _KEPT = AdaptiveController._KEPT | {"calibration": Calibration, "costs": CostModel, "table": CandidateTable}

    def __init__(
        self,
        profiler: Profiler | None = None,
        selector: Selector | None = None,
        *,
        swap_ratio: float = 1.0,
        cutline: float = 0.5,
        points: float = 2.0,
        energy_budget: float | None = None,
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
            points: Percentage points below the best accuracy, for selector `cheapest-within`.
            energy_budget: Joules (visits where there is no sensor) for the stream, for selector `within-budget`.
            congestion: When the swap ratio falls and rises.
            pairs: The user's own candidates (stream_size, episodic_size) instead of the derived grid.
            grid_limit: Most candidates at a task.
            num_tasks: Length of the stream, for a selector that plans to its end.
            energy_kind: How the meter gets its joules; without any, costs are sample visits.
            seed: Seed of every draw that profiling makes.

        Raises:
            InputError: If a value is out of range, or missing for the selector.
        """
        self.profiler = profiler or ProbeProfiler()
        self.selector = selector or SELECTORS["gain-per-joule"]
        if self.selector.plans_ahead and energy_budget is None:
            raise InputError("Selector within-budget needs energy_budget: joules, or sample visits without a sensor.")
        if self.selector.plans_ahead and num_tasks is None:
            raise InputError("An energy budget is planned over the whole stream; give num_tasks.")
        self.calibration, self.costs = Calibration(), CostModel("visits" if energy_kind in NO_JOULES else "J")
        super().__init__(swap_ratio, congestion)
        self.table = CandidateTable()
        self._options = SelectionContext(cutline=cutline, points=points, energy_budget=energy_budget)
        self._pairs, self._grid_limit = tuple(pairs), grid_limit
        self._num_tasks, self._energy_kind, self._seed = num_tasks, energy_kind, seed

    @property
    def trials(self) -> pd.DataFrame:
        """The table, ready for `trials.csv`; where there is no score, no accuracy."""
        rows = self.table.rows
        return rows.assign(accuracy=rows["accuracy"].where(rows["score"].notna())) if len(rows) else rows

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Profiles the grid and picks a row (P1, P2); an `InputError` if no row fits, or epochs are the task's."""
        if learner.settings.epoch_of == "task":
            raise InputError(
                "The miro-2023 controller prices sizes by epochs of the buffers; give the learner a preset with such "
                "epochs, as preset.with_epochs(17, 'buffers') makes them."
            )
        budget = resources.memory_budget_bytes
        capped = self._begin(memory, resources)
        candidates = self._candidates(task, learner, memory, budget)
        # 5: a stream of draws of its own among those that come from the run's seed
        seed = int(np.random.SeedSequence([self._seed, 5, task.index]).generate_state(1)[0])
        request = self.profiler.request(task, learner, memory, candidates, seed)
        if not len(request.validation_ids) and len(task.train) > len(task.classes):  # not for want of samples
            raise InputError("The controller scores on validation samples; set validation_share above 0.")
        reached, accuracy_now = request.accuracies()
        scores = self._scores(request, reached)
        beside = self.costs.priced(self.costs.beside)
        context = replace(
            self._options,
            accuracy_now=accuracy_now,
            spent=sum(self.costs.priced(self.costs.train)) + sum(beside),
            overhead=float(np.mean(beside)) if beside else 0.0,
            tasks_left=(self._num_tasks or task.index + 1) - task.index,
            cost_known=self.costs.known,
        )
        ranked = self.selector.rank(self._rows(request, scores), context).reset_index(drop=True)
        self.table = CandidateTable(ranked.assign(rank=ranked.index + 1), context, memory.slot_bytes)
        row = self.table.best(self.selector, budget)
        self.table = self.table.marked(row)
        count = learner.num_classes - len(np.unique(labels_of(memory.validation_ids())))
        blind = f"Scores say nothing of classes without a validation sample, {count} so far." if count else ""
        return Decision(self._config(row), " ".join(filter(None, [self._reason(row), blind, capped])), self.trials)

    def _candidates(self, task: Task, learner: Learner, memory: TieredMemory, budget: int | None) -> list[MemoryConfig]:
        """The grid within the budget, and beside it that within the highest budget so far, should that come back."""
        highest = self.budget_governor.highest_bytes
        limits = {budget: self._grid_limit}
        limits.setdefault(highest, -(-self._grid_limit // 2))  # beside it, for it may never come: half as many
        found = {
            config
            for size_bytes, limit in limits.items()
            for config in candidate_grid(
                task, memory, size_bytes, swap_ratio=self.swap_governor.highest if self.swaps else 0.0,
                pairs=self._pairs, replays=learner.method.replays, limit=limit,
            )
        }  # fmt: skip
        return sorted(found, key=lambda c: (c.stream_size + c.episodic_size, c.stream_size))

    def _scores(self, request: ProfileRequest, reached: float) -> np.ndarray:
        """Scores of the candidates, NaN where the profiler is blind; calibrated by what the last task reached."""
        if not np.isnan(self.table.chosen_score):
            self.calibration.observe(self.table.chosen_score, reached)
        if (self.profiler.needs_past and request.task.index == 0) or not len(request.validation_ids):
            return np.full(len(request.candidates), np.nan)
        scores = self.profiler.scores(request)
        if not np.isnan(reached):
            self.calibration.pseudo_observe(float(scores.max()), reached)
        return scores

    def _rows(self, request: ProfileRequest, scores: np.ndarray) -> pd.DataFrame:
        """A row a candidate with the columns of `trials.csv`; what is a placeholder here is for the ranking to say."""
        learner, memory, samples = request.learner, request.memory, len(request.task.train)
        stream_size, episodic_size = np.array([(c.stream_size, c.episodic_size) for c in request.candidates]).T
        old = memory.reachable().sum() if learner.method.replays else 0
        replayed = learner.epochs * np.minimum(episodic_size, old)
        visits = learner.epochs * np.minimum(stream_size, samples) + replayed
        swapped = self.swap_governor.ratio * replayed * memory.storage.fingerprint.sample_bytes if self.swaps else 0.0
        if np.isnan(scores).all():
            # without scores a candidate is as good as what it holds of all there is
            accuracy = (np.minimum(stream_size, samples) + np.minimum(episodic_size, old)) / (samples + old)
        else:
            accuracy = scores if self.profiler.exact else self.calibration.predict(scores)
        sizes = {"task": request.task.index, "rank": 0, "stream_size": stream_size, "episodic_size": episodic_size}
        held_bytes = memory.slot_bytes * (stream_size + episodic_size)
        found = {"score": scores, "accuracy": accuracy, "cost": self.costs.predict(visits, swapped)}
        placeholders = {"above_cutline": False, "utility": np.nan, "eligible": False, "chosen": False}
        units = {"cost_unit": self.costs.unit_now, "energy_kind": self._energy_kind}
        names = {"profiler": self.profiler.name, "selector": self.selector.name}
        return pd.DataFrame(sizes | {"memory_bytes": held_bytes} | found | placeholders | units | names)

    def _config(self, row: pd.Series) -> MemoryConfig:
        return MemoryConfig(int(row["stream_size"]), int(row["episodic_size"]), self.ratio)

    def _reason(self, row: pd.Series) -> str:
        if np.isnan(row["score"]):
            expected = "nothing can be scored yet, so that candidates are ranked by their share of the samples"
        else:
            expected = f"predicted accuracy {row['accuracy']:.1%}"
        cost = f"{row['cost']:,.0f}" if row["cost"] >= 1000 else f"{row['cost']:.4g}"
        return f"{self.selector.caption.format(self._options)} Here: {expected}, cost {cost} {row['cost_unit']}."

    def _resized(self, config: MemoryConfig, resources: Resources, anew: bool, fell: bool) -> tuple[MemoryConfig, str]:
        if not anew:
            return replace(config, swap_ratio=self.ratio), ""
        row = self.table.best(self.selector, resources.memory_budget_bytes)
        self.table = self.table.marked(row)
        return self._config(row), limit_of(resources.memory_budget_bytes)

    def observe(self, record: TaskRecord) -> None:
        """Refits the cost model on what the task really cost, and adapts the swap ratio to its last epoch."""
        super().observe(record)
        self.costs.observe(record.readings)

    def restore(self, state: State) -> None:
        """Takes back what `state` gave; an `InputError` if it is another's, or its costs are in another unit."""
        if (unit := loaded(CostModel, state["costs"]).unit) != self.costs.unit:
            units = f"its costs in {unit}, but here they come in {self.costs.unit}"
            raise InputError(f"The run has measured {units}; go on with the energy source it began with.")
        super().restore(state)

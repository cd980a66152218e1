"""The Miro controller: how long to train at each task, from the live run's own learning curve."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.base.state import Table
from mirolib.controller.adaptation import CongestionPolicy
from mirolib.controller.allotment import AllottingController
from mirolib.controller.base import Decision
from mirolib.controller.curve import Forecast, LearningCurve
from mirolib.controller.objective import parse_objective
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.energy import FORWARD_SHARE, NO_JOULES, Kind, Reading, in_windows, total_energy_j
from mirolib.energy.ledger import LEARNING
from mirolib.learning.learner import Learner
from mirolib.memory.config import MemoryConfig
from mirolib.memory.rotation import replays
from mirolib.memory.tiered import TieredMemory
from mirolib.records import TaskRecord

_LEAST_STEPS = 8  # fewer train nothing, whatever the curve says
_FIRST = 1 / 16  # of the most epochs: the first look, and the least work
_APART = 1.4  # work from one look to the next
_LOOKING = 0.03  # most work that looks take, as a share of the training so far
_CHOICES = 16  # works that are compared
_FEW = 8  # held-out samples that say less than waiting for more


@dataclass
class Standing:
    """The task at hand.

    Attributes:
        task: Its index.
        most: Epochs that it may have at most.
        steady: Share of its epochs at the full rate.
        of_epoch: Sample visits of an epoch.
        ahead: Those of the tasks to come, an epoch of each.
        looked: Held-out samples looked at since the run began.
        next_look: Epochs after which the model is looked at.
    """

    task: int = 0
    most: float = 0.0
    steady: float = 1.0
    of_epoch: float = 0.0
    ahead: float = 0.0
    looked: int = 0
    next_look: float = float("inf")


class MiroController(AllottingController):
    """Ends each task's training where its objective says, by looks at held-out samples under way.

    A task begins with the most epochs it may have, those of the preset. Its learning rate is still full in the first
    part of them, so that the end may be moved: after each look the least work that does is planned, and the rate falls
    when there is no time for another look. Where held-out samples are too few to tell, all epochs are trained.

    Attributes:
        objective: What is aimed at.
        curve: What looks have said so far.
        now: The task at hand.
        table: The works compared at the last decision.
        spent: Cost of the finished tasks, all that learning took.
        trained: Their sample visits in training.
        plans: Epochs that each was trained.
    """

    _KEPT = AllottingController._KEPT | {
        "curve": LearningCurve, "now": Standing, "table": Table, "spent": float, "trained": float, "plans": list[float],
    }  # fmt: skip

    def __init__(
        self, objective: str = "knee", *, swap_ratio: float = 1.0, congestion: CongestionPolicy | None = None,
        num_tasks: int | None = None, energy_kind: Kind = "none",
    ) -> None:  # fmt: skip
        """A controller that has seen no task.

        Args:
            objective: What is aimed at, see `parse_objective`.
            swap_ratio: The ratio without congestion (P3: as high as possible), in [0, 1].
            congestion: When the swap ratio falls and rises.
            num_tasks: Length of the stream, for an energy budget.
            energy_kind: How the meter gets its joules.

        Raises:
            InputError: If a value is out of range, or the objective needs what there is not.
        """
        super().__init__(swap_ratio=swap_ratio, congestion=congestion)
        self.objective = parse_objective(objective)
        measured = energy_kind not in NO_JOULES
        if self.objective.unit == "J" and not measured:
            raise InputError(
                f"The objective {objective} is in joules, and there is no energy sensor: state it in sample visits, "
                "as energy_budget=100000 visits or rate=0.2 points/1000 visits."
            )
        if self.objective.kind == "energy_budget" and num_tasks is None:
            raise InputError("An energy budget is planned over the whole stream; give num_tasks, or state a rate.")
        self._in_joules = measured and self.objective.unit != "visits"
        self._text, self._num_tasks, self._energy_kind = objective, num_tasks, energy_kind
        self.curve, self.now, self.table = LearningCurve(), Standing(), pd.DataFrame()
        self.spent, self.trained, self.plans = 0.0, 0.0, list[float]()

    @property
    def trials(self) -> pd.DataFrame:
        """The works compared at the last decision, ready for `trials.csv`."""
        return self.table

    @property
    def next_look(self) -> float:
        """Epochs of the task at hand after which it wants to look at the model."""
        return self.now.next_look

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """Sizes and swap ratio by rule, and the most work."""
        decision = super().choose(task, learner, memory, resources)
        samples, ratio = len(memory.stream_buffer.order), learner.settings.replay_ratio if learner.method.replays else 0
        old, new = int(memory.seen.tasks.sum()), len(task.classes)
        many = [samples * (1 + replays("replay_ratio", ratio, old + new * later, new))
                for later in range((self._num_tasks or task.index + 1) - task.index)]  # fmt: skip
        self.now = Standing(task.index, learner.epochs, learner.steady, many[0], sum(many[1:]), self.now.looked)
        self.now.next_look = self._least(learner) * self.now.steady
        if self.objective.kind != "energy_budget" or np.isnan(self._price([])):
            return decision
        planned = self._planned(decision.config, learner, [])
        return replace(planned, reason=f"{planned.reason} {decision.reason}")

    def _least(self, learner: Learner) -> float:
        """The least epochs that are worth training."""
        return min(self.now.most, max(_FIRST * self.now.most, _LEAST_STEPS * learner.batch_size / self.now.of_epoch))

    def look(
        self, config: MemoryConfig, learner: Learner, memory: TieredMemory, readings: Sequence[Reading]
    ) -> Decision:
        """Looks at held-out samples and plans the end of the task, or takes in how far off the plan was."""
        now, done = self.now, learner.epochs_done
        over = done >= learner.epochs
        if self.objective.kind != "energy_budget":
            most = int(_LOOKING / FORWARD_SHARE * (self.trained + now.of_epoch * done)) - now.looked
            if over:
                now.looked += self.curve.finish(now.task, learner, memory, max(most, learner.num_classes), now.steady)
            elif most >= _FEW and len(memory.validation_ids()):
                now.looked += self.curve.look(now.task, learner, memory, most).samples
            elif done * _APART < now.steady * now.most:
                now.next_look = done * _APART
                return Decision(config)
        if over:
            now.next_look = float("inf")
            return Decision(config)
        return self._planned(config, learner, readings)

    def _planned(self, config: MemoryConfig, learner: Learner, readings: Sequence[Reading]) -> Decision:
        """The end of the task, as far as it can be told now."""
        now, done = self.now, learner.epochs_done
        price = self._price(readings)
        if self.objective.kind == "energy_budget":
            cost, visits = self._cost(readings)
            left = (self.objective.value - self.spent - cost) / price + visits
            wanted = left / (now.of_epoch + now.ahead)
            least = min(now.most, max(done / now.steady, learner.batch_size / now.of_epoch))
            epochs = np.array([now.most if np.isnan(wanted) else np.clip(wanted, least, now.most)])
        else:
            least = max(self._least(learner), min(done / now.steady, now.most))
            epochs = np.geomspace(least, now.most, _CHOICES if least < now.most else 1)
        forecast = self.curve.forecast(now.task, epochs, now.steady)
        chosen = self._chosen(epochs, forecast, price)
        end = float(epochs[chosen])
        next_look = max(done * _APART, done + learner.batch_size / now.of_epoch) if done else now.next_look
        settled = end * now.steady <= next_look  # there is no time for another look before the rate falls
        now.next_look = end if settled else next_look
        rows = {
            "task": now.task, "rank": np.arange(1, len(epochs) + 1), "epochs": epochs, "accuracy": forecast.accuracy,
            "low": forecast.low, "high": forecast.high, "gain": forecast.gain, "cost": price * epochs * now.of_epoch,
            "chosen": np.arange(len(epochs)) == chosen, "cost_unit": "J" if self._in_joules else "visits",
            "energy_kind": self._energy_kind, "objective": self._text,
        }  # fmt: skip
        self.table = pd.DataFrame(rows)
        reason = self._reason(epochs, forecast, chosen) if settled or not done else ""
        return Decision(config, reason, self.table if settled else pd.DataFrame(), end)

    def _chosen(self, epochs: np.ndarray, forecast: Forecast, price: float) -> int:
        """Index of the least work that does, of the most where none does."""
        aim = self.objective
        if aim.kind == "energy_budget":
            return 0
        if aim.kind == "accuracy":
            does = forecast.accuracy >= aim.value
        elif aim.kind == "knee":
            does = forecast.gain <= aim.value
        else:  # a price that is not known yet, NaN, lets none do
            does = forecast.gain <= aim.value * price * 0.1 * epochs * self.now.of_epoch
        least = int(does.argmax()) if does.any() else len(epochs) - 1
        if aim.kind == "accuracy" or not self.plans:
            return least
        # what was learnt early is trained again: of equal work, less on later tasks was worse (docs/controller.md)
        usual = float(np.exp(np.log(self.plans).mean()))
        return max(least, min(int((epochs < usual).sum()), len(epochs) - 1))

    def _reason(self, epochs: np.ndarray, forecast: Forecast, chosen: int) -> str:
        """Why the task is to end there."""
        what = f"{self._text}: {epochs[chosen]:.3g} of {self.now.most:.3g} epochs"
        if self.objective.kind == "energy_budget":
            return f"{what}, an equal share of what is left of the budget for each epoch of the tasks to come."
        if np.isnan(forecast.accuracy[chosen]):
            return f"{what}, for there are too few held-out samples to tell how many are needed."
        limits = f"{forecast.accuracy[chosen]:.1%} expected ({forecast.low[chosen]:.1%} to {forecast.high[chosen]:.1%})"
        return f"{what}, {limits}, {forecast.gain[chosen]:.2g} points for another tenth of work."

    def _cost(self, readings: Sequence[Reading]) -> tuple[float, float]:
        """Cost of what the task at hand, or the readings of a finished one, has taken, and its visits in training."""
        found = [reading for reading in in_windows(readings, *LEARNING) if reading.task == self.now.task]
        visits = float(sum(reading.work.visits for reading in in_windows(found, "train")))
        if self._in_joules:
            return total_energy_j(found), visits
        return sum(reading.work.visit_equivalents for reading in found), visits

    def _price(self, readings: Sequence[Reading]) -> float:
        """Cost of a visit, with all that goes with it; NaN while it is not known."""
        cost, visits = self._cost(readings)
        cost, visits = (self.spent + cost, self.trained + visits) if cost == cost else (self.spent, self.trained)
        if not self._in_joules and not visits:
            return 1.0
        return cost / visits if visits else float("nan")

    def observe(self, record: TaskRecord) -> None:
        """Takes in what the task has cost; joules that were not seen are taken to be what its visits are worth."""
        super().observe(record)
        self.plans.append(record.epochs[-1].epochs_done)
        price = self._price(record.readings)
        cost, visits = self._cost(record.readings)
        self.spent, self.trained = self.spent + (cost if cost == cost else price * visits), self.trained + visits

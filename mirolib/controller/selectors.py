"""Selectors pick a row of the ranked table of candidates.

The table has a row a candidate with `accuracy` (predicted, in [0, 1]) and `cost` (of the task's training).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError


@dataclass(frozen=True)
class Outlook:
    """What a selector may know beside the table.

    Attributes:
        accuracy_now: Accuracy on all classes before the task is learnt, in [0, 1].
        spent: Cost of the run so far, profiling included.
        overhead: Cost of a task beside its training.
        tasks_left: Tasks to come, this one included.
        cost_known: Whether the table's cost is in the unit of `spent`.
    """

    accuracy_now: float = 0.0
    spent: float = 0.0
    overhead: float = 0.0
    tasks_left: int = 1
    cost_known: bool = True


def above_cutline(accuracy: pd.Series, cutline: float) -> pd.Series:
    """Which candidates are in the top share by accuracy; at least one is (paper: cutline).

    Raises:
        InputError: If the share lies outside (0, 1].
    """
    if not 0 < cutline <= 1:
        raise InputError(f"cutline is {cutline}; choose a share above 0, up to 1.")
    return accuracy.rank(method="first", ascending=False) <= math.ceil(cutline * len(accuracy) - 1e-9)


class Selector(ABC):
    """Picks the eligible row of highest utility; of equals, the cheapest."""

    name: str
    caption: str

    @abstractmethod
    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """What is maximised, a value a row."""

    def eligible(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """Which rows may be picked: those above the cutline."""
        return table["above_cutline"]

    def pick(self, table: pd.DataFrame, outlook: Outlook) -> tuple[object, pd.Series, pd.Series]:
        """The index of the row picked, and each row's utility and eligibility."""
        utility, eligible = self.utility(table, outlook), self.eligible(table, outlook)
        order = table.assign(utility=utility)[eligible].sort_values(["utility", "cost"], ascending=[False, True])
        return order.index[0], utility, eligible


class AccuracyPerJoule(Selector):
    """The utility of the authors' code."""

    name = "accuracy-per-joule"
    caption = "Among the candidates above the cutline, the most accuracy per unit of cost."

    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """Accuracy / cost."""
        return table["accuracy"] / table["cost"]


class GainPerJoule(Selector):
    """The utility of the paper's text."""

    name = "gain-per-joule"
    caption = "Among the candidates above the cutline, the most accuracy gained by this training per unit of cost."

    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """(Accuracy after - accuracy before training) / cost; a loss is not divided."""
        gain = table["accuracy"] - outlook.accuracy_now
        return (gain / table["cost"]).where(gain > 0, gain)


class HighestAccuracy(Selector):
    """Accuracy at any price."""

    name = "highest-accuracy"
    caption = "The highest predicted accuracy, whatever it costs."

    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """Accuracy."""
        return table["accuracy"]


class LowestEnergy(Selector):
    """The cheapest that is good enough by rank."""

    name = "lowest-energy"
    caption = "Among the candidates above the cutline, the lowest cost."

    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """-Cost."""
        return -table["cost"]


@dataclass(frozen=True)
class CheapestWithin(Selector):
    """The cheapest that is good enough by accuracy.

    Attributes:
        points: Percentage points below the best predicted accuracy that are given away.
    """

    points: float = 2.0
    name = "cheapest-within"

    def __post_init__(self) -> None:
        """Checks the range."""
        if not 0 <= self.points <= 100:
            raise InputError(f"points is {self.points}; choose percentage points from 0 to 100.")

    @property
    def caption(self) -> str:  # type: ignore[override]
        """One sentence on what is picked."""
        return f"The lowest cost within {self.points:g} points of the best predicted accuracy."

    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """-Cost."""
        return -table["cost"]

    def eligible(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """Rows within the points, cutline or not."""
        return table["accuracy"] >= table["accuracy"].max() - self.points / 100 - 1e-12


@dataclass(frozen=True)
class WithinBudget(Selector):
    """The best that can be afforded to the end of the stream.

    Attributes:
        budget: Cost that the whole stream may have, in joules, or in sample visits where there is no sensor.
    """

    budget: float
    name = "within-budget"

    def __post_init__(self) -> None:
        """Checks the range."""
        if not self.budget > 0:
            raise InputError(f"The energy budget is {self.budget}; give a positive number of joules.")

    @property
    def caption(self) -> str:  # type: ignore[override]
        """One sentence on what is picked."""
        return (
            f"The highest predicted accuracy at a cost that, spent on each task to come, keeps the stream within "
            f"{self.budget:g}; the cheapest where none does, or where nothing has been measured yet."
        )

    def utility(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """Accuracy where affordable; otherwise less, the more it costs."""
        return table["accuracy"].where(self._affordable(table, outlook), -table["cost"])

    def eligible(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        """Affordable rows; every row where there is none."""
        affordable = self._affordable(table, outlook)
        return affordable if affordable.any() else pd.Series(np.ones(len(table), dtype=bool), table.index)

    def _affordable(self, table: pd.DataFrame, outlook: Outlook) -> pd.Series:
        return outlook.cost_known & (
            outlook.spent + outlook.tasks_left * (table["cost"] + outlook.overhead) <= self.budget
        )


SELECTORS: dict[str, Callable[[float, float | None], Selector]] = {
    "gain-per-joule": lambda points, budget: GainPerJoule(),
    "accuracy-per-joule": lambda points, budget: AccuracyPerJoule(),
    "highest-accuracy": lambda points, budget: HighestAccuracy(),
    "lowest-energy": lambda points, budget: LowestEnergy(),
    "cheapest-within": lambda points, budget: CheapestWithin(points),
    "within-budget": lambda points, budget: WithinBudget(_given(budget)),
}


def _given(budget: float | None) -> float:
    if budget is None:
        raise InputError("Selector within-budget needs energy_budget: joules, or sample visits without a sensor.")
    return budget

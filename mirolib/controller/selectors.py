"""Selectors: a utility for each row of the table of candidates, of which the best is picked.

The table has a row a candidate with `accuracy` (predicted, in [0, 1]), `cost` (of the task's training), sizes, and
`above_cutline`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may know beside the table.

    Attributes:
        accuracy_now: Accuracy on all classes before the task is learnt, in [0, 1].
        spent: Cost of the run so far, profiling included.
        overhead: Cost of a task beside its training.
        tasks_left: Tasks to come, this one included.
        cost_known: Whether the table's cost is in the unit of `spent`.
        cutline: Top share of the candidates by accuracy, for the selectors that use it, in (0, 1].
        points: Percentage points below the best predicted accuracy that `cheapest-within` gives away.
        energy_budget: Joules (sample visits where there is no sensor) that `within-budget` may spend on the stream.

    Raises:
        InputError: If one of the last three is out of range.
    """

    accuracy_now: float = 0.0
    spent: float = 0.0
    overhead: float = 0.0
    tasks_left: int = 1
    cost_known: bool = True
    cutline: float = 0.5
    points: float = 2.0
    energy_budget: float | None = None

    def __post_init__(self) -> None:
        above_cutline(pd.Series([1.0]), self.cutline)
        if not 0 <= self.points <= 100:
            raise InputError(f"points is {self.points}; choose percentage points from 0 to 100.")
        if self.energy_budget is not None and not self.energy_budget > 0:
            raise InputError(f"The energy budget is {self.energy_budget}; give a positive number of joules.")


def above_cutline(accuracy: pd.Series, cutline: float) -> pd.Series:
    """Which candidates are in the top share by accuracy; at least one is (paper: cutline).

    There is an `InputError` if the share lies outside (0, 1].
    """
    if not 0 < cutline <= 1:
        raise InputError(f"cutline is {cutline}; choose a share above 0, up to 1.")
    # 1e-9: a share such as 0.07 of 100 is a hair above 7 in floating point, which must not make it 8
    return accuracy.rank(method="first", ascending=False) <= math.ceil(cutline * len(accuracy) - 1e-9)


@dataclass(frozen=True)
class Selector:
    """A rule by which a candidate is picked.

    Attributes:
        name: Its name in `SELECTORS` and in the table.
        caption: One sentence on what is picked; `{0.points:g}` stands for the points of the context, and so on.
        utility: Gives each row's utility, -inf where the row may not be picked.
        plans_ahead: Whether it needs an energy budget and the length of the stream.
    """

    name: str
    caption: str
    utility: Callable[[pd.DataFrame, SelectionContext], pd.Series]
    plans_ahead: bool = False

    def rank(self, table: pd.DataFrame, context: SelectionContext) -> pd.DataFrame:
        """The table with `above_cutline`, `utility` and `eligible`: highest utility first, of equals the cheapest."""
        table = table.assign(above_cutline=above_cutline(table["accuracy"], context.cutline))
        utility = self.utility(table, context)
        # lexsort sorts by its last key first, and is stable: full ties stay in the order they came in
        order = np.lexsort([table["cost"], -utility])
        return table.assign(utility=utility, eligible=utility > -np.inf).iloc[order]


def gain_per_joule(table: pd.DataFrame, context: SelectionContext) -> pd.Series:
    """(Accuracy after - accuracy before training) / cost."""
    gain = table["accuracy"] - context.accuracy_now
    # A loss is not divided: divided by the highest cost, it would look smallest.
    return (gain / table["cost"]).where(gain > 0, gain).where(table["above_cutline"], -np.inf)


def cheapest_within(table: pd.DataFrame, context: SelectionContext) -> pd.Series:
    """-Cost, cutline or not."""
    # 1e-12: a row that lies just so many points below must not fall out by rounding
    least = table["accuracy"].max() - context.points / 100 - 1e-12
    return (-table["cost"]).where(table["accuracy"] >= least, -np.inf)


def within_budget(table: pd.DataFrame, context: SelectionContext) -> pd.Series:
    """Accuracy of what can be afforded for each task to come; -cost of all rows where that is none."""
    assert context.energy_budget is not None, "checked by the controller"
    task = table["cost"] + context.overhead
    # Before the first measurement in joules a cost says nothing about the budget, so that nothing is affordable.
    affordable = context.cost_known & (context.spent + context.tasks_left * task <= context.energy_budget)
    return table["accuracy"].where(affordable, -np.inf) if affordable.any() else -table["cost"]


_ABOVE = "Among the candidates above the cutline, the"
SELECTORS: dict[str, Selector] = {
    selector.name: selector
    for selector in (
        # the paper's text
        Selector("gain-per-joule", f"{_ABOVE} most accuracy gained by this training per unit of cost.", gain_per_joule),
        # the authors' code
        Selector(
            "accuracy-per-joule", f"{_ABOVE} most accuracy per unit of cost.",
            lambda table, _: (table["accuracy"] / table["cost"]).where(table["above_cutline"], -np.inf),
        ),
        Selector(
            "highest-accuracy", "The highest predicted accuracy, whatever it costs.",
            lambda table, _: table["accuracy"].where(table["above_cutline"], -np.inf),
        ),
        Selector(
            "lowest-energy", f"{_ABOVE} lowest cost.",
            lambda table, _: (-table["cost"]).where(table["above_cutline"], -np.inf),
        ),
        Selector(
            "cheapest-within", "The lowest cost within {0.points:g} points of the best predicted accuracy.",
            cheapest_within,
        ),
        Selector(
            "within-budget", "The highest predicted accuracy at a cost that, spent on each task to come, keeps the "
            "stream within {0.energy_budget:g}; the cheapest where none does, or where nothing has been measured yet.",
            within_budget, plans_ahead=True,
        ),
    )
}  # fmt: skip

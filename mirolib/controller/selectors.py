"""Selectors: a utility for each row of the table of candidates, of which the best is picked; and that table, ranked.

The table has a row a candidate with `accuracy` (predicted, in [0, 1]), `cost` (of the task's training), sizes, and
`above_cutline`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.base.state import Table


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may know beside the table; an `InputError` if one of the last three is out of range."""

    accuracy_now: float = 0.0  # accuracy on all classes before the task is learnt, in [0, 1]
    spent: float = 0.0  # cost of the run so far, profiling included
    overhead: float = 0.0  # cost of a task beside its training
    tasks_left: int = 1  # tasks to come, this one included
    cost_known: bool = True  # whether the table's cost is in the unit of `spent`
    cutline: float = 0.5  # top share of the candidates by accuracy, for the selectors that use it, in (0, 1]
    points: float = 2.0  # percentage points below the best predicted accuracy that `cheapest-within` gives away
    # joules (sample visits where there is no sensor) that `within-budget` may spend on the stream
    energy_budget: float | None = None

    def __post_init__(self) -> None:
        above_cutline(pd.Series([1.0]), self.cutline)
        if not 0 <= self.points <= 100:
            raise InputError(f"points is {self.points}; choose percentage points from 0 to 100.")
        if self.energy_budget is not None and not self.energy_budget > 0:
            raise InputError(f"The energy budget is {self.energy_budget}; give a positive number of joules.")


def above_cutline(accuracy: pd.Series, cutline: float) -> pd.Series:
    """Which candidates are in the top share by accuracy, in (0, 1]; at least one is (paper: cutline)."""
    if not 0 < cutline <= 1:
        raise InputError(f"cutline is {cutline}; choose a share above 0, up to 1.")
    # 1e-9: a share such as 0.07 of 100 is a hair above 7 in floating point, which must not make it 8
    return accuracy.rank(method="first", ascending=False) <= math.ceil(cutline * len(accuracy) - 1e-9)


@dataclass(frozen=True)
class Selector:
    """A rule by which a candidate is picked."""

    name: str  # its name in `SELECTORS` and in the table
    caption: str  # one sentence on what is picked; `{0.points:g}` stands for the points of the context, and so on
    # gives each row's utility, -inf where the row may not be picked
    utility: Callable[[pd.DataFrame, SelectionContext], pd.Series]
    plans_ahead: bool = False  # whether it needs an energy budget and the length of the stream

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


@dataclass(frozen=True)
class CandidateTable:
    """Candidates, best first; a change makes a new table, since another thread may be reading."""

    rows: Table = field(default_factory=pd.DataFrame)  # a row a candidate; `chosen` marks the one in force
    context: SelectionContext = field(default_factory=SelectionContext)  # what the selector was told
    slot_bytes: int = 1  # bytes of RAM that a sample takes

    @property
    def chosen_score(self) -> float:
        """The profiler's score of the row in force; NaN where there is none."""
        chosen = self.rows[self.rows["chosen"]] if len(self.rows) else self.rows
        # sizes shrunk below every row's stand in no row
        return float(chosen["score"].iloc[0]) if len(chosen) == 1 else float("nan")

    def best(self, selector: Selector, budget_bytes: int | None) -> pd.Series:
        """The row that a selector picks of those within a memory budget; the smallest one, shrunk, if none is.

        There is an `InputError` if the budget does not even hold one sample in each buffer.
        """
        fits = self.rows["memory_bytes"] <= (np.inf if budget_bytes is None else budget_bytes)
        if fits.all():
            return self.rows.iloc[0]
        if fits.any():
            # ranked anew, since the cutline is a share of what fits
            return self.rows.loc[selector.rank(self.rows[fits], self.context).index[0]]
        row = self.rows.iloc[int(self.rows["memory_bytes"].argmin())].copy()
        slots = (budget_bytes or 0) // self.slot_bytes
        if slots < 2:
            needed = f"one sample in each buffer ({2 * self.slot_bytes:,} bytes)"
            raise InputError(f"A memory budget of {budget_bytes:,} bytes does not hold {needed}; raise it.")
        share = slots / (row["stream_size"] + row["episodic_size"])
        row["stream_size"] = min(max(1, int(share * row["stream_size"])), slots - 1)
        row["episodic_size"] = min(max(1, int(share * row["episodic_size"])), slots - row["stream_size"])
        return row

    def marked(self, row: pd.Series) -> CandidateTable:
        """The table with the row in force marked, by its sizes."""
        same = (self.rows[["stream_size", "episodic_size"]] == row[["stream_size", "episodic_size"]]).all(axis=1)
        return replace(self, rows=self.rows.assign(chosen=same))

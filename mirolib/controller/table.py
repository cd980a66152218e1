"""The ranked table of a task's candidates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.base.state import Table
from mirolib.controller.selectors import SelectionContext, Selector


@dataclass(frozen=True)
class CandidateTable:
    """Candidates, best first; a change makes a new table, since another thread may be reading.

    Attributes:
        rows: A row a candidate; `chosen` marks the one in force.
        context: What the selector was told.
        slot_bytes: Bytes of RAM that a sample takes.
    """

    rows: Table = field(default_factory=pd.DataFrame)
    context: SelectionContext = field(default_factory=SelectionContext)
    slot_bytes: int = 1

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

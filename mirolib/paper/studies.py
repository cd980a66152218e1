"""The studies behind the figures: what is launched, and how far each has got, from the results folder alone."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mirolib.base.errors import InputError
from mirolib.data import available_datasets
from mirolib.paper.plan import PLAN, Study
from mirolib.workbench.folder import checked_bytes
from mirolib.workbench.run import load_runs

NUMBERS = Path(__file__).with_name("numbers.csv")
_TEXTS = {"setting", "memory", "run", "dataset", "method", "energy_kind"}


def paper_numbers(*figures: str) -> pd.DataFrame:
    """The paper's numbers that ours are compared with.

    Args:
        figures: Only those of these figures, such as `5a`; all by default.

    Returns:
        One row a point: `figure`, `dataset`, `method`, `series`, `x` in `x_unit`, `accuracy_percent`, `how` it is known
        and its `source`.
    """
    table = pd.read_csv(NUMBERS, dtype={"figure": str})
    return table[table["figure"].isin(figures)] if figures else table


def studies(preset: str) -> list[Study]:
    """What fills the paper's figures.

    Args:
        preset: `smoke` (the bundled digits, minutes), `small` (parts of the paper's data sets, hours on two cores) or
            `paper` (the paper's settings; days, with a GPU).

    Raises:
        InputError: If there is no such preset.
    """
    if preset not in PLAN:
        raise InputError(f"There is no preset {preset!r} of the paper's figures; choose one of {', '.join(PLAN)}.")
    return [replace(study, preset=preset) for study in PLAN[preset]]


@dataclass(frozen=True)
class State:
    """How far a study has got.

    Attributes:
        study: The study.
        status: `finished`, `not run`, `no data set`, or how its last attempt ended.
        path: Folder of the finished run; None where there is none.
        note: What went wrong or what is wanting, in a sentence; empty where nothing is.
        next_run_id: Name for a further attempt.
    """

    study: Study
    status: str
    path: Path | None
    note: str
    next_run_id: str

    @property
    def command(self) -> str:
        """The command that has run the study, or that would run it."""
        return self.study.command(self.path.name if self.path else self.next_run_id)

    def table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """A table of the finished run.

        Args:
            name: Its name, such as `runs` for `runs.csv`.
            columns: Columns it must have; all but names must hold numbers.

        Raises:
            InputError: If it can't be read, or lacks a column.
        """
        assert self.path is not None
        file = self.path / f"{name}.csv"
        try:
            table = pd.read_csv(io.BytesIO(checked_bytes(file)))
            table[list(columns)].astype({column: float for column in columns if column not in _TEXTS})
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{file} can't be used: {error}. Run the study anew.") from error
        return table


def states(preset: str, results: str | os.PathLike[str] | None = None) -> list[State]:
    """How far each study of a preset has got, from the results folder alone.

    Raises:
        InputError: If there is no such preset.
    """
    plan, runs, found = studies(preset), load_runs(results), available_datasets()
    return [_state(study, runs, study.dataset in ("", *found)) for study in plan]


def _state(study: Study, runs: pd.DataFrame, found: bool) -> State:
    """How far one study has got."""
    ours = runs
    if len(runs):
        attempt = runs["run_id"].str.fullmatch(rf"{study.run_id}(-again\d+)?")
        ours = runs[(runs["notebook"] == study.notebook) & attempt]
    again = f"{study.run_id}-again{len(ours)}" if len(ours) else study.run_id
    if not len(ours):
        note = (
            "" if found else f"Data set {study.dataset} is not in the data folder; data/README.md says where it is got."
        )
        return State(study, "not run" if found else "no data set", None, note, again)
    finished = ours[ours["status"] == "finished"]
    last = (finished if len(finished) else ours).iloc[-1]
    note = str(last["error"]) if pd.notna(last["error"]) else ""
    return State(study, last["status"], Path(last["path"]) if len(finished) else None, note, again)

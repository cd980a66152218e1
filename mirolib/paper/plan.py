"""The studies behind the paper's figures, as `plan.yaml` lists them, and how far each has got."""

import io
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mirolib.base.errors import InputError
from mirolib.data import available_datasets
from mirolib.workbench.run import checked_bytes, load_runs
from mirolib.workbench.sweep_plan import make_plan

# columns of names; any other that a figure needs must hold numbers
_TEXTS = {"setting", "memory", "run", "dataset", "method", "energy_kind"}


@dataclass(frozen=True)
class Study:
    """A notebook and the parameters with which it fills figures, keys of `mirolib.paper.FIGURES`.

    The data set is the one it needs, empty where it makes its own; the name a short one for the run.
    """

    preset: str
    name: str
    figures: list[str]
    notebook: str
    dataset: str
    parameters: Mapping[str, Any]

    @cached_property
    def run_id(self) -> str:
        """The run's name; other parameters give another, so that an old plan's run is not taken for this one's."""
        name = f"paper-{self.preset}-{self.name}"
        return next(iter(make_plan(self.notebook, parameters=self.parameters, name=name).members))

    def command(self, run_id: str) -> str:
        """The command that runs it under a name."""
        values = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in self.parameters.items()]
        return shlex.join(["python", "-m", "mirolib", "launch", self.notebook, *values, f"run_id={run_id}"])


PLAN: dict[str, list[Study]] = {
    preset: [Study(preset, **entry) for entry in entries]
    for preset, entries in yaml.safe_load(Path(__file__).with_name("plan.yaml").read_text("utf-8")).items()
}
"""Studies by preset."""


def studies(preset: str) -> list[Study]:
    """What fills the paper's figures; an `InputError` if there is no such preset.

    Presets are `smoke` (the bundled digits, minutes), `small` (parts of the paper's data sets, hours on two cores) and
    `paper` (the paper's settings; days, with a GPU).
    """
    if preset not in PLAN:
        raise InputError(f"There is no preset {preset!r} of the paper's figures; choose one of {', '.join(PLAN)}.")
    return PLAN[preset]


@dataclass(frozen=True)
class State:
    """How far a study has got, and the name for a further attempt.

    The status is `finished`, `not run`, `no data set`, or how its last attempt ended. The path is the folder of the
    finished run; the note says in a sentence what went wrong or what is wanting, and is empty where nothing is.
    """

    study: Study
    status: str
    path: Path | None
    note: str
    next_run_id: str

    def table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """A table of the finished run, such as `runs` for `runs.csv`, with columns of which all but names hold numbers.

        There is an `InputError` if it can't be read, or lacks a column.
        """
        assert self.path is not None
        file = self.path / f"{name}.csv"
        try:
            table = pd.read_csv(io.BytesIO(checked_bytes(file)))
            # only a trial: a column of numbers and text would fail later, inside a figure
            table[list(columns)].astype({column: float for column in columns if column not in _TEXTS})
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{file} can't be used: {error}. Run the study anew.") from error
        return table


def states(preset: str, results: str | os.PathLike[str] | None = None) -> list[State]:
    """How far each study of a preset has got, from the results folder alone; an `InputError` if there is none such."""
    plan, runs, found = studies(preset), load_runs(results), ("", *available_datasets())
    return [_state(study, runs, study.dataset in found) for study in plan]


def _state(study: Study, runs: pd.DataFrame, found: bool) -> State:
    if len(runs):  # without any there are no columns either
        attempt = runs["run_id"].str.fullmatch(rf"{study.run_id}(-again\d+)?")
        runs = runs[(runs["notebook"] == study.notebook) & attempt]
    if not len(runs):
        where = "is not in the data folder; data/README.md says where it is got."
        note = "" if found else f"Data set {study.dataset} {where}"
        return State(study, "not run" if found else "no data set", None, note, study.run_id)
    finished = runs[runs["status"] == "finished"]
    last = (finished if len(finished) else runs).iloc[-1]
    note = str(last["error"]) if pd.notna(last["error"]) else ""
    # a further name, since a launch refuses that of a run that is there, and what failed is left to be looked at
    path = Path(last["path"]) if len(finished) else None
    return State(study, last["status"], path, note, f"{study.run_id}-again{len(runs)}")

"""A run: as far as it has come in this process, or as it lies on disk."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mirolib.base.display import facts
from mirolib.base.errors import InputError, brief
from mirolib.base.files import is_locked, read_bounded

if TYPE_CHECKING:  # or a list of runs would take PyTorch to be shown
    from torch import nn

    from mirolib.experiment.settings import RunSettings
    from mirolib.learning.learner import Learner
    from mirolib.learning.trained import TrainedModel
    from mirolib.records import TaskRecord

PROJECT = Path(__file__).resolve().parents[2]
"""The repository: notebooks and, unless told otherwise, results are found from here, whatever the working folder."""

RUN_FORMAT = 1
SUMS = "SHA256SUMS"
"""Checksums of an ended run's files, as `sha256sum --check` reads them."""

MODEL = "model.safetensors"
"""What a finished run has learnt; it may be deleted to save space."""

LOCK = ".owner.lock"
_UNDER_WAY = ("running", "died")  # what has not ended has no checksums yet, or those of which it was about to say so
_NUMBERS = {
    "tasks": ("task", "stream_size", "episodic_size", "swap_ratio", "memory_bytes", "average_accuracy"),
    "swaps": ("task", "epoch", "stream_size", "episodic_size", "swap_ratio", "stall_share", "duration_s"),
    "energy": ("task", "start_s", "duration_s", "energy_j", "coverage", "visits", "forward_visits"),
    "events": ("task", "epoch", "stream_size", "episodic_size", "swap_ratio"),
    "trials": ("task", "accuracy", "cost"),
    "trace": ("time_s", "power_w"),
}
_TEXTS = {"energy": ("window", "kind", "scope"), "events": ("reason",), "tasks": ("classes",), "trace": ("rail",)}
_MOST_BYTES = 1 << 34  # of a model's file: four thousand million weights
_OPTIONAL = ("events", "trials", "trace")  # a fixed controller has none, nor has a machine without a sensor

logger = logging.getLogger(__name__)


def results_folder(results: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all results: the one given, that of `MIRO_RESULTS`, or the repository's; its name must be text."""
    folder = Path(results or os.environ.get("MIRO_RESULTS") or PROJECT / "results").absolute()
    if not str(folder).isprintable():
        raise InputError(f"The results folder's name, {str(folder)!a}, is no printable text; rename it.")
    return folder


def plain_name(name: str) -> str:
    """A name that is safe as that of a file or folder: it can lead nowhere else; an `InputError` for any other."""
    # 128: with the dot and the random end of a file being written it stays below the 255 bytes of file systems
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name):
        raise InputError(f"{name!r:.200} can't name a run; use a text of letters, digits, dots, hyphens, underscores.")
    return name


def _table(name: str, what: str) -> property:
    return property(lambda run: run.tables[name], doc=what)


@dataclass(frozen=True, repr=False)
class Run:
    """A run: as far as it has come in this process, or as it lies on disk.

    Attributes:
        row: Its row of `load_runs`: `run_id`, `status`, parameters, summary.
        tables: `tasks`, `swaps`, `energy`, `events`, `trials` as far as they can be read; empty tables otherwise.
        records: A record a task; empty where the run was read from disk.
        problems: A sentence for each table that can't be read.
    """

    path: Path
    row: dict[str, Any]
    tables: Mapping[str, pd.DataFrame]
    records: tuple[TaskRecord, ...] = ()
    problems: tuple[str, ...] = ()
    trained: Learner | None = None

    def __repr__(self) -> str:
        return "\n  ".join([f"Run {self.path.name}", *(f"{name}: {value}" for name, value in self.facts().items())])

    def _repr_html_(self) -> str:
        return facts(f"Run {self.path.name}", self.facts())

    def facts(self) -> dict[str, object]:
        """What the run was and how it ended, by name."""
        row = self.row
        values: dict[str, object] = {
            "data set": f"{row.get('dataset')} ({row.get('preset')})",
            "controller": row.get("controller"),
            "method": row.get("method"),
            "tasks": f"{len(self.tasks)} of {row.get('tasks')}",
        }
        if "learning_work" in row:
            joules, kind = float(row["learning_energy_j"] or "nan"), row["energy_kind"]
            unknown = "no sensor" if kind == "none" else f"not known ({kind})"
            energy = f"{joules:,.4g} J ({kind}, {row['energy_scope']})"
            values |= {
                "final accuracy": f"{row['final_accuracy']:.1%}",
                "forgetting": f"{row['forgetting'] or math.nan:.1%}",
                "work of learning": f"{row['learning_work']:,.0f} sample visits",
                "energy of learning": unknown if math.isnan(joules) else energy,
            }
        if row.get("concerns"):
            values["take care"] = row["concerns"]
        doubts = {"not vouched for": row["error"]} if row.get("status") == "unvouched" else {}
        return values | doubts | {"folder": self.path}

    @property
    def settings(self) -> RunSettings:
        """Its settings with every default filled in, but for a function that made its data: pass those as `dataset`.

        There is an `InputError` if the run's parameters, as they were read from disk, are none of `RunSettings`.
        """
        from mirolib.data.own import is_code
        from mirolib.experiment.settings import RunSettings

        asked = {one.name: self.row[one.name] for one in fields(RunSettings) if one.name in self.row}
        # a run's file may come from anyone: what it names is never executed
        code = [name for name in ("dataset", "data") if is_code(str(asked.get(name, "")))]
        return RunSettings(**asked | {name: {"dataset": "own"}.get(name, "") for name in code})

    @property
    def summary(self) -> dict[str, Any]:
        """The values by which runs are compared."""
        from mirolib.experiment.settings import RunSettings

        asked = {"notebook", "run_id", "status", "path", *(one.name for one in fields(RunSettings))}
        return {name: value for name, value in self.row.items() if name not in asked}

    @property
    def learner(self) -> Learner:
        """The learner of a run that was made in this process; an `InputError` if it was read from disk."""
        if self.trained is None:
            raise InputError(f"Run {self.path.name} was read from disk; what it learnt, to predict with, is run.model.")
        return self.trained

    @property
    def model(self) -> TrainedModel:
        """What a finished run has learnt, read from its folder; see `load_model`."""
        return load_model(self.path)

    tasks = _table("tasks", "One row a task.")
    energy = _table("energy", "One row an interval of the energy ledger.")
    events = _table("events", "The controller's decisions, one row each.")
    trials = _table("trials", "The controller's ranked candidates, one row each.")

    @property
    def epochs(self) -> pd.DataFrame:
        """One row an epoch, or a round of a long one: sizes, loss, swaps and stall time."""
        table = self.tables["swaps"]
        # a former version did not say
        return table if "epochs_done" in table else table.assign(epochs_done=table["epoch"] + 1.0)

    @property
    def trace(self) -> pd.DataFrame:
        """Power over time as it was sampled (`time_s` on the clock of `energy`, `rail`, `power_w`); may be empty."""
        return read_trace(self.path)

    @property
    def accuracies(self) -> np.ndarray:
        """Test accuracy on task j after task i in [0, 1], `(tasks done, tasks)`; NaN where j is yet to come."""
        return self.tasks[[name for name in self.tasks if str(name).startswith("accuracy_")]].to_numpy(float)


def load_runs(results: str | os.PathLike[str] | None = None, notebook: str = "*") -> pd.DataFrame:
    """All runs under the results folder (see `results_folder`), or those of one notebook or study, oldest first.

    Returns:
        One row a run: `notebook`, `run_id`, `status`, `path`, its parameters and its summary. The status is
        `finished`, `failed`, `interrupted`, `running`, `died` (its process is gone without a word), `unvouched` (it is
        a copy or was renamed, or its checksums or what they name are gone) or `unreadable` (its `run.json` is damaged
        or was changed); column `error` says how.
    """
    files = sorted(results_folder(results).glob(f"{notebook}/*/run.json"))
    table = pd.DataFrame([load_run(file) for file in files])
    return table.sort_values("started", kind="stable", ignore_index=True) if len(table) else table


def load_model(
    path: str | os.PathLike[str], model: nn.Module | Callable[..., nn.Module] | str | None = None
) -> TrainedModel:
    """The model that a finished run has left in its folder, or that a `model.safetensors` holds.

    Where its backbone is none of `MODELS`, `model` is it: a module, what makes one of a sample's shape, or a name.
    There is an `InputError` if there is none, it was damaged or changed, or is of another model.
    """
    from mirolib.learning.trained import TrainedModel

    file = Path(path) / MODEL if Path(path).is_dir() else Path(path)
    try:
        # beside another file of checksums, one that has another name is none of a run's
        content = (checked_bytes if file.name == MODEL else read_bounded)(file, _MOST_BYTES)
    except FileNotFoundError as error:
        raise InputError(
            f"There is no {file}; a run has its model once it has finished, unless it was deleted or none can be kept."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be used: {brief(error)}.") from error
    return TrainedModel.read(content, model)


def run_folder(run: str, results: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a run that its id, or the folder itself, names; an `InputError` if none or several have the id."""
    if (Path(run) / "run.json").is_file():
        return Path(run)
    found = sorted(file.parent for file in results_folder(results).glob(f"*/{plain_name(Path(run).name)}/run.json"))
    if len(found) != 1:
        where = ", ".join(map(str, found)) or f"none in {results_folder(results)}"
        raise InputError(f"{len(found)} runs are called {run!r:.200} ({where}); name one run's folder.")
    return found[0]


def load_run(file: Path) -> dict[str, Any]:
    """One run's row of `load_runs`, whatever state its `run.json` is in."""
    folder = file.parent
    row: dict[str, Any] = {"notebook": folder.parent.name, "run_id": folder.name, "status": "unreadable"}
    row |= {"started": "", "path": str(folder), "error": None}
    try:
        run = read_run(file)
        status, problem = str(run["status"]), run.get("error")
        if status == "running" and not is_locked(folder / LOCK):  # which whoever is at work on it holds
            status, problem = "died", "its process ended without a word: killed, out of memory, or power lost"
        if why := doubt(file, run):
            status, problem = "unvouched", f"{why} (it says {status}{f': {problem}' if problem else ''})"
        # last, so that no parameter of that name can stand in its place
        own = {"status": status, "error": problem, "started": str(run["started"])}
        own["dataset_fingerprint"] = str(run.get("dataset_fingerprint", ""))
        # before there was a choice, all epochs were of the buffers
        former = {"epoch_of": "buffers"} if "controller" in run["parameters"] else {}
        return row | former | run["parameters"] | run["summary"] | row | own | {"duration_s": float(run["duration_s"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        logger.warning("%s is unreadable: %s", file, error)
        return row | {"error": f"{type(error).__name__}: {error}"}


def read_trace(path: Path) -> pd.DataFrame:
    """The power trace in a run's folder, as far as it was written; may be empty, as it is where it can't be read."""
    table, problem = _read_table(path, "trace")
    if problem:
        logger.warning("%s", problem)
    return table[["time_s", "rail", "power_w"]]


def open_run(path: str | Path) -> Run:
    """Reads a run, by its id or its folder, such as column `path` of `load_runs` names, whatever state it is in.

    There is an `InputError` if there is none.
    """
    path = Path(os.path.abspath(path if Path(path).is_dir() else run_folder(str(path))))
    found = {name: _read_table(path, name) for name in _NUMBERS if name != "trace"}
    tables = {name: table for name, (table, _) in found.items()}
    problems = tuple(problem for _, problem in found.values() if problem)
    return Run(path, load_run(path / "run.json"), tables, problems=problems)


def _read_table(path: Path, name: str) -> tuple[pd.DataFrame, str]:
    """A table of a run, with its checksum, where the run has ended, and its columns checked; or none, and why."""
    file, texts = path / f"{name}.csv", _TEXTS.get(name, ())
    columns = [*_NUMBERS[name], *texts]
    try:
        content = checked_bytes(file)
        if not (path / SUMS).exists():
            content = content[: content.rfind(b"\n") + 1]  # a power cut may have left half a row of a run under way
        table = pd.read_csv(io.BytesIO(content))
        if missing := [column for column in columns if column not in table]:
            raise ValueError(f"it lacks the column {missing[0]}")
        numbers = [str(c) for c in table if c in _NUMBERS[name] or str(c).startswith("accuracy_")]
        table[numbers] = table[numbers].apply(pd.to_numeric)
        return table.astype(dict.fromkeys(texts, str)), ""
    except (OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        is_due = file.exists() or name not in _OPTIONAL
        return pd.DataFrame(columns=columns), f"{file} can't be read: {brief(error)}" if is_due else ""


def read_run(file: Path) -> dict[str, Any]:
    """A `run.json`; an `OSError` or `ValueError` if it is none, of another format, or not what the checksums say."""
    content = read_bounded(file)
    run = json.loads(content, parse_int=_bounded)
    json.dumps(run, ensure_ascii=False).encode()  # half a character would stop whoever prints or writes it
    if run["format"] != RUN_FORMAT:
        raise ValueError(f"it is of format {run['format']!r} and this version of mirolib reads {RUN_FORMAT}")
    if run["status"] not in _UNDER_WAY:
        _check(file, content)
    return run


def load_asked(file: Path) -> dict[str, Any]:
    """What a run was asked for, by its `run.json`; an `InputError` if that can't be read."""
    try:
        return dict(read_run(file)["asked"])
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"Run {file.parent.name} can't be resumed: its run.json is unreadable ({brief(error)})."
        ) from error


def doubt(file: Path, run: dict[str, Any]) -> str:
    """Why what a `run.json` says can't be vouched for, in a sentence; empty if it can. It fails as `read_run` does."""
    folder, its = file.parent, f"{run['notebook']}/{run['run_id']}"
    if its != f"{folder.parent.name}/{folder.name}":
        return f"it is run {its}: the folder was copied or renamed; give it that name again, or delete the copy"
    if run["status"] in _UNDER_WAY:
        return ""
    if not (sums := folder / SUMS).exists():
        return f"{SUMS} is gone, without which nothing tells whether it was changed; put it back"
    names = [line[66:] for line in read_bounded(sums).decode("utf-8", "replace").splitlines()]
    gone = [name for name in names if name != MODEL and not (folder / name).exists()]
    return f"{gone[0]:.99} is gone, which {SUMS} names; put it back" if gone else ""


def _bounded(digits: str) -> int:
    if abs(number := int(digits)) >= 1 << 63:  # what a column holds
        raise ValueError(f"it has a number of {len(digits)} digits")
    return number


def checked_bytes(file: Path, most_bytes: int = 64 << 20) -> bytes:
    """The content of a run's file; an `OSError` or `ValueError` if it can't be read, or is not what checksums say."""
    content = read_bounded(file, most_bytes)
    _check(file, content)
    return content


def _check(file: Path, content: bytes) -> None:
    if (sums := file.parent / SUMS).exists():
        line = f"{hashlib.sha256(content).hexdigest()}  {file.name}"
        if line not in read_bounded(sums).decode("utf-8", "replace").split("\n"):
            raise ValueError(f"{file.name} is not what {SUMS} says; it was damaged or changed by hand")


class BibTeX(str):
    """BibTeX entries, shown in a notebook as one would paste them."""

    __repr__ = str.__str__


def cite(run: Run | RunSettings) -> BibTeX:
    """BibTeX of what a run used: Miro, CarM, and the papers of its method, model and data set.

    What is the user's own, or has no paper, is left out. Each entry's key is the name used here.
    """
    chosen = run.row if isinstance(run, Run) else vars(run)
    names = ["miro", "carm", *(chosen.get(part) for part in ("method", "model", "dataset"))]
    text = files("mirolib.workbench").joinpath("references.bib").read_text(encoding="utf-8")
    entries = {entry.partition("{")[2].partition(",")[0]: entry.strip() for entry in text.split("\n\n")}
    return BibTeX("\n\n".join(entries[name] for name in names if name in entries))

"""Runs on disk: a folder a run, written atomically, and one tidy DataFrame over all of them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import torch

from mirolib.base.errors import InputError, StorageError
from mirolib.base.files import last_words, remove, write_atomic
from mirolib.energy import EnergyMeter
from mirolib.experiment.summary import summarise
from mirolib.memory.wear import WriteMeter
from mirolib.records import TaskRecord, events_of, trials_of
from mirolib.workbench.alive import has_ended, process_stamp
from mirolib.workbench.run_file import RUN_FORMAT, SUMS, read_run

PROJECT = Path(__file__).resolve().parents[2]
"""The repository: notebooks and, unless told otherwise, results are found from here, whatever the working folder."""

_PACKAGES = ("mirolib", "torch", "torchvision", "numpy", "pandas", "lmdb")
_MAY_CHANGE = ("data", "medium")  # where the data and the run lie: a resumed run may say otherwise
_TAKEN_UP = ("asked", "parameters", "dataset_fingerprint", "energy", "summary")  # what a resumed run has from before
_GONE = ' If that machine or container is gone for good, set "status" in {} to "died".'
_ALIVE: set[Path] = set()  # folders of this process's runs that have not ended

logger = logging.getLogger(__name__)


def results_folder(results: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all results: the one given, that of the variable `MIRO_RESULTS`, or the repository's."""
    return Path(results or os.environ.get("MIRO_RESULTS") or PROJECT / "results").absolute()


def plain_name(name: str) -> str:
    """A name that is safe as that of a file or folder: it can lead nowhere else.

    Raises:
        InputError: If it is no text, holds anything but letters, digits, dot, hyphen and underscore, or begins with a
            dot.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name):
        raise InputError(
            f"{name!r:.200} can't name a run; use up to 128 letters, digits, dots, hyphens and underscores."
        )
    return name


def new_run_id(seed: int = 0) -> str:
    """A name for a run: its time, its seed, and a random part, so that no two are the same."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-seed{seed}-{secrets.token_hex(3)}"


def environment_stamp(device: str) -> dict[str, object]:
    """Versions and machine of a run; the device is named once it is known to work."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "host": socket.gethostname(),
        **process_stamp(),
        **{package: version(package) for package in _PACKAGES},
    }


def make_folder(path: Path) -> None:
    """Makes the folder of a run.

    Raises:
        InputError: If a run lies there already.
        StorageError: If it can't be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The results folder {path.parent} can't be written: {error.strerror}. "
            "Make it writable or set MIRO_RESULTS to another."
        ) from error
    if (path / "run.json").exists():
        raise InputError(f"Run {path.name} exists already in {path.parent}; leave run_id empty for a new one.")


def stopped_run(path: Path) -> dict[str, Any]:
    """The `run.json` of a run that can be resumed.

    Raises:
        InputError: If it can't be: it is damaged or of another format, has finished, or still goes on.
    """
    try:
        run = read_run(path / "run.json")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"Run {path.name} can't be resumed: its run.json is unreadable ({error}).") from error
    if run["status"] == "finished":
        raise InputError(f"Run {path.name} has finished; there is nothing to resume.")
    environment = run["environment"]
    if run["status"] == "running" and not _is_dead(environment, path):
        raise InputError(
            f"Run {path.name} is still running (process {environment['pid']} on {environment['host']}); stop it first."
            + ("" if environment["host"] == socket.gethostname() else _GONE.format(path / "run.json"))
        )
    return run


def refuse_changes(run_id: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Sees to it that a run that is taken up again is asked for what it was asked for before.

    Args:
        run_id: The run.
        then: Its parameters before.
        now: Those of now; names that only one of the two has are left aside.

    Raises:
        InputError: If a parameter has changed; the sentence names each with both values.
    """
    now = {name: value for name, value in _plain(now).items() if name in then and name not in _MAY_CHANGE}
    changed = [f"{name} {then[name]!r}, now {value!r}" for name, value in now.items() if then[name] != value]
    if changed:
        raise InputError(
            f"Run {run_id} was begun with other parameters: {', '.join(changed)}. "
            "Resume it with those, or begin a new run."
        )


class RunFolder:
    """The folder of one run: `run.json` with status and summary, and its tables as CSV.

    Used as a context manager: it ends as `finished`, or as `failed` with the error's sentence (`interrupted` for
    Ctrl-C). A process that is killed leaves `running`, which `load_runs` tells from a living run.
    """

    def __init__(
        self,
        notebook: str,
        parameters: dict[str, Any],
        *,
        results: str | os.PathLike[str] | None = None,
        run_id: str = "",
        resume: bool = False,
    ) -> None:
        """Makes `results/<notebook>/<run_id>/` with the status `running`.

        Args:
            notebook: Name of the notebook or study.
            parameters: What the run was asked to do.
            results: The folder of all results; see `results_folder`.
            run_id: Name of the run; by default a new one.
            resume: Whether a run that has been stopped is taken up again.

        Raises:
            InputError: If the run exists already and is not to be resumed, or it is and can't be; if the name leads
                out of the results folder.
            StorageError: If the folder can't be written.
        """
        self.run_id = run_id or new_run_id(parameters.get("seed", 0))
        self.path = results_folder(results) / plain_name(notebook) / plain_name(self.run_id)
        self._earlier = stopped_run(self.path) if resume and (self.path / "run.json").exists() else {}
        if not self._earlier:
            make_folder(self.path)
        for litter in (*self.path.glob(".*"), self.path / SUMS):  # what a process left that was killed while writing
            remove(litter)
        self._start = time.monotonic() - self._earlier.get("duration_s", 0.0)
        self.writes = WriteMeter(self.path)
        self._run: dict[str, Any] = {
            "format": RUN_FORMAT,
            "notebook": notebook,
            "run_id": self.run_id,
            "status": "running",
            "started": self._earlier.get("started", _now()),
            "resumed": [*self._earlier.get("resumed", []), _now()] if self._earlier else [],
            "asked": parameters,
            "parameters": parameters,
            "environment": environment_stamp(""),
            "summary": {},
            **{name: self._earlier[name] for name in _TAKEN_UP if name in self._earlier},
            "writes": [*self._earlier.get("writes", []), {}],
        }
        _ALIVE.add(self.path)
        try:
            self._write()
        except BaseException:
            _ALIVE.discard(self.path)
            raise

    def _write(self) -> None:
        self._run["duration_s"] = round(time.monotonic() - self._start, 3)
        text = json.dumps(_plain(self._run), indent=1, allow_nan=False) + "\n"
        self.writes.add(result_bytes=write_atomic(self.path / "run.json", text))

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Writes a table as `<name>.csv`."""
        path = self.path / f"{name}.csv"
        self.writes.add(result_bytes=write_atomic(path, table.to_csv(index=False, lineterminator="\n")))
        return path

    def write_records(self, records: list[TaskRecord], meter: EnergyMeter) -> None:
        """Writes the run's tables, the summary, and what there is to say about the meter.

        They are `tasks.csv`, `swaps.csv` (a row an epoch), `energy.csv` (a row an interval) and, where the controller
        has any, `events.csv` (its decisions) and `trials.csv` (its ranked candidates).
        """
        self.write_table("tasks", pd.DataFrame([record.row() for record in records]))
        self.write_table("swaps", pd.DataFrame([epoch.row() for record in records for epoch in record.epochs]))
        self.write_energy(meter)
        for name, table in (("events", events_of(records)), ("trials", trials_of(records))):
            if len(table):
                self.write_table(name, table)
        self.set_summary(summarise(records))

    def account(self, store_bytes: int) -> None:
        """Notes what was written since this process took up the run, and books it to the user's medium."""
        written = self.writes.read(store_bytes)
        self._run["writes"][-1] = written.row()
        self.writes.charge(str(self._run["parameters"].get("medium", "")), written)

    def write_energy(self, meter: EnergyMeter) -> None:
        """Writes the ledger as far as it goes, that of a task under way included."""
        self._run["energy"] = meter.describe()
        if meter.readings:
            self.write_table("energy", pd.DataFrame([reading.row() for reading in meter.readings]))

    def set_summary(self, summary: dict[str, object]) -> None:
        """Writes the values by which runs are compared, one flat row, into `run.json`."""
        self._run["summary"] = summary
        self._write()

    def check_same(self, asked: dict[str, Any], filled: dict[str, Any], dataset_fingerprint: str) -> None:
        """Compares a resumed run with what it was; a new run is the same as nothing.

        Args:
            asked: The parameters now, as they were given.
            filled: The parameters now, defaults filled in.
            dataset_fingerprint: Hash of the data now.

        Raises:
            InputError: If a parameter or the data have changed; the sentence names each with both values.
        """
        if not self._earlier:
            return
        refuse_changes(self.run_id, self._earlier["asked"], asked)
        if "dataset_fingerprint" not in self._earlier:  # it was stopped before its data were loaded
            return
        refuse_changes(self.run_id, self._earlier["parameters"], filled)
        if self._earlier["dataset_fingerprint"] != dataset_fingerprint:
            raise InputError(f"Run {self.run_id} was begun with other data; resume it with those, or begin a new run.")
        versions, mine = self._earlier["environment"], environment_stamp("")
        for package in ("python", *_PACKAGES):
            if versions.get(package) != mine[package]:
                logger.warning(
                    "Run %s was begun with %s %s and goes on with %s: it may end with other numbers.",
                    self.run_id, package, versions.get(package), mine[package],
                )  # fmt: skip

    @property
    def status(self) -> str:
        """How the run stands: `running` until it has ended."""
        return str(self._run["status"])

    def set_parameters(self, parameters: dict[str, Any], dataset_fingerprint: str) -> None:
        """Writes the parameters as they came out once defaults were filled in, and the hash of the data."""
        self._run["parameters"] = parameters
        self._run["dataset_fingerprint"] = dataset_fingerprint
        self._run["environment"] = environment_stamp(str(parameters["device"]))
        self._write()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Where the block ends by an error, marks a new run failed and leaves a resumed one as it was."""
        try:
            yield
        except BaseException as error:
            if self._earlier:
                self._run = self._earlier
                with last_words():
                    self.end(self._earlier["status"], self._earlier.get("error"))
            else:
                self.__exit__(type(error), error, None)
            raise

    def __enter__(self) -> RunFolder:
        """Lets a `with` block decide how the run ended."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes how the run ended."""
        if error is None:
            self.end("finished")
            return
        status = "failed" if isinstance(error, Exception) else "interrupted"
        with last_words():
            self.end(status, f"{type(error).__name__}: {error}".removesuffix(": "))

    def end(self, status: str, error: str | None = None) -> None:
        """Writes how the run ended."""
        _ALIVE.discard(self.path)
        self._run |= {"status": status, "ended": _now(), "error": error}
        self._write()
        files = sorted([*self.path.glob("*.csv"), self.path / "run.json"])
        lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
        write_atomic(self.path / SUMS, "".join(lines))


def load_runs(results: str | os.PathLike[str] | None = None, notebook: str = "*") -> pd.DataFrame:
    """All runs under the results folder, oldest first.

    Args:
        results: The folder of all results; see `results_folder`.
        notebook: Only runs of this notebook or study.

    Returns:
        One row a run: `notebook`, `run_id`, `status`, `path`, its parameters and its summary. The status is
        `finished`, `failed`, `interrupted`, `running`, `died` (its process is gone without a word) or
        `unreadable` (its `run.json` is damaged; column `error` says how).
    """
    files = sorted(results_folder(results).glob(f"{notebook}/*/run.json"))
    table = pd.DataFrame([load_run(file) for file in files])
    return table.sort_values("started", kind="stable", ignore_index=True) if len(table) else table


def load_run(file: Path) -> dict[str, Any]:
    """One run's row of `load_runs`, whatever state its `run.json` is in."""
    row: dict[str, Any] = {
        "notebook": file.parents[1].name,
        "run_id": file.parent.name,
        "status": "unreadable",
        "started": "",
        "path": str(file.parent),
        "error": None,
    }
    try:
        run = read_run(file)
        ended = {"status": str(run["status"]), "error": run.get("error")}
        if ended["status"] == "running" and _is_dead(run["environment"], file.parent):
            ended = {
                "status": "died",
                "error": "its process ended without a word: killed, out of memory, or power lost",
            }
        values = dict(run["parameters"]) | dict(run["summary"])
        ended |= {"started": str(run["started"]), "duration_s": float(run["duration_s"])}
        return row | {name: value for name, value in values.items() if name not in row} | ended
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        logger.warning("%s is unreadable: %s", file, error)
        return row | {"error": f"{type(error).__name__}: {error}"}


def _is_dead(environment: dict[str, Any], path: Path) -> bool:
    """Whether a run of this machine has lost its process."""
    if environment["host"] != socket.gethostname():
        return False
    if environment["pid"] == os.getpid():
        return path not in _ALIVE
    return has_ended(environment)


def _plain(value: Any) -> Any:
    """JSON's own types; what is not a finite number becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

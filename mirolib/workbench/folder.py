"""The folder of a run on disk: who owns it, and what is written into it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mirolib.base.errors import InputError, StorageError
from mirolib.base.files import TEMPORARY, append, clear, locked, log_storage_errors, write_atomic
from mirolib.energy import EnergyMeter
from mirolib.experiment.summary import summarise
from mirolib.memory.wear import WriteMeter
from mirolib.records import TaskRecord, tables_of
from mirolib.workbench.run import LOCK, MODEL, RUN_FORMAT, SUMS, doubt, plain_name, read_run, results_folder

_PACKAGES = ("mirolib", "torch", "torchvision", "numpy", "pandas")  # whose version may change a run's numbers
LAUNCHED = ".launch.lock"
_BUSY = "Run {} is still running, here or in another process; stop it first."
_TABLES = ("tasks", "swaps", "energy", "events", "trials", "trace")
_MAY_CHANGE = {"data", "medium"}  # where the data and the run lie: a resumed run may say otherwise
_NEEDED = {
    "asked": dict, "parameters": dict, "environment": dict, "summary": dict, "writes": list, "resumed": list,
    "started": str, "status": str, "duration_s": int | float, "notebook": str, "run_id": str,
}  # fmt: skip
_TAKEN_UP = ("asked", "parameters", "dataset_fingerprint", "energy", "summary")  # what a resumed run has from before

logger = logging.getLogger(__name__)


def run_path(results: str | os.PathLike[str] | None, notebook: str, run_id: str) -> Path:
    """The folder of a run, `results/<notebook>/<run_id>`; an `InputError` if a name leads out of the results."""
    return results_folder(results) / plain_name(notebook) / plain_name(run_id)


def new_run_id(seed: int = 0) -> str:
    """A name for a run: its time, its seed, and a random part, so that no two are the same."""
    # the time first, so that names sort by age; UTC, so that they do so through the end of summer time
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-seed{seed}-{secrets.token_hex(3)}"


def claim(path: Path, *, resume: bool) -> dict[str, Any]:
    """What the `run.json` in a folder, which the caller owns, says of a run that can be taken up again; {} if it's new.

    An `InputError` where a run is not to be resumed, or can't be: damaged, of another format, or finished.
    """
    if not (path / "run.json").exists():
        return {}
    if not resume:
        raise InputError(f"Run {path.name} exists already in {path.parent}; leave run_id empty for a new one.")
    try:
        run = {"writes": [], "resumed": [], "summary": {}} | read_run(path / "run.json")
        for name, kind in _NEEDED.items():
            if not isinstance(run[name], kind):
                raise ValueError(f"{name} is {run[name]!r:.60}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"Run {path.name} can't be resumed: its run.json is unreadable ({error!r:.200}).") from error
    if run["status"] == "finished":
        raise InputError(f"Run {path.name} has finished; there is nothing to resume.")
    if (run["notebook"], run["run_id"]) != (path.parent.name, path.name):
        raise InputError(f"Run {path.name} can't be resumed: {doubt(path / 'run.json', run)}.")
    return run


@contextmanager
def owned(path: Path, lock: str = LOCK, busy: str = _BUSY) -> Iterator[None]:
    """Holds the folder of a run or sweep, made if need be, before anything in it is read or written.

    The lock `LAUNCHED` is for who starts another process that will hold the folder itself. An `InputError` says that
    another owner has it, a `StorageError` that it can't be written.
    """
    # errors of the block itself are its own: only those of getting hold of the folder are told here
    with ExitStack() as held:
        try:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path / lock, wait=False, remove=True))
        except BlockingIOError as error:
            raise InputError(busy.format(path.name)) from error
        except OSError as error:
            raise StorageError(
                f"The results folder {path.parent} can't be written: {error.strerror}. "
                "Make it writable or set MIRO_RESULTS to another."
            ) from error
        yield


def refuse_changes(run_id: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses, by an `InputError`, what a run was asked for before and is not now; the sentence has both values.

    Of parameters that only one of them names nothing is said.
    """
    # as they come back from JSON, where a tuple is a list and a NumPy number a number
    alike = ((name, then[name], value) for name, value in _plain(now).items() if name in then.keys() - _MAY_CHANGE)
    if changed := [f"{name} {before!r}, now {value!r}" for name, before, value in alike if before != value]:
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
        """Makes `results/<notebook>/<run_id>/` with the status `running`, or takes up again a run that was stopped.

        `notebook` may name a study too, `parameters` are what the run was asked to do; see `results_folder`. There is
        an `InputError` if `owned` or `claim` refuses it, or its name leads out of the results folder, and a
        `StorageError` if the folder can't be written.
        """
        self.run_id = run_id or new_run_id(parameters.get("seed", 0))
        self.path = run_path(results, notebook, self.run_id)
        with ExitStack() as held:
            held.enter_context(owned(self.path))
            self._earlier = claim(self.path, resume=resume)
            self._begin(notebook, parameters)
            self._owned = held.pop_all()

    def _begin(self, notebook: str, parameters: dict[str, Any]) -> None:
        # the monotonic clock: a board without a battery sets its wall clock while a run goes on
        self._start = time.monotonic() - self._earlier.get("duration_s", 0.0)
        self.writes = WriteMeter(self.path)
        self._columns: dict[str, list[str]] = {}  # of the tables begun by this process
        self._tables = set(_TABLES)  # the library's: other ones are the user's
        self._tasks = self._readings = 0  # written by this process
        self._run: dict[str, Any] = {
            "format": RUN_FORMAT,
            "notebook": notebook,
            "run_id": self.run_id,
            "status": "running",
            "started": self._earlier.get("started", _now()),
            "resumed": [*self._earlier.get("resumed", []), _now()] if self._earlier else [],
            "asked": parameters,
            "parameters": parameters,  # filled in once the data are loaded
            "environment": _environment(""),
            "summary": {},
            **{name: self._earlier[name] for name in _TAKEN_UP if name in self._earlier},
            "writes": [*self._earlier.get("writes", []), {}],
        }
        self.write_file("run.json", self._content())
        # last: a run that is killed before it says that it goes on has its checksums still
        # and the litter of a process that was killed while it ended
        clear(self.path, [*self.path.glob(f"{TEMPORARY}*"), self.path / SUMS, self.path / MODEL])

    def _content(self) -> bytes:
        self._run["duration_s"] = round(time.monotonic() - self._start, 3)
        # JSON knows no NaN, though Python's would write one: other programs could not read the file
        return (json.dumps(_plain(self._run), indent=1, allow_nan=False) + "\n").encode()

    def write_file(self, name: str, content: str | bytes) -> Path:
        """Writes one of the run's files, whole or not at all."""
        self.writes.add(result_bytes=write_atomic(self.path / name, content))
        return self.path / name

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Writes a table as `<name>.csv`."""
        self._tables.add(name)
        return self.write_file(f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))

    def append_rows(self, name: str, rows: pd.DataFrame) -> None:
        """Adds rows to `<name>.csv`; the first of this process begin it anew, the rows of an earlier one included.

        Rewriting the table at each task would write bytes with the square of the tasks, on a card whose wear counts.
        """
        path, columns = self.path / f"{name}.csv", list(map(str, rows))
        if self._columns.get(name) == columns:
            lines = rows.to_csv(index=False, header=False, lineterminator="\n")
            self.writes.add(result_bytes=append(path, lines))
            return
        if name in self._columns:  # the header has become another
            # old rows as texts: read as numbers they might come out otherwise
            rows = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False), rows])
        self.write_table(name, rows)
        self._columns[name] = list(map(str, rows))

    def write_records(self, records: list[TaskRecord], meter: EnergyMeter) -> None:
        """Adds what is new to the run's tables and brings summary, and what there is to say of the meter, up to date.

        The tables are `tasks.csv`, `swaps.csv` (a row an epoch), `energy.csv` (a row an interval) and, where the
        controller has any, `events.csv` (its decisions) and `trials.csv` (its ranked candidates).
        """
        new = records[self._tasks :]
        self._tasks = len(records)
        for name, rows in tables_of(new).items():
            if len(rows):
                self.append_rows(name, rows)
        self._run["energy"] = meter.describe()
        if readings := meter.readings[self._readings :]:  # those of a task under way too
            self.append_rows("energy", pd.DataFrame([reading.row() for reading in readings]))
            self._readings += len(readings)
        self.set_summary(summarise(records))

    def account(self, store_bytes: int) -> None:
        """Notes what was written since this process took up the run, and books it to the user's medium."""
        written = self.writes.read(store_bytes)
        self._run["writes"][-1] = written.row()
        self.writes.charge(str(self._run["parameters"].get("medium", "")), written)

    def set_summary(self, summary: dict[str, object]) -> None:
        """Writes the values by which runs are compared, one flat row, into `run.json`."""
        self._run["summary"] = summary
        self.write_file("run.json", self._content())

    def check_same(self, asked: dict[str, Any], filled: dict[str, Any], dataset_fingerprint: str) -> None:
        """Compares what a resumed run is asked for now, as given and with defaults filled in, with what it was.

        An `InputError` names the parameters, or the data, that have changed.
        """
        earlier = self._earlier
        refuse_changes(self.run_id, earlier.get("asked", {}), asked)
        if "dataset_fingerprint" not in earlier:  # it is new, or was stopped before its data were loaded
            return
        refuse_changes(self.run_id, earlier["parameters"], filled)
        if earlier["dataset_fingerprint"] != dataset_fingerprint:
            raise InputError(f"Run {self.run_id} was begun with other data; resume it with those, or begin a new run.")
        then, now = earlier["environment"], _environment("")
        text = "Run %s was begun with %s %s and goes on with %s: it may end with other numbers."
        for package in ("python", "torch_threads", *_PACKAGES):
            if then.get(package) != now[package]:
                logger.warning(text, self.run_id, package, then.get(package), now[package])

    @property
    def status(self) -> str:
        """How the run stands: `running` until it has ended."""
        return str(self._run["status"])

    def set_parameters(self, parameters: dict[str, Any], dataset_fingerprint: str) -> None:
        """Writes the parameters as they came out once defaults were filled in, and the hash of the data."""
        self._run["parameters"] = parameters
        self._run["dataset_fingerprint"] = dataset_fingerprint
        self._run["environment"] = _environment(str(parameters["device"]))
        self.write_file("run.json", self._content())

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Where the block ends by an error, marks a new run failed and leaves a resumed one as it was."""
        try:
            yield
        except BaseException as error:
            if self._earlier:
                # nothing was done yet: it can be resumed as before, with the right parameters
                self._run = self._earlier
                with log_storage_errors():
                    self.end(self._earlier["status"], self._earlier.get("error"))
            else:
                self.__exit__(type(error), error, None)
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.end("finished")
            return
        status = "failed" if isinstance(error, Exception) else "interrupted"
        with log_storage_errors():
            stopped = isinstance(error, KeyboardInterrupt | GeneratorExit)
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
            self.end(status, "stopped by the user" if stopped else text)

    def end(self, status: str, error: str | None = None) -> None:
        """Writes how the run ended, and lets its folder go."""
        with self._owned:
            self._run |= {"status": status, "ended": _now(), "error": error}
            own = [MODEL, *(f"{name}.csv" for name in self._tables)]
            names = sorted(name for name in own if (self.path / name).exists())
            files = {name: (self.path / name).read_bytes() for name in names} | {"run.json": self._content()}
            lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
            # the checksums first: a run that says that it has ended has them, wherever it is killed
            write_atomic(self.path / SUMS, "".join(lines))
            write_atomic(self.path / "run.json", files["run.json"])


def _plain(value: Any) -> Any:
    """JSON's own types; what is not a finite number becomes null."""
    text = json.dumps(value, default=lambda one: one.item() if isinstance(one, np.generic) else str(one))
    return json.loads(text, parse_constant=lambda _: None)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _environment(device: str) -> dict[str, object]:
    """Versions and machine of a run; the device is named once it is known to work."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **{package: version(package) for package in _PACKAGES},
    }

"""Experiments that leave a run folder: brought up to date as they go, and continued after whatever stopped them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from mirolib.atomic import last_words
from mirolib.checkpoint import Checkpoints
from mirolib.datasets import Dataset
from mirolib.energy import Reading
from mirolib.errors import InputError
from mirolib.experiment import Disturbance, Experiment, RunSettings, prepared
from mirolib.records import EpochRecord, TaskRecord, events_of, trials_of
from mirolib.reprs import facts, run_facts
from mirolib.state import State
from mirolib.summary import summarise
from mirolib.workbench import RunFolder


@dataclass(frozen=True, repr=False)
class RunResult:
    """A finished run.

    Attributes:
        path: Its folder.
        settings: Its settings with every default filled in.
        class_names: Class name at each label.
        records: A record a task.
        readings: The energy ledger, with what lies outside any task.
    """

    path: Path
    settings: RunSettings
    class_names: tuple[str, ...]
    records: tuple[TaskRecord, ...]
    readings: tuple[Reading, ...] = ()

    def __repr__(self) -> str:
        """What was run, how it ended, and where it lies."""
        return f"RunResult({', '.join(f'{name}: {value}' for name, value in run_facts(self).items())})"

    def _repr_html_(self) -> str:
        return facts(f"Run {self.path.name}", run_facts(self))

    @property
    def tasks(self) -> pd.DataFrame:
        """One row a task."""
        return pd.DataFrame([record.row() for record in self.records])

    @property
    def epochs(self) -> pd.DataFrame:
        """One row an epoch: sizes, loss, swaps and stall time."""
        return pd.DataFrame([epoch.row() for record in self.records for epoch in record.epochs])

    @property
    def energy(self) -> pd.DataFrame:
        """One row an interval of the energy ledger."""
        return pd.DataFrame([reading.row() for reading in self.readings])

    @property
    def trace(self) -> pd.DataFrame:
        """Power over time as it was sampled (`time_s` on the clock of `energy`, `rail`, `power_w`); may be empty."""
        file = self.path / "trace.csv"
        return pd.read_csv(file) if file.exists() else pd.DataFrame({"time_s": [], "rail": [], "power_w": []})

    @property
    def events(self) -> pd.DataFrame:
        """The controller's decisions, one row each."""
        return events_of(self.records)

    @property
    def trials(self) -> pd.DataFrame:
        """The controller's ranked candidates, one row each."""
        return trials_of(self.records)

    @property
    def summary(self) -> dict[str, object]:
        """The values by which runs are compared."""
        return summarise(list(self.records))


class RecordedRun:
    """An experiment with its folder `results/<notebook>/<run_id>/`, which every task brings up to date.

    Checkpoints are saved after each task and, within a task, every so many minutes. A run that does not reach its
    end, for an error, Ctrl-C, or because its steps are no longer asked for, keeps store and checkpoints, and `resume`
    goes on from them.

    Attributes:
        folder: The run's folder.
        experiment: Its parts, to look at while it goes on.
    """

    def __init__(
        self,
        settings: RunSettings,
        *,
        dataset: Dataset | None = None,
        notebook: str = "10_run",
        run_id: str = "",
        results: str | os.PathLike[str] | None = None,
        keep_store: bool = False,
        disturb: Disturbance | None = None,
        checkpoint_minutes: float = 5.0,
        resume: bool = False,
    ) -> None:
        """Builds the experiment; see `run_experiment`."""
        if resume and not run_id:
            raise InputError("Which run is to be resumed? Name it by run_id.")
        if not checkpoint_minutes >= 0:
            raise InputError(f"checkpoint_minutes is {checkpoint_minutes}; choose 0 (after each epoch) or more.")
        self._keep_store, self._period_s = keep_store, 60 * checkpoint_minutes
        self._earlier_trace = pd.DataFrame()
        self.folder = RunFolder(notebook, asdict(settings), results=results, run_id=run_id, resume=resume)
        self._checkpoints = Checkpoints(self.folder.path / "checkpoint")
        with self.folder.failing():
            state = self._checkpoints.latest()
            stream, filled = prepared(settings, dataset)
            self.folder.check_same(asdict(settings), asdict(filled), stream.dataset.fingerprint)
            if state is None:  # there is nothing to go on from
                shutil.rmtree(self._store, ignore_errors=True)
            self.experiment = Experiment.build(settings, self._store, stream.dataset, disturb)
            self.folder.set_parameters(asdict(self.experiment.settings), stream.dataset.fingerprint)
            if state is not None:
                self._restore(state)

    @property
    def _store(self) -> Path:
        return self.folder.path / "store"

    def _restore(self, state: State) -> None:
        """Brings the parts to a checkpoint's state; where that fails, the store is closed."""
        try:
            self.experiment.loop.restore(state)
            trace = self.folder.read_trace()
        except BaseException:
            self.experiment.memory.close()
            raise
        self._earlier_trace = trace.assign(time_s=trace["time_s"] + self.experiment.meter.shift_s)

    def steps(self, *, progress: bool = True) -> Generator[EpochRecord | TaskRecord, None, None]:
        """Runs to the end, as `Experiment.steps` does; closing the generator ends the run as interrupted.

        Args:
            progress: Whether to show a progress bar.
        """
        loop, saved = self.experiment.loop, time.monotonic()
        with self.folder:
            try:
                for step in self.experiment.steps(progress=progress):
                    ended = isinstance(step, TaskRecord)
                    if ended:
                        self.folder.account(self.experiment.memory.storage.bytes_written)
                        self.folder.write_records(loop.records, loop.meter)
                    if ended or time.monotonic() - saved >= self._period_s:
                        with loop.meter.interlude("checkpoint"):
                            size_bytes = self._checkpoints.save(loop.state()).stat().st_size
                        self.folder.writes.add(checkpoint_bytes=size_bytes)
                        saved = time.monotonic()
                    yield step
            except BaseException:
                with last_words():
                    self._close()
                raise
            self._close()
        if not self._keep_store:
            shutil.rmtree(self._store, ignore_errors=True)
            shutil.rmtree(self._checkpoints.folder, ignore_errors=True)

    def _close(self) -> None:
        """Writes the ledger as far as it goes; a store without a checkpoint is of no use to anyone."""
        if not self._checkpoints.files():
            shutil.rmtree(self._store, ignore_errors=True)
        meter = self.experiment.meter
        self.folder.write_energy(meter)
        self.folder.account(self.experiment.memory.storage.bytes_written)
        trace = pd.concat([part for part in (self._earlier_trace, meter.trace()) if len(part)] or [pd.DataFrame()])
        if len(trace):
            self.folder.write_table("trace", trace)

    @property
    def result(self) -> RunResult:
        """The run as far as it has come."""
        experiment = self.experiment
        names, readings = experiment.stream.class_names, tuple(experiment.meter.readings)
        return RunResult(self.folder.path, experiment.settings, names, tuple(experiment.loop.records), readings)


def run_experiment(
    settings: RunSettings,
    *,
    dataset: Dataset | None = None,
    notebook: str = "10_run",
    run_id: str = "",
    results: str | os.PathLike[str] | None = None,
    keep_store: bool = False,
    disturb: Disturbance | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Runs an experiment and leaves it under `results/<notebook>/<run_id>/`, brought up to date after each task.

    Args:
        settings: The run's parameters.
        dataset: The data set itself, where it is the user's own.
        notebook: Folder of the run within the results.
        run_id: Name of the run; by default a new one.
        results: The folder of all results; see `results_folder`.
        keep_store: Whether store and last checkpoints are kept when the run ends; the store holds every training
            sample. A run that was stopped keeps them in any case.
        disturb: Makes the store's life hard during some epochs; see `mirolib.injectors`.
        checkpoint_minutes: A checkpoint is saved after each task and, within one, after the first epoch that ends so
            many minutes after the last; 0 saves one after each epoch.
        resume: Goes on with run `run_id` from its last checkpoint, if it has been stopped; begins it if there is none.
        progress: Whether to show a progress bar.

    Raises:
        InputError: If a parameter is unknown or out of range; the run is then marked failed. If the run exists already
            and is not to be resumed, or it is and has finished, still runs, or was made with other parameters.
        StorageError: If the disk is full or can't be written.
    """
    run = RecordedRun(
        settings,
        dataset=dataset,
        notebook=notebook,
        run_id=run_id,
        results=results,
        keep_store=keep_store,
        disturb=disturb,
        checkpoint_minutes=checkpoint_minutes,
        resume=resume,
    )
    for _ in run.steps(progress=progress):
        pass
    return run.result

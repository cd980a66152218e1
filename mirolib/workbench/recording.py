"""Experiments that leave a run folder: brought up to date as they go, and continued after whatever stopped them."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from mirolib.base.errors import InputError, Interrupted
from mirolib.base.files import log_storage_errors
from mirolib.base.state import State, dumped, loaded
from mirolib.data import Dataset
from mirolib.experiment.checkpoint import Checkpoints
from mirolib.experiment.experiment import Disturbance, Experiment, located, prepared
from mirolib.experiment.settings import RunSettings, checked
from mirolib.experiment.summary import concerns, summarise
from mirolib.learning.trained import TrainedModel
from mirolib.memory.store_check import delete_store
from mirolib.records import EpochRecord, TaskRecord, tables_of
from mirolib.workbench.folder import RunFolder, refuse_changes, run_path
from mirolib.workbench.run import MODEL, Run, load_asked, load_run, open_run, read_trace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Identity:
    """Whose a checkpoint is: class order and controller alone would let in that of a run with another learning rate."""

    run_id: str
    parameters: dict[str, Any]
    dataset_fingerprint: str

    def check(self, then: _Identity) -> None:
        """Refuses the checkpoint of another run, in a sentence that names what differs."""
        if then.run_id != self.run_id:
            raise InputError(
                f"The checkpoint of run {self.run_id} is that of run {then.run_id}; put its own back, or delete it."
            )
        refuse_changes(self.run_id, then.parameters, self.parameters)
        if then.dataset_fingerprint != self.dataset_fingerprint:
            raise InputError(f"The checkpoint of run {self.run_id} is of other data; resume it with those.")


class RecordedRun:
    """An experiment with its folder `results/<notebook>/<run_id>/`, which every task brings up to date.

    Checkpoints are saved after each task and, within one, every so many minutes. A run that does not reach its end (an
    error, Ctrl-C, steps no longer asked for) keeps store and checkpoints, and `resume` goes on from them. Its `folder`
    and the parts of its `experiment` may be looked at while it goes on.
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
        settings = checked(settings) if dataset else located(settings)
        self._earlier_trace = pd.DataFrame()
        self.folder = RunFolder(notebook, asdict(settings), results=results, run_id=run_id, resume=resume)
        self._store = self.folder.path / "store"
        self._checkpoints = Checkpoints(self.folder.path / "checkpoint")
        with self.folder.failing():
            # before anything is written: a damaged or foreign checkpoint leaves the run as it was
            state = self._checkpoints.latest()
            stream, filled = prepared(settings, dataset)
            self.folder.check_same(asdict(settings), asdict(filled), stream.dataset.fingerprint)
            self._identity = _Identity(self.folder.run_id, asdict(filled), stream.dataset.fingerprint)
            if state is None:
                # a store without a checkpoint holds samples of a run that begins anew
                delete_store(self._store)
            else:
                self._identity.check(loaded(_Identity, state.get("run")))
            self.experiment = Experiment.of(stream, filled, self._store, disturb)
            self.folder.set_parameters(asdict(filled), stream.dataset.fingerprint)
            if state is not None:
                self._restore(state)

    def _restore(self, state: State) -> None:
        """Brings the parts to a checkpoint's state; where that fails, the store is closed."""
        try:
            self.experiment.loop.restore(state)
            trace = read_trace(self.folder.path)
        except BaseException:
            self.experiment.memory.close()  # or the store's lock keeps out whoever tries again in this process
            raise
        # one line of time: the meter of this process counts from its own start
        self._earlier_trace = trace.assign(time_s=trace["time_s"] + self.experiment.meter.shift_s)

    def steps(self, *, progress: bool = True) -> Generator[EpochRecord | TaskRecord, None, None]:
        """Runs to the end, as `Experiment.steps` does; closing the generator ends the run as interrupted."""
        loop, saved = self.experiment.loop, -math.inf  # a stop after the first round leaves what can go on
        with self.folder:
            try:
                for step in self.experiment.steps(progress=progress):
                    ended = isinstance(step, TaskRecord)
                    if ended:
                        # first what was written, then the tables: run.json, which is written last, says both
                        self.folder.account(self.experiment.memory.storage.bytes_written)
                        self.folder.write_records(loop.records, loop.meter)
                    if ended or time.monotonic() - saved >= self._period_s:
                        # after the tables: who resumes from this checkpoint writes its tasks' rows anew
                        with loop.meter.interlude("checkpoint"):
                            # in no variable, which would hold a copy of the buffers until the next one
                            file = self._checkpoints.save(loop.state() | {"run": dumped(_Identity, self._identity)})
                            size_bytes = file.stat().st_size
                        self.folder.writes.add(checkpoint_bytes=size_bytes)
                        saved = time.monotonic()
                    yield step
            except BaseException as error:
                # the error that ended the run is what is told, not a full disk that keeps its last rows out
                with log_storage_errors():
                    self._close()
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(
                        f"Run {self.folder.run_id} was stopped by the user; what its {len(loop.records)} finished "
                        f"tasks left is in {self.folder.path}. It goes on with run_id={self.folder.run_id!r}, "
                        "resume=True and the same settings."
                    ) from None
                raise
            try:
                names = self.experiment.stream.dataset.class_names
                self.folder.write_file(MODEL, TrainedModel.of(self.experiment.learner, names).content())
            except InputError as error:  # a classifier that no file holds does not fail the run
                logger.warning("Run %s keeps no %s: %s", self.folder.run_id, MODEL, error)
            self._close()
        for concern in concerns(list(loop.records)):
            logger.warning("Run %s: %s", self.folder.run_id, concern)
        # outside the folder's block: the run is finished once its files say so, whatever becomes of the store
        if not self._keep_store:
            delete_store(self._store)
            self._checkpoints.delete()

    def _close(self) -> None:
        """Writes the ledger as far as it goes; a store without a checkpoint is of no use to anyone."""
        if not self._checkpoints.files():
            delete_store(self._store)
        meter = self.experiment.meter
        # all records again where this process has made none: what a checkpoint holds counts, not what lay there
        self.folder.write_records(self.experiment.loop.records, meter)
        self.folder.account(self.experiment.memory.storage.bytes_written)
        trace = pd.concat([part for part in (self._earlier_trace, meter.trace()) if len(part)] or [pd.DataFrame()])
        if len(trace):
            self.folder.write_table("trace", trace)

    @property
    def result(self) -> Run:
        """The run as far as it has come."""
        path, loop, settings = self.folder.path, self.experiment.loop, self.experiment.settings
        row = {"notebook": path.parent.name, "run_id": path.name, "status": self.folder.status}
        energy = pd.DataFrame([reading.row() for reading in loop.meter.readings])
        row |= asdict(settings) | summarise(list(loop.records))
        tables = tables_of(loop.records) | {"energy": energy}
        return Run(path, row, tables, tuple(loop.records), trained=self.experiment.learner)


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
) -> Run:
    """Runs an experiment and leaves it under `results/<notebook>/<run_id>/`, brought up to date after each task.

    The data set itself is given where it is the user's own, a `run_id` where its name is not to be a new one; see
    `results_folder` for where results lie, and `mirolib.experiment.injectors` for what can `disturb` the store.

    With `keep_store` store and last checkpoints are kept when the run ends; the store holds every training sample. A
    run that was stopped keeps them in any case. A checkpoint is saved after the first epoch, each task and, within
    one, after an epoch that ends `checkpoint_minutes` after the last; 0 saves one after each. With `resume`, `run_id`
    goes on from its last checkpoint; it begins if there is none, and is read if it has finished.

    Raises:
        InputError: If a parameter is unknown or out of range; the run is then marked failed. If the run exists already
            and is not to be resumed, or it is and still runs, or was made with other parameters.
        Interrupted: If the user stops it, a `KeyboardInterrupt` that says how it goes on.
        StorageError: If the disk is full or can't be written.
    """
    file = run_path(results, notebook, run_id or "none") / "run.json"
    if resume and file.exists() and load_run(file)["status"] == "finished":
        refuse_changes(run_id, load_asked(file), asdict(settings if dataset else located(settings)))
        return open_run(file.parent)
    run = RecordedRun(settings, dataset=dataset, notebook=notebook, run_id=run_id, results=results,
                      keep_store=keep_store, disturb=disturb, checkpoint_minutes=checkpoint_minutes,
                      resume=resume)  # fmt: skip
    for _ in run.steps(progress=progress):
        pass
    return run.result

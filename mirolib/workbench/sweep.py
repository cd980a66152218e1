"""Sweeps: a notebook over a grid of parameters and seeds. What is finished is skipped, what broke off goes on.

A sweep is `results/sweeps/<name>/sweep.json`, which lists its runs; these are ordinary runs under
`results/<notebook>/`, and whether one is finished is told by its own folder alone. Nothing else has to be kept in step:
after a crash, a power cut or Ctrl-C, the same call goes on.
"""

from __future__ import annotations

import html
import logging
import os
import shutil
import time
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
from jupyter_core.utils import ensure_event_loop
from tqdm.auto import tqdm

from mirolib.base.errors import InputError, Interrupted, RunError, StorageError
from mirolib.base.files import write_atomic
from mirolib.energy.doctor import readable
from mirolib.experiment.checkpoint import Checkpoints
from mirolib.memory.store_check import delete_store
from mirolib.workbench.fleet import run_on_workers
from mirolib.workbench.folder import owned, refuse_changes
from mirolib.workbench.kernels import warm
from mirolib.workbench.launch import NOTEBOOKS, declared_parameters, launch_from, stop_kernels
from mirolib.workbench.run import load_run, plain_name, read_run, results_folder
from mirolib.workbench.sweep_plan import Runs, SweepPlan, make_plan, read_entries

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

_ORPHAN_S = 20.0  # a kernel whose launcher is gone ends by itself within seconds
_RESULT = ("final_accuracy", "average_incremental_accuracy", "learning_work", "learning_energy_j", "energy_kind")


@dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep as its runs stand now: its plan, its folder, and a row a run in the plan's order.

    Rows are those of `load_runs`; what has not begun is `not started`.
    """

    plan: SweepPlan
    path: Path
    runs: pd.DataFrame

    @property
    def failed(self) -> pd.DataFrame:
        """The runs that were started and did not finish, with their sentence."""
        failed = self.table[~self.table["status"].isin(["finished", "not started", "running"])]
        return failed[[*self.plan.varied, "status", "error", "run_id"]]

    @property
    def table(self) -> pd.DataFrame:
        """What the runs were asked and what came out, in few columns."""
        return self.runs.reindex(columns=[*self.plan.varied, "status", *_RESULT, "error", "run_id"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.runs["status"].value_counts().items())
        return f"Sweep {self.plan.name}: {len(self.runs)} runs of {self.plan.notebook}: {counts}."

    def _repr_html_(self) -> str:
        shown = self.table.dropna(axis=1, how="all").drop(columns="run_id").to_html(index=False, float_format="%.4g")
        return f"<p>{html.escape(str(self))}</p>{shown}"


def sweep(
    notebook: str,
    *,
    grid: Mapping[str, Iterable[Any]] | None = None,
    seeds: int | Iterable[int] | None = None,
    parameters: Mapping[str, Any] | None = None,
    name: str = "",
    results: str | os.PathLike[str] | None = None,
    workers: int = 1,
    client: Client | None = None,
    rerun: str = "",
    progress: bool = True,
) -> Sweep:
    """Runs a notebook at every point of a grid, and returns when all runs have ended.

    Runs that are finished are skipped, those that failed too, unless asked for; what died or was interrupted goes on
    from its last checkpoint where the notebook can do so, and is run again otherwise. A name keeps a sweep together
    when its grid grows; by default it is made of the notebook and a digest of all the rest.

    The grid has values by parameter, of which every combination is run with each of the seeds, or so many, counted from
    0 (None leaves the seed to the notebook); all runs share `parameters`. On this machine `workers` runs go side by
    side; with a client of `dask.distributed` its workers do them, one at a time to a device (docs/sweeps.md).
    `rerun="failed"` runs what failed again, from its beginning.

    Raises:
        InputError: If the grid is not one for this notebook, another process is at this sweep, more than one worker
            is asked for where energy is read, or the workers of the client have other versions.
        StorageError: If the results can't be written, or are taken away meanwhile.
    """
    plan = make_plan(notebook, grid, seeds, parameters, name)
    return _run(plan, results_folder(results), workers, client, rerun, progress)


def sweep_file(path: str | Path, **how: Any) -> Sweep:
    """As `sweep`, with what to run from a YAML file (see `read_entries`) and how, from `results` on, by name."""
    return sweep(**read_entries(path), **how)


def _run(plan: SweepPlan, results: Path, workers: int, client: Client | None, rerun: str, progress: bool) -> Sweep:
    if rerun not in ("", "failed"):
        raise InputError(f"rerun is {rerun!r}; give failed, or leave it out.")
    if workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more.")
    if client is None and workers > 1 and (sources := readable(plan.energy_names())):
        raise InputError(
            f"Runs side by side would each count the other's joules ({', '.join(sources)}); "
            "set workers to 1, or the parameter energy to none."
        )
    path = results / "sweeps" / plan.name
    with owned(path, "lock", "Sweep {} is being run by another process; wait, or choose another name."):
        if (path / "sweep.json").exists() and (former := SweepPlan.read(path / "sweep.json").notebook) != plan.notebook:
            raise InputError(f"Sweep {plan.name} runs {former}, not {plan.notebook}; choose another name.")
        write_atomic(path / "sweep.json", plan.to_json())
        runs = plan.runs(results)
        todo = {run: parameters for run, parameters in runs.items() if _is_wanted(run, parameters, rerun)}
        logger.info("%s: %d of %d runs to do", plan.name, len(todo), len(runs))
        # a checkpoint stays on the machine that wrote it, and dask chooses which one a run goes to
        can_resume = client is None and "resume" in declared_parameters(plan.notebook)
        for run, parameters in todo.items():
            if run.exists() and not (can_resume and _state(run, parameters)["status"] in ("died", "interrupted")):
                _set_aside(run, path / "attempts")
        ended = _run_here(todo, workers) if client is None else run_on_workers(client, plan, todo)
        with closing(ended):
            bar = tqdm(ended, total=len(todo), desc=plan.name, unit="run", disable=not progress)
            try:
                for run in bar:
                    if not (path / "sweep.json").exists():
                        raise StorageError(f"{path} was taken away while it ran; leave the results folder in place.")
                    row = load_run(run / "run.json")
                    logger.info("%s: %s, accuracy %.5s", run.name, row["status"], row.get("final_accuracy"))
            except KeyboardInterrupt:
                raise Interrupted(
                    f"Sweep {plan.name} was stopped by the user, {bar.n} of {len(todo)} runs done; what they left is "
                    "kept, and the same call goes on."
                ) from None
    return load_sweep(plan.name, results)


def load_sweep(name: str, results: str | os.PathLike[str] | None = None) -> Sweep:
    """A sweep as its runs stand now, also while it runs; an `InputError` if there is none or its plan is damaged."""
    folder = results_folder(results)
    path = folder / "sweeps" / plain_name(name)
    try:
        plan = SweepPlan.read(path / "sweep.json")
    except OSError as error:
        known = ", ".join(sorted(file.parent.name for file in folder.glob("sweeps/*/sweep.json")))
        raise InputError(f"There is no sweep {name!r} in {folder}; there are: {known or 'none'}.") from error
    runs = plan.runs(folder).items()
    rows = [parameters | {"run_id": run.name} | _state(run, parameters) for run, parameters in runs]
    return Sweep(plan, path, pd.DataFrame(rows))


def _state(run: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    file = run / "run.json"
    if not file.exists():
        return {"status": "not started", "error": None, "path": str(run)}
    state = load_run(file)
    if state["status"] == "finished":
        try:  # anyone can launch a run under any name
            refuse_changes(run.name, read_run(file)["asked"], parameters)
        except (OSError, LookupError, TypeError, ValueError) as error:  # an InputError is a ValueError
            state |= {"status": "unvouched", "error": str(error)}
    return state


def _is_wanted(run: Path, parameters: dict[str, Any], rerun: str) -> bool:
    """Whether a run is to be done now; an `InputError` where what lies in its place must not be touched."""
    deadline = time.monotonic() + _ORPHAN_S
    while (state := _state(run, parameters))["status"] == "running":
        if time.monotonic() > deadline:
            raise InputError(f"Run {run.name} of this sweep is still running; wait for it, or remove its folder.")
        time.sleep(0.5)
    if state["status"] in ("unreadable", "unvouched") and not rerun:
        raise InputError(
            f"Run {run.name} of this sweep can't be vouched for "
            f"({state['error']}); repair it, or ask for rerun failed, which sets it aside."
        )
    return state["status"] not in ("finished", "failed") or (state["status"] == "failed" and rerun == "failed")


def _set_aside(run: Path, attempts: Path) -> None:
    """Moves what an earlier attempt left into the sweep's folder, without its store unless nobody knows what it is."""
    if load_run(run / "run.json")["status"] not in ("unreadable", "unvouched"):
        delete_store(run / "store")
        Checkpoints(run / "checkpoint").delete()
    attempts.mkdir(exist_ok=True)
    names = (attempts / f"{run.name}-{number}" for number in count(1))
    # not by a rename alone: the notebook's folder may lie on another disk
    shutil.move(run, next(name for name in names if not name.exists()))


def _run_here(todo: Runs, workers: int) -> Generator[Path]:
    """Runs what there is to do on this machine and yields each run's folder when it has ended."""
    others, waiting = {child.pid for child in psutil.Process().children()}, iter(todo.items())
    running: dict[Future[None], Path] = {}
    # each run has a process of its own: its kernel
    with ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory(prefix="miro-")))
        address = held.enter_context(warm(folder, NOTEBOOKS)) if len(todo) > 1 else ""
        pool = held.enter_context(ThreadPoolExecutor(workers))
        try:
            while True:
                # no more than can begin at once: an error must find nothing in the queue
                for run, parameters in islice(waiting, workers - len(running)):
                    running[pool.submit(_launch, run, parameters, address)] = run
                if not running:
                    return
                future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                run = running.pop(future)
                future.result()
                yield run
        except BaseException:  # Ctrl-C, or a full disk: the others must not go on alone
            while wait(running, timeout=1).not_done:
                stop_kernels(others)
            raise


def _launch(run: Path, parameters: dict[str, Any], address: str) -> None:
    """Runs the notebook of a run; one that fails is no reason to stop the others."""
    resume = run.exists()  # what can't be resumed has been set aside
    own = {"run_id": run.name, "results": str(run.parents[1])}
    try:
        with closing(ensure_event_loop()):  # that of this thread, which nbclient would leave open
            launch_from(address, run.parent.name, False, resume, parameters | own)
    except RunError as error:
        logger.warning("%s", error)

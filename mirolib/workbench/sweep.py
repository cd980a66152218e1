"""Sweeps: a notebook over a grid of parameters and seeds. What is finished is skipped, what broke off goes on.

A sweep is `results/sweeps/<name>/sweep.json`, which lists its runs; these are ordinary runs under
`results/<notebook>/`, and whether one is finished is told by its own folder alone. Nothing else has to be kept in step:
after a crash, a power cut or Ctrl-C, the same call goes on.
"""

from __future__ import annotations

import html
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
from jupyter_core.utils import ensure_event_loop
from tqdm.auto import tqdm

from mirolib.base.errors import InputError, RunError, StorageError
from mirolib.base.files import write_atomic
from mirolib.energy.doctor import readable
from mirolib.workbench.folder import make_run_folder, plain_name, results_folder
from mirolib.workbench.launch import declared_parameters, launch
from mirolib.workbench.run import load_run
from mirolib.workbench.sweep_plan import Member, SweepPlan, make_plan, read_plan

if TYPE_CHECKING:
    from distributed import Client

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_ORPHAN_S = 20.0  # a kernel whose launcher is gone ends by itself within seconds
_INTERRUPT_S = 10.0
_LARGE = ("store", "checkpoint")  # what is not worth keeping of a run that did not finish
_RESULT = ("final_accuracy", "average_incremental_accuracy", "learning_work", "learning_energy_j", "energy_kind")


@dataclass(frozen=True)
class Sweep:
    """A sweep as its runs stand now.

    Attributes:
        plan: What it runs.
        path: Its folder.
        runs: One row a run, as `load_runs` gives it, in the order of the plan; what has not begun is `not started`.
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

    def __str__(self) -> str:
        """How far it is, in one sentence."""
        counts = ", ".join(f"{count} {status}" for status, count in self.runs["status"].value_counts().items())
        return f"Sweep {self.plan.name}: {len(self.runs)} runs of {self.plan.notebook}: {counts}."

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

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
    when its grid grows.

    Args:
        notebook: The notebook to run, such as `10_run`.
        grid: Values by parameter; every combination is run.
        seeds: Seeds of every combination, or their number, counted from 0; None leaves the seed to the notebook.
        parameters: Parameters that all runs share.
        name: Name of the sweep; by default made of the notebook and a digest of all the rest.
        results: The folder of all results; see `results_folder`.
        workers: Runs side by side on this machine.
        client: A client of `dask.distributed`: the runs go to its workers, one to a device at a time; see
            docs/sweeps.md.
        rerun: `failed` runs what failed again, from its beginning.
        progress: Whether to show a progress bar with the time left.

    Raises:
        InputError: If the grid is not one for this notebook, another process is at this sweep, more than one worker
            is asked for where energy is read, or the workers of the client have other versions.
        StorageError: If the results can't be written, or are taken away meanwhile.
    """
    plan = make_plan(notebook, grid, seeds, parameters, name)
    return run_plan(plan, results=results, workers=workers, client=client, rerun=rerun, progress=progress)


def sweep_file(
    path: str | Path,
    *,
    results: str | os.PathLike[str] | None = None,
    workers: int = 1,
    client: Client | None = None,
    rerun: str = "",
    progress: bool = True,
) -> Sweep:
    """As `sweep`, with what to run from a YAML file; see `read_plan`."""
    return run_plan(read_plan(path), results=results, workers=workers, client=client, rerun=rerun, progress=progress)


def run_plan(
    plan: SweepPlan,
    *,
    results: str | os.PathLike[str] | None = None,
    workers: int = 1,
    client: Client | None = None,
    rerun: str = "",
    progress: bool = True,
) -> Sweep:
    """As `sweep`, with a plan that is made already."""
    if rerun not in ("", "failed"):
        raise InputError(f"rerun is {rerun!r}; give failed, or leave it out.")
    if client is None:
        _check_workers(plan, workers)
    folder = results_folder(results)
    path = _sweep_folder(plan.name, folder)
    make_run_folder(path)
    with _alone(path, plan.name):
        _write_plan(plan, path)
        todo = [member for member in plan.members if _is_wanted(plan, member, folder, rerun)]
        logger.info("%s: %d of %d runs to do", plan.name, len(todo), len(plan.members))
        for member in todo:
            if client is not None or not _can_resume(plan, member, folder):
                _set_aside(folder / plan.notebook / member.run_id, path)
        if client is None:
            ended = _run_here(plan, todo, folder, workers)
        else:
            from mirolib.workbench.fleet import run_there

            ended = run_there(client, plan, todo, folder, path)
        with closing(ended):
            for _ in tqdm(ended, total=len(todo), desc=plan.name, unit="run", disable=not progress):
                if not (path / "sweep.json").exists():
                    raise StorageError(f"{path} was taken away while the sweep ran; leave the results folder in place.")
    return load_sweep(plan.name, results)


def load_sweep(name: str, results: str | os.PathLike[str] | None = None) -> Sweep:
    """A sweep as its runs stand now; also while it runs.

    Raises:
        InputError: If there is no such sweep or its `sweep.json` is damaged.
    """
    folder = results_folder(results)
    path = _sweep_folder(name, folder)
    try:
        plan = SweepPlan.read(path / "sweep.json")
    except OSError as error:
        known = ", ".join(sorted(file.parent.name for file in folder.glob("sweeps/*/sweep.json")))
        raise InputError(f"There is no sweep {name!r} in {folder}; there are: {known or 'none'}.") from error
    rows = [member.parameters | {"run_id": member.run_id} | _state(plan, member, folder) for member in plan.members]
    return Sweep(plan, path, pd.DataFrame(rows))


def _sweep_folder(name: str, folder: Path) -> Path:
    return folder / "sweeps" / plain_name(name)


def _write_plan(plan: SweepPlan, path: Path) -> None:
    """Leaves the plan in the sweep's folder, in the place of a smaller or former one."""
    if (path / "sweep.json").exists():
        former = SweepPlan.read(path / "sweep.json")
        if former.notebook != plan.notebook:
            raise InputError(f"Sweep {plan.name} runs {former.notebook}, not {plan.notebook}; choose another name.")
        if left := {member.run_id for member in former.members} - {member.run_id for member in plan.members}:
            logger.info("%s: %d runs of its former grid stay in the results", plan.name, len(left))
    write_atomic(path / "sweep.json", plan.to_json())


@contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Holds the sweep's lock, which the system takes back when the process ends, however it ends."""
    try:
        stream = (path / "lock").open("wb")
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}. Make it writable.") from error
    with stream:
        if sys.platform != "win32":
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(
                    f"Sweep {name} is being run by another process; wait until it has ended, or choose another name."
                ) from error
        yield


def _check_workers(plan: SweepPlan, workers: int) -> None:
    """Refuses runs side by side that would measure each other's energy."""
    if workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more.")
    if workers > 1 and (sources := readable(plan.energy_names())):
        raise InputError(
            f"Runs side by side would each count the other's joules ({', '.join(sources)}); "
            "set workers to 1, or the parameter energy to none."
        )


def _state(plan: SweepPlan, member: Member, folder: Path) -> dict[str, Any]:
    """The row of a run as it stands now."""
    file = folder / plan.notebook / member.run_id / "run.json"
    return load_run(file) if file.exists() else {"status": "not started", "error": None, "path": str(file.parent)}


def _is_wanted(plan: SweepPlan, member: Member, folder: Path, rerun: str) -> bool:
    """Whether a run is to be done now.

    Raises:
        InputError: If it is running elsewhere, or a run that is damaged or of other parameters lies in its place.
    """
    deadline = time.monotonic() + _ORPHAN_S
    while (status := _state(plan, member, folder)["status"]) == "running":
        if time.monotonic() > deadline:
            raise InputError(
                f"Run {member.run_id} of this sweep is still running; wait for it, or, "
                "if its machine is gone, remove its folder."
            )
        time.sleep(0.5)
    if status == "unreadable" and not rerun:
        raise InputError(
            f"Run {member.run_id} of this sweep is damaged or of another version "
            f"({_state(plan, member, folder)['error']}); repair it, or ask for rerun failed, which sets it aside."
        )
    if status == "finished":
        _check_same(member, folder / plan.notebook / member.run_id)
    return status != "finished" and (status != "failed" or rerun == "failed")


def _check_same(member: Member, run: Path) -> None:
    """Refuses a finished run whose notebook was given other parameters than the member's."""
    try:
        page = json.loads((run / "notebook.ipynb").read_text(encoding="utf-8"))
        given = dict(page["metadata"]["papermill"]["parameters"])
        names = {*given, *member.parameters} - {"run_id", "results", "resume", "data", "energy"}  # absolute paths
        same = all(given.get(name) == member.parameters.get(name) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return  # without its notebook, its name stands for it: it is a digest of the parameters
    if not same:
        raise InputError(f"In {run} lies a run of other parameters; move it away, or give the sweep another name.")


def _can_resume(plan: SweepPlan, member: Member, folder: Path) -> bool:
    """Whether a run that broke off can go on from a checkpoint."""
    stopped = _state(plan, member, folder)["status"] in ("died", "interrupted")
    return stopped and "resume" in declared_parameters(plan.notebook)


def _set_aside(run: Path, path: Path) -> None:
    """Moves what an earlier attempt left into the sweep's folder, without its store unless nobody knows what it is."""
    if not run.exists():
        return
    for name in _LARGE if load_run(run / "run.json")["status"] != "unreadable" else ():
        shutil.rmtree(run / name, ignore_errors=True)
    attempts = path / "attempts"
    attempts.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in attempts.glob(f"{run.name}-*"))
    run.rename(attempts / f"{run.name}-{number}")


def _run_here(plan: SweepPlan, todo: list[Member], folder: Path, workers: int) -> Generator[Member]:
    """Runs members on this machine and yields each when it has ended."""
    others, waiting = {child.pid for child in psutil.Process().children()}, iter(todo)
    running: dict[Future[None], Member] = {}
    with ThreadPoolExecutor(workers) as pool:  # each run has a process of its own: its kernel
        try:
            while True:
                for member in islice(waiting, workers - len(running)):
                    running[pool.submit(_launch, plan, member, folder)] = member
                if not running:
                    return
                future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                member = running.pop(future)
                future.result()
                yield member
        except BaseException:  # Ctrl-C, or a full disk: the others must not go on alone
            while wait(running, timeout=1).not_done:
                _stop_kernels(others)
            raise


def _launch(plan: SweepPlan, member: Member, folder: Path) -> None:
    """Runs a member; one that fails is no reason to stop the others."""
    resume = (folder / plan.notebook / member.run_id).exists()  # what can't be resumed has been set aside
    own = {"run_id": member.run_id, "results": str(folder)}
    try:
        with closing(ensure_event_loop()):  # that of this thread, which nbclient would leave open
            launch(plan.notebook, progress=False, resume=resume, **member.parameters, **own)
    except RunError as error:
        logger.warning("%s", error)


def _stop_kernels(others: set[int]) -> None:
    """Interrupts the kernels of this process but for some, as Ctrl-C would; those that don't heed it are killed.

    Args:
        others: Numbers of processes that are not to be stopped.
    """
    kernels = [
        child
        for child in psutil.Process().children()
        if child.pid not in others and "ipykernel_launcher" in " ".join(child.cmdline())
    ]
    for kernel in kernels:
        kernel.send_signal(signal.SIGINT)
    _, deaf = psutil.wait_procs(kernels, timeout=_INTERRUPT_S)
    for kernel in deaf:
        kernel.kill()

"""A sweep's runs on the workers of `dask.distributed`: one to a device at a time, results come back as files.

Dask executes what its peers send: use it over loopback, an SSH tunnel or TLS, among trusted machines (docs/sweeps.md).
"""

from __future__ import annotations

import hashlib
import json
import platform
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirolib.base.errors import InputError, RunError, StorageError
from mirolib.base.files import TEMPORARY
from mirolib.energy.doctor import readable
from mirolib.workbench.folder import RunFolder
from mirolib.workbench.launch import launch, notebook_path, stop_kernels
from mirolib.workbench.run import load_run
from mirolib.workbench.sweep_plan import Runs, SweepPlan

if TYPE_CHECKING:
    from distributed import Client

_one_at_a_time = threading.Lock()  # a worker may have several threads, and its device still trains one run


def connection(address: str) -> Client:
    """A client of the scheduler at an address such as `tcp://127.0.0.1:8786` or `tls://workstation:8786`."""
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError('Several machines need dask.distributed: pip install "mirolib[dask]".') from error
    try:
        return Client(address, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"No scheduler answers at {address} ({error}); start one, see docs/sweeps.md.") from error


def versions(notebook: str) -> dict[str, str]:
    """What must be the same on every machine of a sweep, so that its runs can be compared."""
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    code = hashlib.sha256(b"".join(f"{file.relative_to(package)}\0".encode() + file.read_bytes() for file in files))
    return {
        "mirolib": f"{version('mirolib')} (source {code.hexdigest()[:12]})",
        "torch": version("torch").split("+")[0],  # builds for CPU and for each CUDA count as one
        "python": ".".join(platform.python_version_tuple()[:2]),
        f"notebook {notebook}": hashlib.sha256(notebook_path(notebook).read_bytes()).hexdigest()[:12],
    }


def worker_facts(notebook: str, energy: set[str]) -> dict[str, Any]:
    """What a worker is, asked on the worker itself."""
    return {"versions": versions(notebook), "host": socket.gethostname(), "reads": readable(energy)}


def run_on_worker(notebook: str, run_id: str, parameters: dict[str, Any], expected: dict[str, str]) -> dict[str, bytes]:
    """Runs a notebook on the worker this is called on, and returns the files of its run by name."""
    # here too, for a worker that has come since the others were asked
    _check_versions(socket.gethostname(), versions(notebook), expected)
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="miro-run-") as results:
        with suppress(RunError):  # its files say so
            launch(notebook, progress=False, run_id=run_id, results=results, **parameters)
        run = Path(results) / notebook / run_id
        # store and checkpoint are folders, and stay
        files = {file.name: file.read_bytes() for file in sorted(run.glob("[!.]*")) if file.is_file()}
        row = load_run(run / "run.json")
        if row["status"] == "died":  # which only the machine it ran on can see
            died = json.loads(files["run.json"]) | {"status": "died", "error": row["error"]}
            files["run.json"] = f"{json.dumps(died, indent=1)}\n".encode()
        return files


def _check_versions(where: str, found: dict[str, str], expected: dict[str, str]) -> None:
    for name, ours in expected.items():
        if (theirs := found.get(name)) != ours:
            raise InputError(f"Worker {where} has {name} {theirs}, here it is {ours}; install the same on both.")


def run_on_workers(client: Client, plan: SweepPlan, todo: Runs) -> Generator[Path]:
    """Runs a sweep's notebook on the workers of a client and yields each run's folder when its files are here.

    A run whose worker is lost is given to another one.
    """
    from distributed import CancelledError, WorkerPlugin, as_completed

    class StopKernels(WorkerPlugin):
        """Ends the kernels of a worker that ends, as one does whose scheduler is gone."""

        def teardown(self, worker: object) -> None:
            stop_kernels()

    expected = versions(plan.notebook)
    try:
        workers = client.run(worker_facts, plan.notebook, plan.energy_names())
    except Exception as error:  # of any kind: another version may lack the function itself
        raise InputError(f"A worker can't tell its versions ({error!r}); install this mirolib on each.") from error
    if not workers:
        raise InputError("The scheduler has no workers; start one on each device, see docs/sweeps.md.")
    hosts = Counter(worker["host"] for worker in workers.values())
    for address, worker in workers.items():
        _check_versions(address, worker["versions"], expected)
        if worker["reads"] and hosts[worker["host"]] > 1:
            raise InputError(
                f"{hosts[worker['host']]} workers on {worker['host']} would each count the other's joules "
                f"({', '.join(worker['reads'])}); start one there, or set the parameter energy to none."
            )
    client.register_plugin(StopKernels())
    # not pure: dask would hand back what it knows of a former attempt
    futures = {
        client.submit(run_on_worker, plan.notebook, run.name, values, expected, pure=False): run
        for run, values in todo.items()
    }
    try:
        for future in as_completed(futures):
            run = futures[future]
            try:
                files = future.result()
            except CancelledError as error:
                raise RunError("The scheduler is gone; start it and its workers, then run the sweep again.") from error
            except Exception as error:  # the other runs go on
                folder = RunFolder(plan.notebook, todo[run], results=run.parents[1], run_id=run.name)
                folder.end("failed", f"{type(error).__name__}: {error}")
            else:
                write_run(files, run)
            yield run
    finally:
        is_left = not all(future.done() for future in futures)
        client.cancel(list(futures))
        if is_left:  # a task that has begun can't be cancelled, but its kernel be stopped
            client.run(stop_kernels)


def write_run(files: Mapping[str, bytes], run: Path) -> None:
    """Writes the files of a run that came from elsewhere, whole or not at all; a `StorageError` if it can't."""
    try:
        run.parent.mkdir(exist_ok=True)
        # beside its place, or it might have to go from one disk to another
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=run.parent, ignore_cleanup_errors=True) as folder:
            whole = Path(folder) / "run"
            whole.mkdir()
            for name, content in files.items():
                (whole / name).write_bytes(content)
            whole.rename(run)
    except OSError as error:
        raise StorageError(f"{run} could not be written: {error.strerror}. Free space, then run again.") from error

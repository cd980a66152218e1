"""A sweep's runs on the workers of `dask.distributed`: one to a device at a time, results come back as files.

Dask executes what its peers send: use it over loopback, an SSH tunnel or TLS, among machines that trust each other; see
docs/sweeps.md. What comes back is checked all the same: names that could lead elsewhere are refused, sizes are bounded,
and a run appears in the results whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirolib.base.errors import InputError, RunError, StorageError
from mirolib.base.files import write_atomic
from mirolib.energy.doctor import readable
from mirolib.workbench.folder import SUMS, RunFolder
from mirolib.workbench.launch import launch, notebook_path
from mirolib.workbench.run import load_run
from mirolib.workbench.sweep_plan import Member, SweepPlan

if TYPE_CHECKING:
    from distributed import Client

DEVICE = "device"
"""The resource that a worker may announce (`--resources device=1`): a run takes one."""

_TABLES = (".csv", ".json", ".ipynb")
_MOST_FILES, _MOST_BYTES = 50, 256 << 20
_one_at_a_time = threading.Lock()  # in a worker with several threads


@contextmanager
def connection(address: str) -> Iterator[Client]:
    """A client of the scheduler at an address such as `tcp://127.0.0.1:8786` or `tls://workstation:8786`.

    Raises:
        InputError: If dask.distributed is missing or no scheduler answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError('Several machines need dask.distributed: pip install "mirolib[dask]".') from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"No scheduler answers at {address} ({error}); start one, see docs/sweeps.md.") from error
    with client:
        yield client


def versions(notebook: str) -> dict[str, str]:
    """What must be the same on every machine of a sweep, so that its runs can be compared."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        code.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    page = hashlib.sha256(notebook_path(notebook).read_bytes())
    return {
        "mirolib": f"{version('mirolib')} (source {code.hexdigest()[:12]})",
        "torch": version("torch").split("+")[0],  # builds for CPU and for each CUDA count as one
        "python": ".".join(platform.python_version_tuple()[:2]),
        f"notebook {notebook}": page.hexdigest()[:12],
    }


def probe(notebook: str, energy: set[str], dask_worker: Any = None) -> dict[str, Any]:
    """What a worker is, asked on the worker itself."""
    return {
        "versions": versions(notebook),
        "host": socket.gethostname(),
        "threads": dask_worker.state.nthreads,
        "device": dask_worker.state.total_resources.get(DEVICE),
        "reads": readable(energy),
    }


def run_member(notebook: str, member: Member, expected: dict[str, str]) -> dict[str, bytes]:
    """Runs a member on the worker this is called on, and returns the files of its run by name.

    Raises:
        InputError: If the worker has other versions than the one who asks.
        StorageError: If the run can't be written there.
    """
    _same_versions(socket.gethostname(), versions(notebook), expected)
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="miro-run-") as results:
        with suppress(RunError):  # its files say so
            launch(notebook, progress=False, run_id=member.run_id, results=results, **member.parameters)
        run = Path(results) / notebook / member.run_id
        _settle(run / "run.json")
        return {file.name: file.read_bytes() for file in sorted(run.iterdir()) if _is_known(file.name)}


def _is_known(name: str) -> bool:
    """Whether a file of this name belongs to a run; it leads nowhere else then."""
    return Path(name).name == name and (name == SUMS or Path(name).suffix in _TABLES)


def _settle(file: Path) -> None:
    """Writes down that a run has died, which only the machine it ran on can see."""
    row = load_run(file)
    if row["status"] == "died":
        run = json.loads(file.read_text(encoding="utf-8"))
        write_atomic(file, json.dumps(run | {"status": "died", "error": row["error"]}, indent=1) + "\n")


def _same_versions(where: str, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    for name, ours in expected.items():
        if found.get(name) != ours:
            raise InputError(
                f"Worker {where} has {name} {found.get(name)}, here it is {ours}; install the same on both."
            )


def run_there(client: Client, plan: SweepPlan, todo: list[Member], folder: Path, path: Path) -> Generator[Member]:
    """Runs members on the workers of a client and yields each when its files are here.

    A run whose worker is lost is given to another one.

    Args:
        client: The client.
        plan: The sweep.
        todo: The runs to do.
        folder: The folder of all results.
        path: The sweep's folder, where runs lie while they arrive.

    Raises:
        InputError: If the workers have other versions, or would run several runs on one device.
        RunError: If the scheduler is lost.
        StorageError: If a run can't be written.
    """
    from distributed import CancelledError, as_completed

    expected = versions(plan.notebook)
    resources = _agree(client, plan, expected)
    attempt = secrets.token_hex(4)
    futures = {
        client.submit(
            run_member, plan.notebook, member, expected,
            key=f"{member.run_id}-{attempt}", resources=resources, pure=False,
        ): member
        for member in todo
    }  # fmt: skip
    try:
        for future in as_completed(futures):
            member, error = futures[future], future.exception()
            if isinstance(error, CancelledError):
                raise RunError("The scheduler is gone; start it and its workers, then run the sweep again.") from error
            try:
                if error is not None:
                    raise InputError(f"{type(error).__name__}: {error}")
                receive(future.result(), folder / plan.notebook / member.run_id, path)
            except InputError as refused:  # the other runs go on
                _record_failure(plan, member, folder, str(refused))
            yield member
    finally:
        client.cancel(list(futures))


def _agree(client: Client, plan: SweepPlan, expected: dict[str, str]) -> dict[str, float] | None:
    """Sees to it that the workers fit the sweep; the resources that each of its runs takes."""
    try:
        workers = client.run(probe, plan.notebook, plan.energy_names())
    except Exception as error:
        raise InputError(
            f"A worker could not be asked for its versions ({type(error).__name__}: {error}); "
            "install this version of mirolib on each."
        ) from error
    if not workers:
        raise InputError("The scheduler has no workers; start one on each device, see docs/sweeps.md.")
    hosts = Counter(worker["host"] for worker in workers.values())
    for address, worker in workers.items():
        _same_versions(address, worker["versions"], expected)
        if (worker["device"] is None and worker["threads"] != 1) or worker["device"] not in (None, 1):
            raise InputError(
                f"Worker {address} would run {worker['device'] or worker['threads']:g} runs at once; start it with "
                "--nthreads 1, or with --resources device=1."
            )
        if worker["reads"] and hosts[worker["host"]] > 1:
            raise InputError(
                f"{hosts[worker['host']]} workers on {worker['host']} would each count the other's joules "
                f"({', '.join(worker['reads'])}); start one there, or set the parameter energy to none."
            )
    announced = {worker["device"] for worker in workers.values()}
    return {DEVICE: 1} if announced == {1} else None


def receive(files: Mapping[str, bytes], run: Path, path: Path) -> None:
    """Writes the files of a run that came from elsewhere, whole or not at all.

    Args:
        files: Contents by name.
        run: The folder the run gets.
        path: A folder on the same disk for what is still arriving.

    Raises:
        InputError: If a name could lead elsewhere or is no run's, or there is too much.
        StorageError: If they can't be written.
    """
    if len(files) > _MOST_FILES or sum(map(len, files.values())) > _MOST_BYTES or "run.json" not in files:
        raise InputError(
            f"What came back as {run.name} is no run of at most {_MOST_FILES} files, {_MOST_BYTES:,} bytes."
        )
    for name in files:
        if not _is_known(name):
            raise InputError(f"What came back as {run.name} holds {name!r}, which is no file of a run.")
    try:
        with tempfile.TemporaryDirectory(prefix="arriving-", dir=path, ignore_cleanup_errors=True) as arriving:
            whole = Path(arriving) / "run"
            whole.mkdir()
            for name, content in files.items():
                (whole / name).write_bytes(content)
            run.parent.mkdir(exist_ok=True)
            whole.rename(run)
    except OSError as error:
        raise StorageError(f"{run} could not be written: {error.strerror}. Free space, then run again.") from error


def _record_failure(plan: SweepPlan, member: Member, folder: Path, sentence: str) -> None:
    """Leaves a failed run where none came back."""
    RunFolder(plan.notebook, member.parameters, results=folder, run_id=member.run_id).end("failed", sentence)

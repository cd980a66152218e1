"""Kernels that notebooks are launched in: of this interpreter, whatever kernels a user has installed.

Importing the library takes a kernel longer than a short run. So a sweep has one process that has imported it and runs
nothing, from which each kernel is forked: it begins warm, and what a run leaves behind ends with its own process.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import Unicode
from traitlets.config import Config

_WARM = "mirolib.workbench.kernels"
# imported only when first needed, which most runs soon do
_LATE = ("ipykernel.kernelapp", "mirolib.widgets", "plotly.io", "sklearn.datasets", "torch._dynamo")
_COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class Kernel(AsyncKernelManager):
    """A kernel whose process writes to a file, forked where there is a `Warm` process at `warm`."""

    log_file = Unicode(os.devnull, config=True)
    warm = Unicode("", config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        """That of this interpreter."""
        return KernelSpec(argv=_COMMAND, display_name="Python 3", language="python")

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        pid = 0
        if self.warm:
            with socket.socket(socket.AF_UNIX) as asked, suppress(OSError):  # where it has died: a cold one will do
                asked.connect(self.warm)
                asked.sendall(json.dumps([kernel_cmd[3:], self.log_file]).encode())
                pid = int(asked.recv(64) or 0)
        if pid:
            local: Any = self.provisioner
            local.process, local.pid, local.pgid = _Forked(pid), pid, pid
            return
        with open(self.log_file, "ab") as log:
            await super()._async_launch_kernel(kernel_cmd, stdout=log, stderr=log, **kw)


class _Forked(psutil.Process):
    """The process of a kernel that another has forked, as `subprocess.Popen` shows one's own."""

    stdin = stdout = stderr = None

    def send_signal(self, sig: int) -> None:
        """As `Popen` does, which is silent where it has ended."""
        with suppress(psutil.NoSuchProcess):
            super().send_signal(sig)

    def poll(self) -> int | None:
        """None as long as it runs."""
        with suppress(psutil.NoSuchProcess):
            return None if self.is_running() and self.status() != psutil.STATUS_ZOMBIE else 0
        return 0


def kernel_options(folder: Path, warm: str) -> dict[str, Any]:
    """What papermill takes to use a `Kernel` whose sockets and log lie in a folder."""
    own = {"transport": "ipc", "ip": str(folder / "k"), "log_file": str(folder / "log"), "warm": warm}
    named = {"kernel_name": "python3", "language": "python"}  # whatever the notebook was saved with
    return named | {"kernel_manager_class": Kernel, "config": Config(Kernel=own)}


def last_words(folder: Path) -> str:
    """The last line that a kernel's process wrote to its log in a folder, which says why it ended; may be empty."""
    lines = log.read_text(errors="replace").split("\n") if (log := folder / "log").exists() else []
    return next(filter(None, map(str.strip, reversed(lines))), "")


@contextmanager
def warm(folder: Path, home: Path) -> Iterator[str]:
    """A process to fork kernels from, which work in the folder `home`: its address, or "" where forking is not safe."""
    if sys.platform != "linux":  # macOS has libraries that don't survive it
        yield ""
        return
    address = str(folder / "warm")
    with (folder / "warm.log").open("wb") as log:
        command = [sys.executable, "-m", _WARM, address, "ipykernel_launcher"]
        process = subprocess.Popen(command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                   start_new_session=True)  # fmt: skip
    try:
        process.stdout.readline()  # type: ignore[union-attr]
        yield address
    finally:
        process.kill()
        process.communicate()


def kernels_of(process: int | None = None) -> list[psutil.Process]:
    """The kernels that a process, or this one, has started, or forked from what it has started."""
    found, children = [], psutil.Process(process).children(recursive=True)
    for child in children:
        with suppress(psutil.Error):  # of one that has ended since
            is_kernel = "ipykernel_launcher" in " ".join(child.cmdline())
            # a forked one looks as its parent does, which is no kernel itself
            found += [child] * (is_kernel and (_WARM not in child.cmdline() or child.parent() in children))
    return found


def _serve(address: str) -> None:
    """Forks a kernel for each connection, until whoever began this process has gone."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        sys.stdout.write("\n")
        sys.stdout.flush()
        os.environ["JPY_PARENT_PID"] = str(os.getpid())  # a kernel ends with its parent; read as ipykernel is imported
        library = import_module("mirolib")
        for name in library.__all__:
            getattr(library, name)
        for name in _LATE:
            import_module(name)
        library.plots.figure("")._repr_mimebundle_()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that have ended
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            asked, _ = server.accept()
            with asked:
                arguments, log = json.loads(asked.recv(1 << 16))
                if (pid := os.fork()) == 0:
                    break
                asked.sendall(str(pid).encode())
        else:
            os._exit(0)  # at once, since that ends orphans too
    _become_kernel(arguments, log)


def _become_kernel(arguments: list[str], log: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    sys.argv = ["ipykernel_launcher", *arguments]
    import_module("ipykernel.kernelapp").launch_new_instance()
    atexit._run_exitfuncs()
    os._exit(0)  # taking apart what was imported takes seconds, as each page that is touched is copied first


if __name__ == "__main__":
    _serve(sys.argv[1])

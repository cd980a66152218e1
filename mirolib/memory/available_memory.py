"""How much memory this process may still take, and what to say when it is not enough."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mirolib.base.errors import InputError

_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 writes a number of this order for no limit
_FILES = (  # folder, limit, usage, and the pages of files that are counted in it; of these the mapped, which stay
    ("", "memory.max", "memory.current", ("active_file", "inactive_file", "file_mapped")),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     ("total_active_file", "total_inactive_file", "total_mapped_file")),
)  # fmt: skip
_SMALLER = "smaller buffers or batches, or memory_budget='system', which adapts"


def available_bytes() -> int:
    """Bytes that this process could still take: of the machine, of its control groups and of its own limits."""
    process = psutil.Process().memory_info()
    available = [psutil.virtual_memory().available, *_left_in_groups()]
    for kind, used in ((resource.RLIMIT_AS, process.vms), (resource.RLIMIT_DATA, getattr(process, "data", 0))):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            available.append(max(0, most - used))
    return min(available)


def _left_in_groups() -> Iterator[int]:
    """What each control group that this process is in leaves, those above it included: the narrowest counts."""
    for folder, limit, usage, cache in _FILES:
        own = _GROUPS / folder / _membership(folder).lstrip("/")
        for group in (own, *own.parents):
            try:
                most, used = int((group / limit).read_text()), int((group / usage).read_text())
            except (OSError, ValueError):  # not this version of control groups, or "max"
                most = _UNLIMITED
            if most < _UNLIMITED:
                # usage counts pages of files read and written, such as the store: the system takes those back
                yield max(0, most - max(0, used - _cached(group / "memory.stat", cache)))
            if group == _GROUPS / folder:
                break


def _cached(stat: Path, names: tuple[str, ...]) -> int:
    """Bytes of a control group's pages of files that no process has mapped; 0 where it does not tell."""
    try:
        counts = dict(line.split() for line in stat.read_text().splitlines())
        active, inactive, mapped = (int(counts.get(name, 0)) for name in names)
        return max(0, active + inactive - mapped)
    except (OSError, ValueError):
        return 0


def _membership(controller: str) -> str:
    """The control group of this process: of version 2 where no controller is named."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return ""
    return next((path for _, names, path in lines if controller in names.split(",")), "")


def check_available(size_bytes: int, what: str, advice: str = _SMALLER) -> None:
    """Sees to it that there is memory for `what` before it is filled: an `InputError` else, which says `advice`."""
    # later is too late: the system ends the process that fills it without a word
    if size_bytes > (1 << 20) and size_bytes > (available := available_bytes()):
        need = f"{size_bytes / 1e6:,.0f} MB, and {available / 1e6:,.0f} MB are available"
        raise InputError(f"{what} needs {need}; choose {advice}.")


@contextmanager
def explain_memory_errors(what: str) -> Iterator[None]:
    """Turns an allocation that fails, NumPy's or PyTorch's, into a sentence; an `InputError` if memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch has no class of its own for the CPU
        if isinstance(error, RuntimeError) and not re.search("can't allocate memory|out of memory", str(error)):
            raise
        raise InputError(f"{what} needs more memory than this process may have; choose {_SMALLER}.") from error

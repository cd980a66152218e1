"""Which process a run belongs to, on which machine, and whether that process still lives."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("mirolib", "torch", "torchvision", "numpy", "pandas", "lmdb")
"""Packages whose version may change a run's numbers."""

LIVING: set[Path] = set()
"""Folders of this process's runs that have not ended."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def is_alive(environment: dict[str, Any], path: Path) -> bool:
    """Whether a run's process still lives, as far as can be told from here, whatever was done to the clock since.

    Args:
        environment: What `environment_stamp` gave the run.
        path: The run's folder.
    """
    if environment["host"] != socket.gethostname():
        return True  # perhaps: only its own machine can tell
    if environment["pid"] == os.getpid():
        return path in LIVING
    try:
        started_s = _started_s(int(environment["pid"]))
    except psutil.NoSuchProcess:
        return False
    # after a restart, or by wrapping around, another process may have got its number
    return environment.get("boot") == _boot() and abs(started_s - environment["process_started"]) <= 1


def _boot() -> str:
    """Which start of the system this is; empty where it doesn't tell."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _started_s(pid: int) -> float:
    """When a process began, in seconds of this start of the system, or of the wall clock where it doesn't tell."""
    try:
        # not psutil's: it adds the wall clock of now, which a board without a battery sets late
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold anything
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float(psutil.Process(pid).create_time())


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
        # these three are what `is_alive` knows the process by
        "pid": os.getpid(),
        "boot": _boot(),
        "process_started": _started_s(os.getpid()),
        **{package: version(package) for package in PACKAGES},
    }

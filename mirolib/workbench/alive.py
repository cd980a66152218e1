"""Whether a process that left its stamp still lives, whatever was done to the clock since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_stamp() -> dict[str, object]:
    """What `has_ended` needs to know this process again.

    Returns:
        `pid`; `boot`, which start of the system this is; `process_started`, seconds of it when the process began. A
        system that tells no such thing leaves `boot` empty, and the seconds are those of its wall clock.
    """
    return {"pid": os.getpid(), "boot": _boot(), "process_started": _started_s(os.getpid())}


def has_ended(stamp: dict[str, Any]) -> bool:
    """Whether the process of such a stamp, made on this machine, is gone."""
    if stamp.get("boot") != _boot():
        return True
    try:
        started_s = _started_s(int(stamp["pid"]))
    except psutil.NoSuchProcess:
        return True
    return abs(started_s - stamp["process_started"]) > 1  # another process has got its number


def _boot() -> str:
    """A text that is another one after each start of the system."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _started_s(pid: int) -> float:
    """When a process began; psutil would add the wall clock of now, which a board without a battery sets late.

    Raises:
        psutil.NoSuchProcess: If there is none of this number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold anything
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float(psutil.Process(pid).create_time())

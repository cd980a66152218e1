"""Kernels of notebooks, and what befalls them while they train."""

import threading
from pathlib import Path

import psutil
from watching import until


def kernels(of: int | None = None) -> list[psutil.Process]:
    """Those that a process, or this one, has started."""
    found = psutil.Process(of).children(recursive=True)
    return [child for child in found if "ipykernel_launcher" in " ".join(child.cmdline())]


def kill(which: list[psutil.Process]) -> None:
    for one in which:
        one.kill()


def trained(results: Path, runs: int = 1) -> bool:
    """Whether the n-th run has learnt a task."""
    return len(list(results.glob("10_run/*/tasks.csv"))) >= runs


def once(condition, act) -> threading.Thread:
    """Acts from a thread as soon as a condition is true."""

    def wait() -> None:
        until(condition)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread

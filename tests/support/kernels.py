"""Kernels of notebooks, and what befalls them while they train."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil


def kernels(of: int | None = None) -> list[psutil.Process]:
    """Those that a process, or this one, has started."""
    found = []
    for child in psutil.Process(of).children(recursive=True):
        with suppress(psutil.Error):  # of one that has ended since
            found += [child] * ("ipykernel_launcher" in " ".join(child.cmdline()))
    return found


def kill(which: list[psutil.Process]) -> None:
    for one in which:
        one.kill()


def trained(results: Path, runs: int = 1) -> bool:
    """Whether the n-th run has learnt a task."""
    return len(list(results.glob("10_run/*/tasks.csv"))) >= runs


def once(condition, act) -> threading.Thread:
    """Acts from a thread as soon as a condition is true."""

    def wait() -> None:
        while not condition():  # without end: on a busy machine a kernel takes minutes to start
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread

"""Kernels of notebooks, and what befalls them while they train."""

import threading
import time
from pathlib import Path

import psutil

from mirolib.workbench.kernels import kernels_of as kernels  # noqa: F401 (tests take it from here)


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

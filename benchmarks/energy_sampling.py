"""What metering costs: processor time of the sampling thread, as a share of one core.

Files are written as two Jetson boards show them: an Orin Nano, whose total is one rail of two files, and an AGX Xavier,
whose total is the sum of six. Their sensors average over 430 ms, so the meter reads them 9 times a second where a
window begins, and 2 times from its 24th second on; both are measured, while the main thread sleeps and, at first, while
it computes. Its own count of the processor time is compared with the process's while asleep. Files stand in for sensors
here: on a board the kernel asks the chip, about half a millisecond a register, in which the thread mostly waits. The
last rows are what a window costs the thread that opens and closes it.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.common import row, seconds, table
from mirolib import EnergyMeter, NullSource
from mirolib.energy import SampledSource
from mirolib.energy.sensors import boards
from mirolib.energy.sensors.jetson import JetsonSource
from tests.support.boards import write_board

DURATION_S, ROUNDS, WINDOWS = 4.0, 5, 300
BOARDS = {
    "Orin Nano": {"VDD_IN": 7.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 1.5},
    "AGX Xavier": {"GPU": 4.0, "CPU": 3.0, "SOC": 2.0, "CV": 0.5, "VDDRQ": 1.5, "SYS5V": 2.0},
}


def run() -> pd.DataFrame:
    """Measures both boards, asleep and under load, and the cost of a window."""
    rows = []
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        for name, watts in BOARDS.items():
            root = Path(folder) / name.replace(" ", "-")
            root.mkdir()
            source = _source(root, name, watts)
            rounds = [
                (*_share(source, lambda: time.sleep(DURATION_S)), *_share(source, _compute)) for _ in range(ROUNDS)
            ]
            idle, process, busy, _ = np.median(rounds, axis=0).tolist()
            source.period_s = 4 * (source.period_s or 0.0)  # slots are a quarter of it at first, and all of it later
            later = float(np.median([_share(source, lambda: time.sleep(DURATION_S))[0] for _ in range(ROUNDS)]))
            rows += [
                row(f"{name}: a window's first seconds, main thread asleep", 100 * idle, "% of a core", at_most=0.5),
                row(f"{name}: the process's own count meanwhile", 100 * process, "% of a core"),
                row(f"{name}: a window's first seconds, main thread computing", 100 * busy, "% of a core", at_most=0.5),
                row(f"{name}: from its 24th second on, main thread asleep", 100 * later, "% of a core", at_most=0.5),
            ]
            rows.append(row(f"{name}: a window", 1e6 * _window(EnergyMeter(source)), "µs"))
    rows.append(row("no sensor: a window", 1e6 * _window(EnergyMeter(NullSource())), "µs"))
    return table(rows)


def _source(root: Path, name: str, watts: dict[str, float]) -> SampledSource:
    """A source on a tree of one board."""
    drivers, boards.MODEL_FILE = write_board(root, name, watts), root / "model"
    source = JetsonSource(drivers)
    source.stale_after_s = float("inf")
    return source


def _share(source: SampledSource, action) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Processor time as a share of the time passed: by the meter's count, and by the process's."""
    meter, before, start = EnergyMeter(source), time.process_time(), time.perf_counter()
    with meter.window("sampled"):
        action()
    passed = time.perf_counter() - start
    return meter.cpu_s / passed, (time.process_time() - before) / passed


def _compute() -> None:
    """Keeps the main thread busy with what lets go of the interpreter lock."""
    data, end = bytes(1 << 20), time.perf_counter() + DURATION_S
    while time.perf_counter() < end:
        hashlib.sha256(data).digest()


def _window(meter: EnergyMeter) -> float:
    """Median seconds to open and close a window, while the source is being sampled."""

    def once() -> None:
        with meter.window("empty"):
            pass

    with meter.sampling():
        return float(np.median([seconds(once) for _ in range(WINDOWS)]))

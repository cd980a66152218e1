"""Calibrating a power model on the machine at hand."""

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.energy.ledger import ENOUGH_COVERAGE
from mirolib.energy.meter import EnergyMeter
from mirolib.energy.sensors.model import Load, LoadMeter, PowerModel, machine_name, power_mode

_BLOCK = 4 << 20


def fit(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of a `PowerModel` and each point's relative error, by non-negative least squares of the latter.

    Points are a row a run with its `energy_j` and the columns of its `Load`.
    """
    load = points[[field.name for field in fields(Load)]].to_numpy(dtype=float)
    energy = points["energy_j"].to_numpy(dtype=float)
    scales = np.maximum(load.mean(axis=0), 1e-12)  # seconds and bytes differ by nine orders of magnitude
    solution, _ = nnls(load / scales / energy[:, None], np.ones(len(energy)))
    coefficients = np.where(load.any(axis=0), solution / scales, 0.0)
    return coefficients, load @ coefficients / energy - 1


def calibrate(
    meter: EnergyMeter,
    *,
    duration_s: float = 4.0,
    repeats: int = 3,
    folder: str | Path | None = None,
    progress: bool = True,
) -> tuple[PowerModel, pd.DataFrame]:
    """Fits the power model on this machine: at rest, under processor load, memory traffic, reads and writes.

    And under GPU load where its utilisation can be read, as on a Jetson; elsewhere the GPU is not part of the model.
    Close everything else first; the load of the whole machine is counted, but its power may hide in the noise.

    Args:
        meter: A meter with a sensor.
        duration_s: Length of each run.
        repeats: Runs of each kind.
        folder: Where to write and read while calibrating, on the disk that the storage tier uses; by default the
            system's temporary folder. At most 256 MB are written at a time.
        progress: Whether to show a progress bar.

    Returns:
        The model, to be kept with `save`, and its points: a row a run with activity, energy, load and `error`.

    Raises:
        InputError: If the meter has no sensor, or it sees too little of a run.
    """
    if not meter.source.kind.startswith("measured"):
        raise InputError("Calibration needs a sensor to learn from; see mirolib.energy.doctor().")
    read_load, rows = LoadMeter(), []
    with tempfile.TemporaryDirectory(prefix="miro-calibration-", dir=folder) as work, meter.sampling():
        activities = _activities(Path(work), read_load.gpu_load is not None)
        runs = [name for _ in range(repeats) for name in activities]
        for name in tqdm(runs, unit="run", desc="calibrating", disable=not progress):
            with _kept_going(*activities[name]), meter.window(f"calibrate {name}") as window:
                before = read_load()
                time.sleep(duration_s)
                load = read_load() - before
            found = window.reading.measurement
            if not found.coverage >= ENOUGH_COVERAGE or not found.energy_j > 0:
                seen = f"The sensor saw {found.coverage:.0%} of a run ({found.note})"
                raise InputError(f"{seen}; take a longer duration_s.")
            # The load was counted within the window; what the edges add is less than a thousandth of it.
            rows.append({"activity": name, "energy_j": found.energy_j, **asdict(load)})
    points = pd.DataFrame(rows)
    coefficients, errors = fit(points)
    source, date = meter.source, f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M}"
    parts = sorted(source.parts if read_load.gpu_load else source.parts - {"gpu"})
    where = machine_name(), power_mode(), date, source.name, source.scope, tuple(parts)
    values: list[Any] = [*map(float, coefficients), float(np.abs(errors).max()), *where]
    return PowerModel(*values), points.assign(error=errors)


def _activities(folder: Path, with_gpu: bool) -> dict[str, tuple[Callable[[], object], int]]:
    """What calibration does, and in how many threads; each lets go of the interpreter lock."""
    file = folder / "file"
    data = np.random.default_rng(0).bytes(_BLOCK)  # random, or a disk that compresses would write less
    source, target = (np.ones(8 * _BLOCK, dtype=np.uint8) for _ in range(2))  # too large for any processor's cache
    compute = partial(hashlib.sha256, data)

    def write() -> None:
        with file.open("ab") as stream:
            if stream.tell() > 256 << 20:
                stream.truncate(0)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())  # what stays in the page cache costs the disk nothing

    def read() -> None:
        with file.open("rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or it would be read from RAM
            while stream.read(_BLOCK):
                pass

    write()
    found: dict[str, tuple[Callable[[], object], int]] = {
        "idle": (compute, 0),
        "one core": (compute, 1),
        "all cores": (compute, os.cpu_count() or 1),
        "memory traffic": (partial(np.copyto, target, source), 1),
        "writing": (write, 1),
        "reading": (read, 1),
    }
    if with_gpu:
        import torch

        if torch.cuda.is_available():
            matrix = torch.randn(2048, 2048, device="cuda")

            def multiply() -> None:
                torch.mm(matrix, matrix)
                torch.cuda.synchronize()

            found["gpu"] = (multiply, 1)
    return found


@contextmanager
def _kept_going(work: Callable[[], object], threads: int) -> Iterator[None]:
    """Repeats a piece of work in some threads until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            work()

    with ThreadPoolExecutor(max(1, threads)) as pool, ExitStack() as ended:
        ended.callback(stop.set)  # before the pool waits for its threads
        workers = [pool.submit(repeat) for _ in range(threads)]
        yield
    for worker in workers:
        worker.result()  # an error in a thread would go unseen, and the points be wrong

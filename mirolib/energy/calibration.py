"""Calibrating a power model on the machine at hand, and the source that estimates with it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from tqdm.auto import tqdm

from mirolib.atomic import write_atomic
from mirolib.energy.counter import CounterSource
from mirolib.energy.load import Load, LoadMeter, machine_name, power_mode
from mirolib.energy.meter import EnergyMeter
from mirolib.energy.reading import ENOUGH_COVERAGE
from mirolib.energy.source import Availability, Measurement
from mirolib.errors import InputError

FORMAT = 1
_TERMS = ("idle_w", "cpu_w", "read_j_per_byte", "write_j_per_byte", "gpu_w")
_BLOCK = 4 << 20


def calibration_file() -> Path:
    """Where this machine's calibration is kept: what `MIRO_CALIBRATION` names, or a file in the user's settings."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(os.environ.get("MIRO_CALIBRATION") or settings / "miro" / "calibration.json")


@dataclass(frozen=True)
class PowerModel:
    """Power = idle + per busy core + per byte a second read and written + per busy graphics unit.

    Memory traffic has no counter that anyone may read; work that is bound by memory is among the calibration's points,
    so that what the model misses there is in its error.

    Attributes:
        idle_w: Watts at rest.
        cpu_w: Watts a busy core.
        read_j_per_byte: Joules a byte read from disks.
        write_j_per_byte: Joules a byte written.
        gpu_w: Watts of the busy graphics unit.
        error: Largest relative error over the points it was fitted to.
        machine: The machine.
        mode: Its power mode.
        date: When it was calibrated (UTC).
        source: The sensor it was calibrated with.
        scope: What part of the machine that covers.
        parts: The same as names of consumers.
    """

    idle_w: float
    cpu_w: float
    read_j_per_byte: float
    write_j_per_byte: float
    gpu_w: float
    error: float
    machine: str
    mode: str
    date: str
    source: str
    scope: str
    parts: tuple[str, ...] = ()

    def joules(self, load: Load) -> dict[str, float]:
        """Energy of a load by cause, in joules."""
        return {
            "idle": self.idle_w * load.time_s,
            "cpu": self.cpu_w * load.cpu_s,
            "storage": self.read_j_per_byte * load.read_bytes + self.write_j_per_byte * load.written_bytes,
            "gpu": self.gpu_w * load.gpu_s,
        }

    def save(self, path: Path | None = None) -> Path:
        """Writes it as JSON; by default where this machine's calibration is kept."""
        path = path or calibration_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: Path | None = None) -> PowerModel:
        """Reads a calibration.

        Raises:
            InputError: If there is none, it is damaged, or it is of another format.
        """
        path = path or calibration_file()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise InputError(f"The calibration {path} is of another format; calibrate anew.")
            numbers = {name: float(values.pop(name)) for name in (*_TERMS, "error")}
            parts = tuple(str(part) for part in values.pop("parts"))
            known: dict[str, Any] = numbers | {name: str(value) for name, value in values.items()}
            model = cls(**known, parts=parts)
        except FileNotFoundError:
            raise InputError(
                f"There is no calibration {path}; make one with mirolib.energy.calibrate on a machine with a sensor."
            ) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"The calibration {path} can't be read ({error}); calibrate anew.") from error
        if not all(np.isfinite(value) and value >= 0 for value in numbers.values()):
            raise InputError(f"The calibration {path} holds a value that is negative or no number; calibrate anew.")
        return model


def fit(points: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Non-negative least squares of relative errors.

    Args:
        points: A row a run with what it took, `energy_j`, and its load: `time_s`, `cpu_s`, `read_bytes`,
            `written_bytes`, `gpu_s`.

    Returns:
        The coefficients in the order of `PowerModel`, and the largest relative error over the points.
    """
    load = points[["time_s", "cpu_s", "read_bytes", "written_bytes", "gpu_s"]].to_numpy(dtype=float)
    energy = points["energy_j"].to_numpy(dtype=float)
    scales = np.maximum(load.mean(axis=0), 1e-12)
    solution, _ = nnls(load / scales / energy[:, None], np.ones(len(energy)))
    coefficients = np.where(load.any(axis=0), solution / scales, 0.0)
    return coefficients, float(np.abs(load @ coefficients / energy - 1).max())


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
        activities = _activities(Path(work), read_load.sees_gpu)
        runs = [name for _ in range(repeats) for name in activities]
        for name in tqdm(runs, unit="run", desc="calibrating", disable=not progress):
            with activities[name](), meter.window(f"calibrate {name}") as window:
                before = read_load()
                time.sleep(duration_s)
                load = read_load() - before
            assert window.reading is not None
            found = window.reading.measurement
            if not found.coverage >= ENOUGH_COVERAGE or not found.energy_j > 0:
                raise InputError(
                    f"The sensor saw {found.coverage:.0%} of a run ({found.note}); take a longer duration_s."
                )
            # The load was counted within the window; what the edges add is less than a thousandth of it.
            rows.append({"activity": name, "energy_j": found.energy_j, **asdict(load)})
    points = pd.DataFrame(rows)
    coefficients, error = fit(points)
    source = meter.source
    model = PowerModel(
        **dict(zip(_TERMS, coefficients.tolist(), strict=True)),
        error=error,
        machine=machine_name(),
        mode=power_mode(),
        date=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M}",
        source=source.name,
        scope=source.scope,
        parts=tuple(sorted(source.parts - (frozenset() if read_load.sees_gpu else {"gpu"}))),
    )
    columns = points[["time_s", "cpu_s", "read_bytes", "written_bytes", "gpu_s"]].to_numpy(dtype=float)
    return model, points.assign(error=columns @ coefficients / points["energy_j"] - 1)


def _activities(folder: Path, with_gpu: bool) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """What calibration does, each as a context manager that keeps it going."""
    file, cores = folder / "file", os.cpu_count() or 1
    data = np.random.default_rng(0).bytes(_BLOCK)

    def hash_block() -> None:
        hashlib.sha256(data).digest()

    source, target = (np.ones(8 * _BLOCK, dtype=np.uint8) for _ in range(2))

    def copy_memory() -> None:
        np.copyto(target, source)

    def write() -> None:
        with file.open("ab") as stream:
            if stream.tell() > 256 << 20:
                stream.truncate(0)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    def read() -> None:
        with file.open("rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while stream.read(_BLOCK):
                pass

    write()
    found: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "idle": lambda: _kept_going(hash_block, 0),
        "one core": lambda: _kept_going(hash_block, 1),
        "all cores": lambda: _kept_going(hash_block, cores),
        "memory traffic": lambda: _kept_going(copy_memory, 1),
        "writing": lambda: _kept_going(write, 1),
        "reading": lambda: _kept_going(read, 1),
    }
    if with_gpu and (multiply := _gpu_work()) is not None:
        found["gpu"] = lambda: _kept_going(multiply, 1)
    return found


def _gpu_work() -> Callable[[], None] | None:
    """Something for the GPU to do, where there is one."""
    import torch

    if not torch.cuda.is_available():
        return None
    matrix = torch.randn(2048, 2048, device="cuda")

    def multiply() -> None:
        torch.mm(matrix, matrix)
        torch.cuda.synchronize()

    return multiply


@contextmanager
def _kept_going(work: Callable[[], None], threads: int) -> Iterator[None]:
    """Repeats a piece of work in some threads until the block ends; each lets go of the interpreter lock."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            work()

    workers = [threading.Thread(target=repeat, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


class ModelSource(CounterSource):
    """Estimates from a calibrated power model and the machine's load, where the sensor is missing or not allowed."""

    name, kind = "model", "estimated-calibrated"
    update_s, unit_j, wraps = 0.02, 1e-6, {}
    may_rest = frozenset({"cpu", "storage", "gpu"})

    def __init__(self, model: PowerModel | None = None, read_load: Callable[[], Load] | None = None) -> None:
        """A source.

        Args:
            model: The model; by default that of this machine, read when it is needed.
            read_load: Says how busy the machine has been.
        """
        super().__init__()
        self._model, self._read_load = model, read_load or LoadMeter()
        self.scope = f"estimate of {model.scope}" if model else "what was calibrated"
        self.parts = frozenset(model.parts if model else ())

    def probe(self) -> Availability:
        """Whether there is a calibration of this machine in this power mode."""
        try:
            model = self._model or PowerModel.load()
        except InputError as error:
            fix = "mirolib.energy.calibrate(meter) once, where a sensor can be read (as root, say), then save()"
            return Availability(False, str(error).rstrip("."), fix)
        here = (machine_name(), power_mode())
        if (model.machine, model.mode) != here:
            of = f"the calibration is of {model.machine} in mode {model.mode}, this is {here[0]} in mode {here[1]}"
            return Availability(False, of, "calibrate anew, or go back to that mode")
        self._model, self.scope, self.parts = model, f"estimate of {model.scope}", frozenset(model.parts)
        return Availability(True, f"calibrated {model.date} with {model.source}, off by up to {model.error:.0%}")

    def read(self) -> Mapping[str, int]:
        """Microjoules since the machine was started, by cause."""
        assert self._model is not None, "a source is probed before it is read"
        return {cause: int(1e6 * joules) for cause, joules in self._model.joules(self._read_load()).items()}

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """The estimate; its band is widened by the calibration's largest error."""
        found = super().measure(start_s, end_s)
        assert self._model is not None
        margin = self._model.error * found.energy_j
        return replace(found, low_j=max(0.0, found.low_j - margin), high_j=found.high_j + margin)

    def describe(self) -> dict[str, object]:
        """The model with its date, error, machine and mode."""
        return super().describe() | (asdict(self._model) if self._model else {})

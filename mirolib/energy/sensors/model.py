"""A calibrated power model, and the source that estimates with it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import Field

from mirolib.base.errors import InputError, brief
from mirolib.base.files import read_bounded, write_atomic
from mirolib.base.state import loaded
from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import file_number, file_text, model_name
from mirolib.energy.source import Availability, Measurement

FORMAT = 1
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # as a file must hold it


def calibration_file() -> Path:
    """Where this machine's calibration is kept: what `MIRO_CALIBRATION` names, or a file in the user's settings."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(os.environ.get("MIRO_CALIBRATION") or settings / "miro" / "calibration.json")


@dataclass(frozen=True)
class Load:
    """Running totals; subtract two to see what lies between."""

    time_s: float = 0.0  # seconds of the monotonic clock
    cpu_s: float = 0.0  # seconds that processor cores of the whole machine were busy
    read_bytes: float = 0.0  # bytes read from disks
    written_bytes: float = 0.0  # bytes written to disks
    gpu_s: float = 0.0  # seconds that the graphics unit was busy, as far as this machine shows it

    def __sub__(self, earlier: Load) -> Load:
        return Load(*(a - b for a, b in zip(astuple(self), astuple(earlier), strict=True)))


class LoadMeter:
    """Reads the running totals of Linux, and adds up the load of a Jetson's graphics unit between two calls."""

    def __init__(self) -> None:
        # with the graphics unit's load in tenths of a percent; None if there is none
        files = [Path("/sys/devices/gpu.0/load"), *Path("/sys/devices/platform").glob("*gpu*/load")]
        self.gpu_load = next((file for file in files if file.exists()), None)
        self._gpu_s, self._last_s = 0.0, time.monotonic()

    def __call__(self) -> Load:
        """The totals now."""
        now, cpu, disks = time.monotonic(), psutil.cpu_times(), psutil.disk_io_counters()
        if self.gpu_load is not None:
            self._gpu_s += (now - self._last_s) * file_number(self.gpu_load) / 1000
        self._last_s = now
        # Linux counts guests within user time too.
        busy = sum(cpu) - sum(getattr(cpu, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        read, written = (disks.read_bytes, disks.write_bytes) if disks else (0, 0)
        return Load(now, busy, read, written, self._gpu_s)


def machine_name() -> str:
    """What machine this is: a board's model, or the processor's name and number of cores."""
    if model := model_name():
        return model
    lines = file_text(Path("/proc/cpuinfo")).splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {os.cpu_count()} cores"


def power_mode() -> str:
    """The power mode in force: that of a Jetson's nvpmodel, or the processor's frequency governor; may be unknown."""
    files = Path("/var/lib/nvpmodel/status"), Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return next(filter(None, map(file_text, files)), "unknown")


# Memory traffic has no counter that anyone may read; work that is bound by memory is among the calibration's points, so
# that what the model misses there is in its error.
@dataclass(frozen=True)
class PowerModel:
    """Power = idle + per busy core + per byte a second read and written + per busy graphics unit."""

    idle_w: _Amount  # watts at rest
    cpu_w: _Amount  # watts a busy core
    read_j_per_byte: _Amount  # joules a byte read from disks
    write_j_per_byte: _Amount  # joules a byte written
    gpu_w: _Amount  # watts of the busy graphics unit
    error: _Amount  # largest relative error over the points it was fitted to
    machine: str
    mode: str  # power mode of the machine
    date: str  # when it was calibrated (UTC)
    source: str  # the sensor it was calibrated with
    scope: str  # what part of the machine that covers
    parts: tuple[str, ...] = ()  # the same as names of consumers

    def joules(self, load: Load) -> dict[str, float]:
        """Energy of a load by cause, in joules."""
        # the first fields are joules a unit of each part of a load, in its order
        idle, cpu, read, write, gpu = (a * b for a, b in zip(astuple(self), astuple(load), strict=False))
        return {"idle": idle, "cpu": cpu, "storage": read + write, "gpu": gpu}

    def save(self, path: Path | None = None) -> Path:
        """Writes it as JSON; by default where this machine's calibration is kept."""
        path = path or calibration_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: Path | None = None) -> PowerModel:
        """Reads a calibration; an `InputError` if there is none, or it is damaged or of another format."""
        path = path or calibration_file()
        try:
            values = json.loads(read_bounded(path))
            if values.get("format") != FORMAT:
                raise InputError("it is of another format")
            model: PowerModel = loaded(cls, values)
            return model
        except FileNotFoundError:
            make = "make one with mirolib.energy.calibrate on a machine with a sensor"
            raise InputError(f"There is no calibration {path}; {make}.") from None
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(f"The calibration {path} can't be read ({error}); calibrate anew.") from error


class ModelSource(CounterSource):
    """Estimates from a calibrated power model and the machine's load, where the sensor is missing or not allowed."""

    name, kind = "model", "estimated-calibrated"
    update_s, unit_j = 0.02, 1e-6  # Linux tells processor time in ticks of 10 ms
    may_rest = frozenset({"cpu", "storage", "gpu"})

    def __init__(self, model: PowerModel | None = None, read_load: Callable[[], Load] | None = None) -> None:
        """A source with a model, by default that of this machine, read when it is needed, and what says the load."""
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
            return Availability(False, brief(error), fix)
        here = (machine_name(), power_mode())
        if (model.machine, model.mode) != here:
            of = f"the calibration is of {model.machine} in mode {model.mode}, this is {here[0]} in mode {here[1]}"
            return Availability(False, of, "calibrate anew, or go back to that mode")
        self._model, self.scope, self.parts = model, f"estimate of {model.scope}", frozenset(model.parts)
        self._facts = asdict(model)
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

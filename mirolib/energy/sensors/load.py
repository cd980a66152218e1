"""How busy the machine has been, as running totals that need no sensor and no rights."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Load:
    """Running totals; subtract two to see what lies between.

    Attributes:
        time_s: Seconds of the monotonic clock.
        cpu_s: Seconds that processor cores of the whole machine were busy.
        read_bytes: Bytes read from disks.
        written_bytes: Bytes written to disks.
        gpu_s: Seconds that the graphics unit was busy, as far as this machine shows it.
    """

    time_s: float = 0.0
    cpu_s: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    gpu_s: float = 0.0

    def __sub__(self, earlier: Load) -> Load:
        """What lies between."""
        return Load(*(a - b for a, b in zip(astuple(self), astuple(earlier), strict=True)))


class LoadMeter:
    """Reads the running totals of Linux, and adds up the load of a Jetson's graphics unit between two calls."""

    def __init__(self, gpu_load: Path | None = None) -> None:
        """A meter.

        Args:
            gpu_load: A file that holds the graphics unit's load in tenths of a percent; by default a Jetson's, if any.
        """
        files = [Path("/sys/devices/gpu.0/load"), *Path("/sys/devices/platform").glob("*gpu*/load")]
        self._gpu_load = gpu_load or next((file for file in files if file.exists()), None)
        self._gpu_s, self._last_s = 0.0, time.monotonic()

    @property
    def sees_gpu(self) -> bool:
        """Whether the graphics unit's load can be read."""
        return self._gpu_load is not None

    def __call__(self) -> Load:
        """The totals now.

        Raises:
            OSError: If the graphics unit's load can't be read.
        """
        now, cpu, disks = time.monotonic(), psutil.cpu_times(), psutil.disk_io_counters()
        if self._gpu_load is not None:
            self._gpu_s += (now - self._last_s) * int(self._gpu_load.read_text()) / 1000
        self._last_s = now
        busy = sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0) - getattr(cpu, "guest", 0.0)
        busy -= getattr(cpu, "guest_nice", 0.0)  # Linux counts guests within user time too
        read, written = (disks.read_bytes, disks.write_bytes) if disks else (0, 0)
        return Load(now, busy, read, written, self._gpu_s)


def machine_name(model_file: Path = Path("/proc/device-tree/model")) -> str:
    """What machine this is: a board's model, or the processor's name and number of cores."""
    try:
        return model_file.read_text().strip("\0 \n")
    except OSError:
        pass
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def power_mode(root: Path = Path("/")) -> str:
    """The power mode in force: that of a Jetson's nvpmodel, or the processor's frequency governor; may be unknown."""
    for file in ("var/lib/nvpmodel/status", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"):
        try:
            return (root / file).read_text().strip()
        except OSError:
            continue
    return "unknown"

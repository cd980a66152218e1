"""RAPL, the energy counters of x86 processors, as an energy source."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import file_number, file_text
from mirolib.energy.source import LostReading


class RaplSource(CounterSource):
    """Intel's and AMD's running energy counters in Linux' powercap tree: processor packages and DRAM.

    Core and uncore lie inside the package and psys contains it, so neither is added. Each counter wraps at its
    `max_energy_range_uj`; readings must come at least once in a wrap (minutes). Updates come every millisecond.
    Source: Linux kernel documentation, power/powercap.
    """

    name, kind, scope = "rapl", "measured-partial", "processor packages and DRAM"
    parts = frozenset({"cpu", "dram"})
    update_s, unit_j = 1e-3, 1e-6

    def __init__(self, root: str | Path = "/sys/class/powercap") -> None:
        """Looks for counters under `root`."""
        super().__init__()
        self._zones: dict[str, Path] = {}
        self.wraps: dict[str, int] = {}
        for zone in sorted(Path(root).glob("intel-rapl:*")):
            label = file_text(zone / "name")
            if label.startswith("package") or label == "dram":
                with suppress(OSError, ValueError):  # of one that does not say where it wraps, nothing is known
                    # The range is the largest value; the step after it is zero.
                    self.wraps[f"{label} ({zone.name})"] = file_number(zone / "max_energy_range_uj") + 1
                    self._zones[f"{label} ({zone.name})"] = zone

    def read(self) -> Mapping[str, int]:
        """Microjoules of each package and DRAM counter."""
        if not self._zones:
            raise LostReading("no RAPL counters: a virtual machine, an Arm board, or the intel_rapl module is off")
        try:
            return {name: file_number(zone / "energy_uj") for name, zone in self._zones.items()}
        except PermissionError as error:
            fix = "sudo chmod -R a+r /sys/class/powercap/intel-rapl* (or a udev rule that does so at every start)"
            raise LostReading("RAPL counters can be read by root only (since CVE-2020-8694)", fix) from error

"""RAPL, the energy counters of x86 processors, as an energy source."""

from __future__ import annotations

import bisect
import itertools
import time
from pathlib import Path

from mirolib.energy.source import Availability, EnergySource, Measurement


class RaplSource(EnergySource):
    """Intel's and AMD's running energy counters in Linux' powercap tree: processor packages and DRAM.

    Core and uncore lie inside the package and psys contains it, so neither is added. Each counter wraps at its
    `max_energy_range_uj`; readings must come at least once in a wrap (minutes), hence `refresh_s`.
    Source: Linux kernel documentation, power/powercap.
    """

    name, kind, scope = "rapl", "measured-partial", "processor packages and DRAM"
    refresh_s = 10.0

    def __init__(self, root: str | Path = "/sys/class/powercap") -> None:
        """Looks for counters under `root`."""
        self._zones = [zone for zone in sorted(Path(root).glob("intel-rapl:*")) if self._counts(zone)]
        self._ranges = [self._read(zone / "max_energy_range_uj") for zone in self._zones]
        self._times: list[float] = []
        self._totals_j: list[float] = []
        self._last_uj: list[int] = []

    @staticmethod
    def _counts(zone: Path) -> bool:
        """Whether a zone is a package or DRAM."""
        try:
            label = (zone / "name").read_text().strip()
            int((zone / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return False
        return label.startswith("package") or label == "dram"

    @staticmethod
    def _read(path: Path) -> int:
        return int(path.read_text())

    def probe(self) -> Availability:
        """Whether there are counters and this user may read them."""
        if not self._zones:
            return Availability(
                False, "no RAPL counters: a virtual machine, an Arm board, or the intel_rapl module is off"
            )
        try:
            for zone in self._zones:
                self._read(zone / "energy_uj")
        except PermissionError:
            fix = "sudo chmod -R a+r /sys/class/powercap/intel-rapl* (or a udev rule that does so at every start)"
            return Availability(False, "RAPL counters can be read by root only (since CVE-2020-8694)", fix)
        except (OSError, ValueError) as error:
            return Availability(False, f"RAPL counters can't be read: {error}")
        return Availability(True, f"{len(self._zones)} counters")

    def mark(self) -> float:
        """Reads the counters and adds what they have advanced, wrap-around included."""
        readings = [self._read(zone / "energy_uj") for zone in self._zones]
        now = time.monotonic()
        last = self._last_uj or readings
        advance = sum((new - old) % span for new, old, span in zip(readings, last, self._wraps(), strict=True))
        self._last_uj = readings
        self._times.append(now)
        self._totals_j.append((self._totals_j[-1] if self._totals_j else 0.0) + advance / 1e6)
        return now

    def _wraps(self) -> list[int]:
        return [span + 1 for span in self._ranges]

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Difference of the counters between two marks; the band is one update (1 ms) of the mean power."""
        first, last = (bisect.bisect_left(self._times, t) for t in (start_s, end_s))
        energy = self._totals_j[last] - self._totals_j[first]
        times = self._times[first : last + 1]
        margin = energy / (end_s - start_s) * 1e-3 if end_s > start_s else 0.0
        gap = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
        return Measurement(energy, max(0.0, energy - margin), energy + margin, 1.0, len(times), gap)

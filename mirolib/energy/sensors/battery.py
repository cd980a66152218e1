"""The battery of a laptop as an energy source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mirolib.energy.sampled import SampledSource
from mirolib.energy.sensors.boards import file_number, file_text
from mirolib.energy.source import Availability, LostReading


class BatterySource(SampledSource):
    """Power that the batteries of a laptop give, which is all it takes, screen included, as long as it is unplugged.

    The fuel gauge gives a new value every few seconds to a minute, so this suits windows of minutes. Batteries are
    summed; drivers differ in the sign of a discharge, so it is left out.
    Source: Linux kernel documentation, ABI/testing/sysfs-class-power.
    """

    name, kind, scope = "battery", "measured", "whole machine, from its battery"
    parts = frozenset({"machine", "cpu", "dram", "gpu", "module"})
    period_s = 1.0
    gap_s, changes_only = 60.0, True  # gauges look once in a minute at worst, and repeat themselves meanwhile
    resolution_w = 0.01

    def __init__(self, root: str | Path = "/sys/class/power_supply") -> None:
        """Looks for batteries under `root`."""
        super().__init__()
        self._root = Path(root)
        found = sorted(self._root.glob("BAT*"))
        self._batteries = {path.name: path for path in found if file_text(path / "type") == "Battery"}
        self.total_rails = tuple(self._batteries)

    def probe(self) -> Availability:
        """Whether there is a battery, it is in use, and it says its power."""
        if not self._batteries:
            return Availability(False, "no battery")
        try:
            self.read(self.total_rails)
        except LostReading as error:
            return Availability(False, str(error), "Unplug the charger.")
        except PermissionError:
            fix = f"Let this user read {self._root}/BAT*/power_now, current_now and voltage_now."
            return Availability(False, "the battery's power may not be read by this user", fix)
        except (OSError, ValueError) as error:
            return Availability(False, f"the battery does not say its power: {error}")
        return Availability(True, f"discharging: {', '.join(self._batteries)}")

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """Power of each battery in watts; zero for one that waits for its turn.

        Raises:
            LostReading: If the machine is not fed by its batteries alone, or they say nothing.
        """
        status = {name: (path / "status").read_text().strip() for name, path in self._batteries.items()}
        # "Unknown" and "Not charging" beside one that discharges: a second battery that waits for its turn.
        if "Charging" in status.values() or "Discharging" not in status.values():
            said = ", ".join(f"{name}: {text}" for name, text in status.items())
            raise LostReading(f"the machine is not running from its battery ({said})")
        mains = (path for path in self._root.glob("*") if file_text(path / "type") == "Mains")
        if any(file_text(path / "online") == "1" for path in mains):
            raise LostReading("the charger is plugged in, so the battery gives only a part")
        power = {name: _power_w(self._batteries[name]) if status[name] == "Discharging" else 0.0 for name in rails}
        if not any(power.values()):
            raise LostReading("the battery says that it gives 0 W")
        return power


def _power_w(battery: Path) -> float:
    """Power of one battery without its sign: `power_now` in µW, or else the product of µA and µV."""
    if (battery / "power_now").exists():
        return abs(file_number(battery / "power_now")) * 1e-6
    current_ua, voltage_uv = (file_number(battery / name) for name in ("current_now", "voltage_now"))
    # µA times µV are 1e-12 W
    return abs(current_ua) * voltage_uv * 1e-12

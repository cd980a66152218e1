"""The battery of a laptop as an energy source."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mirolib.energy.sampled import SampledSource
from mirolib.energy.sensors.boards import Channel, file_text
from mirolib.energy.source import LostReading


class BatterySource(SampledSource):
    """Power that the batteries of a laptop give, which is all it takes, screen included, as long as it is unplugged.

    The fuel gauge gives a new value every few seconds to a minute, so this suits windows of minutes. Batteries, known
    by their type, are summed; drivers differ in the sign of a discharge, so it is left out.
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
        self._batteries: dict[str, Channel] = {}
        for path in sorted(self._root.glob("*")):  # a battery of the scope Device is that of a mouse
            if file_text(path / "type") == "Battery" and file_text(path / "scope") != "Device":
                # in µW, or in µA and µV
                names = ("power_now",) if (path / "power_now").exists() else ("current_now", "voltage_now")
                self._batteries[path.name] = Channel(tuple(path / name for name in names), 1e-6 ** len(names))
        self.total_rails = tuple(self._batteries)

    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """Power of each battery in watts; zero for one that waits for its turn."""
        if not self._batteries:
            raise LostReading("no battery")
        status = {name: file_text(self._root / name / "status") for name in self._batteries}
        # "Unknown" and "Not charging" beside one that discharges: a second battery that waits for its turn.
        if "Charging" in status.values() or "Discharging" not in status.values():
            said = ", ".join(f"{name}: {text}" for name, text in status.items())
            raise LostReading(f"the machine is not running from its battery ({said})", "Unplug the charger.")
        others = (path for path in self._root.glob("*") if path.name not in self._batteries)
        # mains, USB, wireless: 1 is fixed, 2 programmable; what is no battery of the machine and online feeds it
        if any(file_text(path / "online") in ("1", "2") for path in others if file_text(path / "type") != "Battery"):
            raise LostReading("the charger is plugged in, so the battery gives only a part", "Unplug the charger.")
        try:
            used = {name for name in rails if status[name] == "Discharging"}
            power = {name: abs(self._batteries[name].power_w()) if name in used else 0.0 for name in rails}
        except (OSError, ValueError) as error:
            files = f"{self._root}/*/power_now, current_now and voltage_now"
            fix = f"Let this user read {files}." if isinstance(error, PermissionError) else ""
            raise LostReading(f"the battery does not say its power: {error}", fix) from error
        if not any(power.values()):
            raise LostReading("the battery says that it gives 0 W", "Unplug the charger.")
        return power

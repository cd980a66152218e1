"""RAPL, the energy counters of x86 processors, as an energy source."""

from collections.abc import Mapping
from pathlib import Path

from mirolib.base.errors import InputError
from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import file_number, file_text
from mirolib.energy.source import LostReading

_WORDS = {"package": "processor packages", "dram": "DRAM", "psys": "platform (psys)"}
_PARTS = {"package": {"cpu"}, "dram": {"dram"}}
_MACHINE = {"machine", "cpu", "dram", "gpu", "module"}
_NONE = "no RAPL counters: a virtual machine, an Arm board, or the intel_rapl module is off"


class RaplSource(CounterSource):
    """Intel's and AMD's running energy counters in Linux' powercap tree: processor packages, and DRAM where it counts.

    Core and uncore lie inside the package and psys contains it, so neither is added. A counter wraps at its
    `max_energy_range_uj`, without which it only can be reset; readings must come at least once in a wrap (minutes).
    Updates come every millisecond. A zone that gives nothing is named in the scope.
    Source: Linux kernel documentation, power/powercap.
    """

    name, kind, scope = "rapl", "measured-partial", "processor packages and DRAM"
    parts = frozenset({"cpu", "dram"})
    update_s, unit_j, most_w = 1e-3, 1e-6, 1000.0  # no package takes more

    def __init__(self, root: str | Path = "/sys/class/powercap", domains: str = "") -> None:
        """Looks for counters under `root`: of `domains`, by name or zone, as `psys`, or all but some, as `-dram`.

        There is an `InputError` if this machine lacks one of them, or one may contain another.
        """
        super().__init__()
        self._zones = _chosen(Path(root), domains)
        self._unusable: dict[str, str] = {}
        self.wraps: dict[str, int] = {}
        for name, zone in self._zones.items():
            try:  # the range is the largest value; the step after it is zero
                self.wraps[name] = file_number(zone / "max_energy_range_uj") + 1
            except (OSError, ValueError) as error:
                self._facts[name] = f"has no readable range ({error})"
        self._describe()

    def _describe(self) -> None:
        """Scope and parts of the zones that are in use."""
        labels = {name.split("-")[0].split()[0] for name in self._zones}
        if labels:
            self.scope = " and ".join(_WORDS.get(label, label) for label in sorted(labels, reverse=True))
            self.parts = frozenset().union(*(_PARTS.get(label, _MACHINE) for label in labels))
        if self._unusable:
            self.scope += f" (without {', '.join(self._unusable)})"
            self._facts["unusable"] = self._unusable

    def _give_up(self, name: str, why: str) -> None:
        """Leaves out DRAM, or a package at first; where one dies midway, a part of the sockets is not all of them."""
        if self._last and not name.startswith("dram"):
            super()._give_up(name, why)
        del self._zones[name]
        self._unusable[name] = why
        self._losses.add(self.name, self.clock(), f"{name} {why}: left out from here on")
        self._describe()

    def read(self) -> Mapping[str, int]:
        """Microjoules of each counter."""
        said = {}
        for name, zone in list(self._zones.items()):
            try:
                said[name] = file_number(zone / "energy_uj")
            except PermissionError as error:
                fix = "sudo chmod -R a+r /sys/class/powercap/intel-rapl* (or a udev rule that does so at every start)"
                raise LostReading("RAPL counters can be read by root only (since CVE-2020-8694)", fix) from error
            except (OSError, ValueError) as error:
                self._give_up(name, f"can't be read: {error}")
        if not said:
            raise LostReading("; ".join(f"{name} {why}" for name, why in self._unusable.items()) or _NONE)
        return said


def _chosen(root: Path, domains: str) -> dict[str, Path]:
    """The zones to add, by label and folder."""
    words = domains.replace(",", " ").split()
    zones = sorted(root.glob("intel-rapl*:*"), key=lambda zone: ("mmio" in zone.name, zone.name))
    called = {zone: {zone.name, label, label.split("-")[0]} for zone in zones if (label := file_text(zone / "name"))}
    known = set().union(*called.values())
    if known and (unknown := [word for word in words if word.lstrip("-") not in known]):
        raise InputError(f"energy_domains names {unknown[0]!r}; this machine has {', '.join(sorted(known))}.")
    wanted = {word for word in words if not word.startswith("-")} or {"package", "dram"}
    without = {word[1:] for word in words if word.startswith("-")}
    chosen: dict[str, Path] = {}
    for zone, names in called.items():
        if names & wanted and not names & without:  # what MMIO shows again is counted once
            chosen.setdefault(zone.name.partition(":")[2], zone)
    kinds = {file_text(zone / "name").split("-")[0] for zone in chosen.values()}
    if len(kinds) > 1 and kinds != {"package", "dram"}:
        nested = "psys contains packages, and they core and uncore"
        raise InputError(f"energy_domains {domains!r} would count energy twice: {nested}; choose one of them.")
    return {f"{file_text(zone / 'name')} ({zone.name})": zone for zone in chosen.values()}

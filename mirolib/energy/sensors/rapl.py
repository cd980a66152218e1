"""RAPL, the energy counters of x86 processors, as an energy source."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mirolib.base.errors import InputError
from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import file_number, file_text
from mirolib.energy.source import Availability, LostReading

_PARTS = {"package": {"cpu"}, "dram": {"dram"}, "core": {"cpu"}, "uncore": {"gpu"}}
_MACHINE = {"machine", "cpu", "dram", "gpu", "module"}


class RaplSource(CounterSource):
    """Intel's and AMD's running energy counters in Linux' powercap tree: processor packages, and DRAM where it counts.

    Core and uncore lie inside the package and psys contains it, so neither is added. A counter wraps at its
    `max_energy_range_uj`; readings must come at least once in a wrap (minutes). One without a range can't wrap: a step
    back is a reset then. Updates come every millisecond. Packages are also shown by MMIO, which counts where there is
    nothing else. A zone that gives nothing is named in the scope, and in the facts that are kept with a run.
    Source: Linux kernel documentation, power/powercap.
    """

    name, kind, scope = "rapl", "measured-partial", "processor packages and DRAM"
    parts = frozenset({"cpu", "dram"})
    update_s, unit_j, most_w = 1e-3, 1e-6, 1000.0  # no package takes more

    def __init__(self, root: str | Path = "/sys/class/powercap", domains: str = "") -> None:
        """Looks for counters under `root`.

        Args:
            root: The powercap tree.
            domains: Those to add, by name or zone, as `psys` or `package, dram`; with `-` before it, one to leave out.

        Raises:
            InputError: If this machine lacks one of them, or one contains another.
        """
        super().__init__()
        self._zones: dict[str, Path] = {}
        self._unusable: dict[str, str] = {}
        self.wraps: dict[str, int] = {}
        for label, zone in _chosen(Path(root), domains):
            name = f"{label} ({zone.name})"
            self._zones[name] = zone
            try:  # the range is the largest value; the step after it is zero
                self.wraps[name] = file_number(zone / "max_energy_range_uj") + 1
            except (OSError, ValueError) as error:
                self._facts[name] = f"has no readable range ({error})"
        self._describe()

    def _describe(self) -> None:
        """Scope and parts of the zones that are in use."""
        labels = {name.split("-")[0].split(" ")[0] for name in self._zones}
        if labels:
            words = {"package": "processor packages", "dram": "DRAM", "psys": "platform (psys)"}
            self.scope = " and ".join(words.get(label, label) for label in sorted(labels, reverse=True))
            self.parts = frozenset().union(*(_PARTS.get(label, _MACHINE) for label in labels))
        if self._unusable:
            self.scope += f" (without {', '.join(self._unusable)})"
            self._facts["unusable"] = dict(self._unusable)

    def probe(self) -> Availability:
        """Whether there are counters that may be read; those that fail, or stand still beside others, are left out."""
        before = {}
        for name, zone in list(self._zones.items()):
            try:
                before[name] = file_number(zone / "energy_uj")
            except PermissionError:
                return super().probe()
            except (OSError, ValueError) as error:
                self._leave_out(name, f"can't be read: {error}")
        if len(before) > 1:
            time.sleep(0.02)  # they move every millisecond
            still = [name for name, value in self.read().items() if value == before[name]]
            for name in still if len(still) < len(before) else ():
                self._leave_out(name, "stands still")
        return super().probe()

    def _leave_out(self, name: str, why: str) -> None:
        del self._zones[name]
        self._unusable[name] = why
        self._losses.add(self.name, self.clock(), f"{name} {why}: left out from here on")
        self._describe()

    def _give_up(self, name: str, why: str) -> None:
        """Leaves DRAM out; a package that dies midway leaves no number, since a part of the sockets is not all."""
        if not name.startswith("dram"):
            super()._give_up(name, why)
        self._leave_out(name, why)

    def read(self) -> Mapping[str, int]:
        """Microjoules of each counter."""
        if not self._zones:
            failed = "; ".join(f"{name} {why}" for name, why in self._unusable.items())
            none = "no RAPL counters: a virtual machine, an Arm board, or the intel_rapl module is off"
            raise LostReading(failed or none)
        said = {}
        for name, zone in list(self._zones.items()):
            try:
                said[name] = file_number(zone / "energy_uj")
            except PermissionError as error:
                fix = "sudo chmod -R a+r /sys/class/powercap/intel-rapl* (or a udev rule that does so at every start)"
                raise LostReading("RAPL counters can be read by root only (since CVE-2020-8694)", fix) from error
            except (OSError, ValueError) as error:
                self._give_up(name, f"can't be read: {error}")
        return said


def _chosen(root: Path, domains: str) -> list[tuple[str, Path]]:
    """Labels and folders of the zones that are to be added."""
    words = [word for word in domains.replace(",", " ").split() if word != "-"]
    zones = sorted(root.glob("intel-rapl*:*"), key=lambda zone: ("mmio" in zone.name, zone.name))
    names = {zone: {zone.name, label, label.split("-")[0]} for zone in zones if (label := file_text(zone / "name"))}
    if names and (unknown := [word for word in words if word.lstrip("-") not in set().union(*names.values())]):
        there = ", ".join(sorted(set().union(*names.values())))
        raise InputError(f"energy_domains names {unknown[0]!r}; this machine has {there}.")
    wanted = {word for word in words if not word.startswith("-")} or {"package", "dram"}
    without = {word[1:] for word in words if word.startswith("-")}
    chosen: dict[str, Path] = {}
    for zone, called in names.items():
        if (
            called & wanted
            and not called & without
            and (zone.name in wanted or zone.name.split(":", 1)[1] not in chosen)
        ):
            chosen[zone.name.split(":", 1)[1]] = zone  # what MMIO shows too is counted once
    kinds = {file_text(zone / "name").split("-")[0] for zone in chosen.values()}
    if ("psys" in kinds and len(kinds) > 1) or ("package" in kinds and kinds & {"core", "uncore"}):
        nested = "psys contains packages, and they contain core and uncore"
        raise InputError(f"energy_domains {domains!r} would count energy twice: {nested}; choose from one level.")
    return [(file_text(zone / "name"), zone) for zone in chosen.values()]

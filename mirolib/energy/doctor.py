"""Which sources this machine has, which of them the meter takes, and their sum."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.energy.sensors.battery import BatterySource
from mirolib.energy.sensors.boards import BoardBandSource, file_text
from mirolib.energy.sensors.jetson import JetsonSource
from mirolib.energy.sensors.jtop import JtopSource
from mirolib.energy.sensors.model import ModelSource
from mirolib.energy.sensors.nvml import NvmlSource
from mirolib.energy.sensors.pi import PiSource
from mirolib.energy.sensors.rapl import RaplSource
from mirolib.energy.sensors.zeus import ZeusSource
from mirolib.energy.source import KINDS, Availability, EnergySource, Measurement, NullSource, power_table


class CombinedSource(EnergySource):
    """The sum of sources with disjoint scopes, such as processor and graphics card."""

    def __init__(self, sources: Sequence[EnergySource]) -> None:
        """A sum of two or more; an `InputError` if two of them cover the same part."""
        for one, other in combinations(sources, 2):
            if common := ", ".join(sorted(one.parts & other.parts)):
                both = f"Sources {one.name} and {other.name} both cover {common}"
                raise InputError(f"{both}; add only sources of different parts.")
        self.sources = tuple(sources)
        self.name = " + ".join(source.name for source in sources)
        self.scope = " + ".join(source.scope for source in sources)
        self.kind = max((source.kind for source in sources), key=KINDS.index)
        self.parts = frozenset().union(*(source.parts for source in sources))
        self.period_s = min((source.period_s for source in sources if source.period_s is not None), default=None)
        self.averaging_s = max(source.averaging_s for source in sources)

    def probe(self) -> Availability:
        """Available if all are."""
        found = [source.probe() for source in self.sources]
        return next((one for one in found if not one.available), found[0])

    def mark(self) -> float:
        """Reads all of them; the instant of the last."""
        return [source.mark() for source in self.sources][-1]

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """The sum; its band holds all bands, its coverage is that of the worst."""
        parts = [source.measure(start_s, end_s) for source in self.sources]
        self.scope = " + ".join(source.scope for source in self.sources)  # one may have lost a part meanwhile
        joules, lows, highs, coverages, samples, gaps, notes = zip(*map(astuple, parts), strict=True)
        note = "; ".join(f"{source.name}: {note}" for source, note in zip(self.sources, notes, strict=True) if note)
        gap_s = float(np.max(gaps))  # NaN if any is
        return Measurement(sum(joules), sum(lows), sum(highs), min(coverages), min(samples), gap_s, note)

    def trace(self) -> pd.DataFrame:
        """All traces, rails named after their source, and the sum of the totals as `total`."""
        traces = [(source.name, source.trace()) for source in self.sources]
        rails = {f"{name}: {rail}": rows for name, table in traces for rail, rows in table.groupby("rail")}
        series = {rail: (rows["time_s"].to_numpy(), rows["power_w"].to_numpy()) for rail, rows in rails.items()}
        totals = [both for rail, both in series.items() if rail.endswith(": total")]
        times = np.unique(np.concatenate([[], *(instants for instants, _ in series.values())]))
        power = sum((np.interp(times, *total) for total in totals), np.zeros(len(times)))
        return power_table({"total": (times, power), **series})

    def describe(self) -> dict[str, object]:
        """What each says."""
        return {source.name: source.describe() for source in self.sources}

    @property
    def least_s(self) -> float:
        """What the neediest needs."""
        return max(source.least_s for source in self.sources)

    def rested(self, start_s: float, end_s: float) -> None:
        """Tells all of them."""
        for source in self.sources:
            source.rested(start_s, end_s)

    def close(self) -> None:
        """Closes all of them."""
        for source in self.sources:
            source.close()


@dataclass(frozen=True)
class Place:
    """What a run knows of where it runs and sources may not find out; "" for what it does not."""

    device: str = ""  # PyTorch's name of the device that trains
    cards: str = ""  # indices or UUIDs of the graphics cards to read, with commas, instead of that device's
    board: str = ""
    domains: str = ""  # RAPL domains to add, or with `-` to leave out, instead of packages and DRAM


# In the order in which they are preferred: what measures before what estimates; a board's sensors before their service.
SOURCES: dict[str, Callable[[Place], EnergySource]] = {
    "jetson-ina": lambda place: JetsonSource(board=place.board),
    "jtop": lambda place: JtopSource(board=place.board),
    "pi-pmic": lambda place: PiSource(place.board),
    "rapl": lambda place: RaplSource(domains=place.domains),
    "nvml": lambda place: NvmlSource(place.cards.replace(",", " ").split() or None, place.device),
    "zeus": lambda _: ZeusSource(),
    "battery": lambda _: BatterySource(),
    "model": lambda _: ModelSource(),
    "board band": lambda place: BoardBandSource(place.board),
    "none": lambda _: NullSource(),
}
_CARDS = ("nvml", "zeus")


def candidates(place: Place) -> list[EnergySource]:
    """Every source, but those of graphics cards where the run is on the processor."""
    return [make(place) for name, make in SOURCES.items() if name not in _CARDS or place.device != "cpu"]


def choose(place: Place = Place()) -> EnergySource:
    """The first available source and, if it measures, what measures the parts that it leaves out; others are closed."""
    chosen: list[EnergySource] = []
    for source in candidates(place):
        adds = source.kind.startswith("measured") and all(source.parts.isdisjoint(other.parts) for other in chosen)
        if (adds or not chosen) and _asked(source).available:
            chosen.append(source)
        else:
            source.close()
    return chosen[0] if len(chosen) == 1 else CombinedSource(chosen)


def _asked(source: EnergySource) -> Availability:
    """What `probe` says; a source that fails at it is no reason that another can't be used."""
    try:
        return source.probe()
    except Exception as error:
        return Availability(False, f"it fails: {type(error).__name__}: {error}")


def named(name: str, place: Place = Place()) -> EnergySource:
    """The source of a name, whatever else there is; an `InputError` if none has it, or it reads cards beside a CPU."""
    if name not in SOURCES:
        choice = f"auto, {', '.join(SOURCES)}, or the path of a .csv trace"
        raise InputError(f"There is no energy source {name!r}; choose {choice}.")
    if name in _CARDS and place.device == "cpu":
        raise InputError(f"Energy source {name} reads graphics cards, and this run is on the processor; choose auto.")
    return SOURCES[name](place)


def readable(names: Iterable[str]) -> list[str]:
    """Of sources by name (`auto` for what `choose` takes), those that read something on this machine."""
    sources = [choose() if name == "auto" else named(name) for name in names]
    for source in sources:
        source.close()
    return [source.name for source in sources if source.kind != "none"]


def in_container() -> bool:
    """Whether this process is in a container, which hides from it what most sources read."""
    marked = any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))
    return marked or "kubepods" in file_text(Path("/proc/1/cgroup"))


_MOUNTS = {
    "jetson-ina": "-v /sys:/sys:ro -v /proc/device-tree/model:/proc/device-tree/model:ro, or set energy_board",
    "jtop": "-v /run/jtop.sock:/run/jtop.sock, and set energy_board",
    "pi-pmic": "--device /dev/vcio, with vcgencmd in the image, and set energy_board",
    "rapl": "-v /sys/devices/virtual/powercap:/sys/devices/virtual/powercap:ro",
    "nvml": "--gpus all",
    "battery": "-v /sys:/sys:ro",
}


def doctor(place: Place = Place()) -> pd.DataFrame:
    """What this machine can measure: a row a source, the preferred ones first.

    It says `available`, `kind`, `scope`, what was found, and how to make it available; in a container, what to mount.
    """
    rows, contained = [], in_container()
    for source in candidates(place):
        found = _asked(source)
        mount = contained and not found.available and _MOUNTS.get(source.name)
        fix = f"{found.fix} In this container: start it with {mount}.".lstrip() if mount else found.fix
        rows.append((source.name, found.available, source.kind, source.scope, found.reason, fix))
        source.close()
    return pd.DataFrame(rows, columns=["source", "available", "kind", "scope", "found", "fix"]).set_index("source")

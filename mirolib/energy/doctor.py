"""Which sources this machine has, which of them the meter takes, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import combinations

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.energy.sensors.battery import BatterySource
from mirolib.energy.sensors.boards import BoardBandSource
from mirolib.energy.sensors.jetson import JetsonSource
from mirolib.energy.sensors.jtop import JtopSource
from mirolib.energy.sensors.model import ModelSource
from mirolib.energy.sensors.nvml import NvmlSource
from mirolib.energy.sensors.rapl import RaplSource
from mirolib.energy.sensors.zeus import ZeusSource
from mirolib.energy.source import KINDS, Availability, EnergySource, Measurement, NullSource, power_table


class CombinedSource(EnergySource):
    """The sum of sources with disjoint scopes, such as processor and graphics card."""

    def __init__(self, sources: Sequence[EnergySource]) -> None:
        """A sum.

        Raises:
            InputError: If there are fewer than two, or two of them cover the same part.
        """
        if len(sources) < 2:
            raise InputError("A sum of energy sources needs two or more.")
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


def candidates() -> list[EnergySource]:
    """Every kind of source, made for this machine, in the order in which they are preferred."""
    # What measures before what estimates; a board's sensors before the service that reads them.
    return [
        JetsonSource(), JtopSource(), RaplSource(), NvmlSource(), ZeusSource(), BatterySource(),
        ModelSource(), BoardBandSource(), NullSource(),
    ]  # fmt: skip


def choose() -> EnergySource:
    """The first available source and, if it measures, what measures the parts that it leaves out; others are closed."""
    chosen: list[EnergySource] = []
    for source in candidates():
        covered = frozenset().union(*(other.parts for other in chosen))
        measures = source.kind.startswith("measured") and not source.parts & covered
        if (measures or not chosen) and source.probe().available:
            chosen.append(source)
        else:
            source.close()
    return chosen[0] if len(chosen) == 1 else CombinedSource(chosen)


def named(name: str) -> EnergySource:
    """The source of a name, whatever else there is.

    Raises:
        InputError: If there is none of that name.
    """
    found = {source.name: source for source in candidates()}
    for other in found.keys() - {name}:
        found[other].close()
    if name not in found:
        choice = f"auto, {', '.join(found)}, or the path of a .csv trace"
        raise InputError(f"There is no energy source {name!r}; choose {choice}.")
    return found[name]


def readable(names: Iterable[str]) -> list[str]:
    """Of sources by name (`auto` for what `choose` takes), those that read something on this machine."""
    sources = [choose() if name == "auto" else named(name) for name in names]
    for source in sources:
        source.close()
    return [source.name for source in sources if source.kind != "none"]


def doctor() -> pd.DataFrame:
    """What this machine can measure: a row a source, the preferred ones first.

    It says `available`, `kind`, `scope`, what was found, and how to make it available.
    """
    rows = []
    for source in candidates():
        found = source.probe()
        rows.append((source.name, found.available, source.kind, source.scope, found.reason, found.fix))
        source.close()
    return pd.DataFrame(rows, columns=["source", "available", "kind", "scope", "found", "fix"]).set_index("source")

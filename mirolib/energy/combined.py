"""Several sources as one, where they cover different parts of the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mirolib.base.errors import InputError
from mirolib.energy.source import KINDS, Availability, EnergySource, Measurement


class CombinedSource(EnergySource):
    """The sum of sources with disjoint scopes, such as processor and graphics card."""

    def __init__(self, sources: Sequence[EnergySource]) -> None:
        """A sum.

        Raises:
            InputError: If there are fewer than two, or two of them cover the same part.
        """
        if len(sources) < 2:
            raise InputError("A sum of energy sources needs two or more.")
        for number, source in enumerate(sources):
            for other in sources[:number]:
                if common := source.parts & other.parts:
                    raise InputError(
                        f"Sources {other.name} and {source.name} both cover {', '.join(sorted(common))}; "
                        "add only sources of different parts."
                    )
        self.sources = tuple(sources)
        self.name = " + ".join(source.name for source in sources)
        self.scope = " + ".join(source.scope for source in sources)
        self.kind = max((source.kind for source in sources), key=KINDS.index)
        self.parts = frozenset().union(*(source.parts for source in sources))
        periods = [source.period_s for source in sources if source.period_s is not None]
        self.period_s = min(periods) if periods else None

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
        return Measurement(
            energy_j=sum(part.energy_j for part in parts),
            low_j=sum(part.low_j for part in parts),
            high_j=sum(part.high_j for part in parts),
            coverage=min(part.coverage for part in parts),
            samples=min(part.samples for part in parts),
            longest_gap_s=max((part.longest_gap_s for part in parts), key=lambda gap: math.inf if gap != gap else gap),
            note="; ".join(
                f"{source.name}: {part.note}" for source, part in zip(self.sources, parts, strict=True) if part.note
            ),
        )

    def trace(self) -> pd.DataFrame:
        """All traces, rails named after their source, and the sum of the totals as `total`."""
        tables = {source.name: source.trace() for source in self.sources}
        times = np.unique(np.concatenate([table["time_s"] for table in tables.values()]))
        totals = [table[table["rail"] == "total"] for table in tables.values()]
        power = sum((np.interp(times, total["time_s"], total["power_w"]) for total in totals), np.zeros(len(times)))
        named = [table.assign(rail=name + ": " + table["rail"]) for name, table in tables.items()]
        joined = pd.concat([pd.DataFrame({"time_s": times, "rail": "total", "power_w": power}), *named])
        return joined.sort_values("time_s", kind="stable", ignore_index=True)

    def describe(self) -> dict[str, object]:
        """What each says."""
        return {source.name: source.describe() for source in self.sources}

    def close(self) -> None:
        """Closes all."""
        for source in self.sources:
            source.close()

"""Which sources this machine has, and which of them the meter takes."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from mirolib.base.errors import InputError
from mirolib.energy.combined import CombinedSource
from mirolib.energy.sensors.battery import BatterySource
from mirolib.energy.sensors.board_band import BoardBandSource
from mirolib.energy.sensors.jetson import JetsonSource
from mirolib.energy.sensors.jtop import JtopSource
from mirolib.energy.sensors.model import ModelSource
from mirolib.energy.sensors.nvml import NvmlSource
from mirolib.energy.sensors.rapl import RaplSource
from mirolib.energy.sensors.zeus import ZeusSource
from mirolib.energy.source import EnergySource, NullSource


def candidates() -> list[EnergySource]:
    """Every kind of source, made for this machine, in the order in which they are preferred."""
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
    if name not in found:
        raise InputError(
            f"There is no energy source {name!r}; choose auto, {', '.join(found)}, or the path of a .csv trace."
        )
    for other in found.values():
        if other.name != name:
            other.close()
    return found[name]


def readable(names: Iterable[str]) -> list[str]:
    """Of sources by name (`auto` for what `choose` takes), those that read something on this machine."""
    found = []
    for source in [choose() if name == "auto" else named(name) for name in names]:
        if source.kind != "none":
            found.append(source.name)
        source.close()
    return found


def doctor() -> pd.DataFrame:
    """What this machine can measure.

    Returns:
        A row a source, in the order in which they are preferred: `available`, `kind`, `scope`, what was found, and how
        to make it available.
    """
    rows = []
    for source in candidates():
        found = source.probe()
        row = {"source": source.name, "available": found.available, "kind": source.kind, "scope": source.scope}
        rows.append(row | {"found": found.reason, "fix": found.fix})
        source.close()
    return pd.DataFrame(rows).set_index("source")

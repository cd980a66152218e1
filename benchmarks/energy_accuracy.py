"""How far joules are off, by kind of sensor, and how often the true value lies in the band.

A made-up machine goes through phases of 5 to 25 W, each steady, a wave of 130 ms or of 1.7 s, a ramp, or noise; its
true joules are known. Simulated sensors show them as real ones do, and the library's sources read these as the meter
does, in simulated time, each phase measured the moment that it ends. The INA3221 averages over 430 ms: as a rolling
mean, in blocks, or by the recursive filter of its data sheet; settled, the machine rests before and behind each phase.
The counters of RAPL are set back once in two phases; NVML's move every 100 ms; jtop tells a rolling mean once a second;
the battery's gauge looks every five seconds. `python -m benchmarks.energy_accuracy` writes the table into the page
docs/energy.md and docs/tables/energy_accuracy.csv.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from mirolib.energy import Measurement
from mirolib.energy.sampled import SETTLING, SampledSource
from tests.support.curves import AVERAGING_S, STEP_S, Counting, Simulated, averaged, joules, phases, walk

DOCS = Path(__file__).parents[1] / "docs"
TABLE = DOCS / "tables" / "energy_accuracy.csv"
LENGTHS_S = (2.0, 5.0, 10.0, 60.0)
SENSORS = (
    "ideal", "INA3221, rolling mean", "INA3221, blocks", "INA3221, recursive filter", "INA3221, rolling mean, settled",
    "INA3221, blocks, settled", "INA3221, recursive filter, settled", "RAPL with resets", "NVML, slow counter",
    "jtop, once a second", "battery, every 5 s",
)  # fmt: skip
_MARKS = "<!-- accuracy -->\n", "<!-- end of accuracy -->\n"


def measured(
    sensor: str, power_w: np.ndarray, edges_s: np.ndarray, rng: np.random.Generator, raw: bool = False
) -> list[Measurement]:
    """What a source over a sensor says of each phase; `raw` takes the readings of one that averages for instants."""
    seed, settled = int(rng.integers(1 << 30)), sensor.endswith("settled")
    if sensor == "ideal":
        return walk(Simulated(power_w), edges_s, seed)
    if sensor.startswith("INA"):
        way = next(way for way in ("rolling", "block", "recursive") if way in sensor)
        source = Simulated(averaged(power_w, way, phase=rng.uniform()), 0.0 if raw else AVERAGING_S)
        return walk(source, edges_s, seed, settled)
    if sensor.startswith(("RAPL", "NVML")):
        update_s, middle = (1e-3, (edges_s[1:] + edges_s[:-1]) / 2) if sensor.startswith("RAPL") else (0.1, [])
        return walk(Counting(power_w, update_s, tuple(middle[::2]), rng.uniform()), edges_s, seed)
    if sensor.startswith("jtop"):
        source = Simulated(averaged(power_w, "rolling"), AVERAGING_S)
        source.period_s, source.mark = 1.0, lambda: source.now  # type: ignore[method-assign]
        return told(source, edges_s, np.arange(rng.uniform(), edges_s[-1], 1.0))
    looks = power_w[:: round(5 / STEP_S)]
    digits = 0.01 * (np.arange(len(looks)) % 2)  # no two looks of a real gauge are quite the same
    source = Simulated(np.repeat(looks + digits, round(5 / STEP_S)))
    source.changes_only, source.gap_s, source.period_s = True, 60.0, 1.0
    return walk(source, edges_s, seed)


def told(source: SampledSource, edges_s: np.ndarray, instants_s: np.ndarray) -> list[Measurement]:
    """What a source says of each phase whose readings come on their own."""
    found = []
    for start, end in pairwise([0.0, *edges_s]):
        for instant in instants_s[(instants_s >= start) & (instants_s < end)]:
            source.now = instant  # type: ignore[attr-defined]
            source.add(instant, source.read(()))
        found.append(source.measure(start, end))
    return found[1:]


def accuracy(trials: int = 40, lengths_s: tuple[float, ...] = LENGTHS_S) -> pd.DataFrame:
    """A row a sensor and length of phase: errors and widths in percent of the true joules, trials of six phases."""
    rows = []
    for sensor in SENSORS:
        for length_s in lengths_s:
            truth, found, raw = [], [], []
            settled = sensor.endswith("settled")
            for trial in range(max(5, round(trials * min(1.0, 10 / length_s)))):
                rng = np.random.default_rng(trial)
                power, edges = phases(rng, [length_s] * 6, SETTLING * AVERAGING_S if settled else 0.0)
                spans = zip(edges[1:-1:2], edges[2::2], strict=True) if settled else pairwise(edges)
                truth += [joules(power, *span) for span in spans]
                found += measured(sensor, power, edges, np.random.default_rng(trial))
                if sensor.startswith("INA") and not settled:
                    raw += measured(sensor, power, edges, np.random.default_rng(trial), raw=True)
            rows.append({"sensor": sensor, "phase_s": length_s, **_row(np.array(truth), found, raw)})
    return pd.DataFrame(rows)


def _row(truth: np.ndarray, found: list[Measurement], raw: list[Measurement]) -> dict[str, float]:
    energy, low, high = (np.array([getattr(one, f"{what}_j") for one in found]) for what in ("energy", "low", "high"))
    known = ~np.isnan(energy)
    inside = (low <= truth * (1 + 1e-3)) & (truth * (1 - 1e-3) <= high)
    as_read = np.array([one.energy_j for one in raw]) / truth - 1 if raw else np.array([np.nan])

    def percent(values: np.ndarray) -> float:
        return float(np.round(100 * values, 2)) if np.size(values) else np.nan

    return {
        "phases": len(truth),
        "measured_percent": percent(known.mean()),
        "rms_error_percent": percent(np.sqrt(np.mean((energy / truth - 1)[known] ** 2))) if known.any() else np.nan,
        "rms_error_as_read_percent": percent(np.sqrt(np.mean(as_read**2))),
        "in_band_percent": percent(inside[known].mean()) if known.any() else np.nan,
        "mean_band_percent": percent(((high - low) / truth)[known].mean()) if known.any() else np.nan,
    }


def page(table: pd.DataFrame) -> str:
    """The table as docs/energy.md shows it; a dash where nothing is measured."""
    lines = [
        " | ".join(["sensor", "phase", "measured", "RMS error", "taken as read", "in its band", "width of the band"])
    ]
    lines.append(" | ".join(["---"] * 7))
    for row in table.itertuples(index=False):
        cells = [f"{value:g} %" if value == value else "-" for value in row[3:]]
        lines.append(" | ".join([row.sensor, f"{row.phase_s:g} s", *cells]))
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # each reset is one
    result = accuracy()
    result.to_csv(TABLE, index=False)
    before, _, rest = (DOCS / "energy.md").read_text(encoding="utf-8").partition(_MARKS[0])
    text = before + _MARKS[0] + "\n" + page(result) + "\n" + _MARKS[1] + rest.partition(_MARKS[1])[2]
    (DOCS / "energy.md").write_text(text, encoding="utf-8")

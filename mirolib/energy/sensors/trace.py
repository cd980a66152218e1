"""A recorded power trace as an energy source."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mirolib.base.errors import InputError, brief
from mirolib.base.files import read_bounded
from mirolib.energy.sampled import GAP_PERIODS, integrate
from mirolib.energy.source import Availability, EnergySource, Measurement, power_table

_MOST_BYTES = 1 << 30  # a day at 100 readings a second


class TraceSource(EnergySource):
    """A power trace recorded elsewhere, replayed from the moment this source is made.

    It is integrated as sampled power is, see `integrate`; its usual step is the median of its steps.
    """

    name, kind = "trace", "replayed"

    def __init__(self, times_s: ArrayLike, power_w: ArrayLike, *, scope: str = "as recorded") -> None:
        """A trace of watts, negative ones too, at rising instants in seconds, the first of which begins the replay.

        `scope` is what it had measured. An `InputError` says what is wrong: fewer than two samples, times that don't
        rise, or values that are not finite.
        """
        times, power = np.asarray(times_s, dtype=np.float64), np.asarray(power_w, dtype=np.float64)
        if times.ndim != 1 or times.shape != power.shape or len(times) < 2:
            what = f"A trace needs two samples or more, one power a time; got {times.shape} and {power.shape}."
            raise InputError(what)
        if not np.isfinite([times, power]).all():
            raise InputError("The trace holds NaN or infinite values; remove those samples.")
        if len(back := np.flatnonzero(np.diff(times) <= 0)):
            what = f"Time stands still or runs backwards at sample {back[0] + 1} of the trace"
            raise InputError(f"{what}; sort it and drop repeats.")
        self.scope = scope
        self._times = times - times[0] + self.clock()
        self._power = power

    @classmethod
    def from_csv(cls, path: str | Path) -> TraceSource:
        """Reads a CSV file with the columns `time_s` and `power_w`; an `InputError` if it holds no usable trace."""
        try:
            table = pd.read_csv(io.BytesIO(read_bounded(path, _MOST_BYTES)))
            if "rail" in table:  # as a run leaves it
                table = table[table["rail"] == "total"]
            return cls(table["time_s"], table["power_w"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{path} is no power trace (columns time_s and power_w of numbers)"
            raise InputError(f"{what}: {brief(error)}.") from error

    def probe(self) -> Availability:
        """Always available."""
        return Availability(True, f"{len(self._times)} samples over {self._times[-1] - self._times[0]:.1f} s")

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Energy of the part of the trace inside the interval; its mean is taken for what lies outside."""
        gap_s = GAP_PERIODS * float(np.median(np.diff(self._times)))
        found = integrate(self._times, self._power, start_s, end_s, gap_s)
        outside = start_s < self._times[0] - gap_s or end_s > self._times[-1] + gap_s
        return replace(found, note="the trace does not reach over the whole window") if outside else found

    def trace(self) -> pd.DataFrame:
        """The recording, on this machine's clock."""
        return power_table({"total": (self._times, self._power)})

"""Sources with running energy counters: what lies between two instants is the difference of two readings."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from mirolib.energy.source import NOT_MEASURED, LostReading, Measurement, SensorSource


class CounterSource(SensorSource):
    """A source that reads counters of energy, which may wrap around.

    Attributes:
        update_s: How often a counter moves; the band is as much of the mean power, and under five updates nothing is
            reported.
        unit_j: Joules a step of a counter.
        wraps: For counters that wrap: the value after the largest, by counter.
        may_rest: Counters that need not move; any other that doesn't for three periods counts as dead.
    """

    period_s = 1.0
    update_s: float
    unit_j: float
    wraps: Mapping[str, int] = {}
    may_rest: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self._set_back = array("d")
        self._last: Mapping[str, int] = {}
        self._moved: dict[str, float] = {}

    @abstractmethod
    def read(self) -> Mapping[str, int]:
        """The counters, by name.

        Raises:
            OSError: If one can't be read.
            ValueError: If what it says is no number.
        """

    def mark(self) -> float:
        """Reads the counters and adds what they have advanced."""
        with self._lock:  # also while reading: a value that is taken in after a later one would look set back
            return super().mark()

    def _ask(self) -> Mapping[str, int]:
        return dict(self.read())

    def _take(self, instant_s: float, said: Mapping[str, int]) -> None:
        if self._times and instant_s <= self._times[-1]:
            return
        self._moved |= {name: instant_s for name, value in said.items() if value != self._last.get(name)}
        # A counter may rest between two updates, and however often it moves, it is seen to once a period.
        limit = max(5 * self.update_s, 3 * (self.period_s or 1.0))
        late = [name for name in said if instant_s - self._moved[name] > limit and name not in self.may_rest]
        if late:
            raise LostReading(f"counter {late[0]} stands still")
        last, self._last = self._last or said, said
        total = self._total[-1] if self._total else 0.0
        for name, value in said.items():
            advance = value - last.get(name, value)
            if advance < 0 and (advance := advance + self.wraps.get(name, 0)) < 0:
                self._losses.add(self.name, instant_s, f"counter {name} was set back")
                self._set_back.append(instant_s)
                advance = 0
            _, joules = self._rails.get(name, ((), [0.0]))  # one that appears late has given nothing before
            self._keep(name, instant_s, joules[-1] + self.unit_j * advance)
            total += self.unit_j * advance
        self._keep("total", instant_s, total)

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Difference of the counters, interpolated between readings; beyond the readings nothing is known."""
        duration, note = end_s - start_s, self._losses.note(start_s, end_s)
        times, joules = self._around(start_s, end_s)
        first, last = (max(start_s, times[0]), min(end_s, times[-1])) if len(times) else (0.0, 0.0)
        if last - first < 5 * self.update_s:
            return replace(NOT_MEASURED, samples=len(times), note=note or "too short a window")
        covered = last - first
        energy = float(np.interp(last, times, joules) - np.interp(first, times, joules))
        if energy == 0:
            return replace(NOT_MEASURED, samples=len(times), note=note or "the counters stood still")
        power, unseen = energy / covered, max(0.0, duration - covered)
        steps = np.diff(joules) / np.diff(times)
        margin = float(steps.max()) * self.update_s  # what came before the window may still be counted within it
        set_back = any(start_s < instant <= end_s for instant in self._set_back)
        return Measurement(
            energy_j=energy + unseen * power,
            low_j=max(0.0, energy - margin) + unseen * float(steps.min()),
            # What was counted before the counter was set back is not known.
            high_j=float("nan") if set_back else energy + margin + unseen * float(steps.max()),
            coverage=0.0 if set_back else 1.0 if unseen < 1e-3 * duration else covered / duration,
            samples=len(times),
            longest_gap_s=float(np.diff(times).max()),
            note=note,
        )

    def trace(self) -> pd.DataFrame:
        """Mean power between two readings, at the later one."""
        joules = super().trace()
        steps = joules.groupby("rail")[["time_s", "power_w"]].diff()
        return joules.assign(power_w=steps["power_w"] / steps["time_s"]).dropna(ignore_index=True)

    def describe(self) -> dict[str, object]:
        """Counters and rates."""
        return super().describe() | {"counters": sorted(self._last), "update_s": self.update_s}

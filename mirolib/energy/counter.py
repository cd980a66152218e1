"""Sources with running energy counters: what lies between two instants is the difference of two readings."""

import math
from abc import abstractmethod
from array import array
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from mirolib.energy.source import NOT_MEASURED, LostReading, Measurement, SensorSource


class CounterSource(SensorSource):
    """A source that reads counters of energy, which may wrap around."""

    period_s = 1.0
    # how often a counter moves; the band is as much of the mean power, and under five updates nothing is reported
    update_s: float
    unit_j: float  # joules a step of a counter
    wraps: Mapping[str, int] = {}  # for counters that wrap: the value after the largest, by counter
    # more than any counter's consumer can take; a step that implies more is no energy, but a reset
    most_w: float = math.inf
    # counters that need not move; any other that doesn't for three periods counts as dead
    may_rest: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self._resets = array("d")  # instants of readings up to which, since the one before, nothing is known
        self._last: Mapping[str, int] = {}
        self._moved: dict[str, float] = {}

    @abstractmethod
    def read(self) -> Mapping[str, int]:
        """The counters, by name; an `OSError` if one can't be read, a `ValueError` if it says no number."""

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
        for name in [name for name in said if instant_s - self._moved[name] > limit and name not in self.may_rest]:
            self._give_up(name, "stands still")
            said = {other: value for other, value in said.items() if other != name}
        last, self._last = self._last or said, said
        steps = {name: value - last.get(name, value) for name, value in said.items()}
        steps = {name: step + self.wraps.get(name, 0) * (step < 0) for name, step in steps.items()}
        # what counts as one step may have come within an update before
        since_s = instant_s - self._times[-1] + 2 * self.update_s if self._times else math.inf
        if jumps := [name for name, step in steps.items() if not 0 <= step * self.unit_j <= self.most_w * since_s]:
            self._losses.add(self.name, instant_s, f"counter {jumps[0]} was set back, or jumped")
            self._resets.append(instant_s)
            steps = dict.fromkeys(steps, 0)
        for name, step in steps.items():
            _, joules = self._rails.get(name, ((), [0.0]))  # one that appears late has given nothing before
            self._keep(name, instant_s, joules[-1] + self.unit_j * step)
        self._keep("total", instant_s, (self._total[-1] if self._total else 0.0) + self.unit_j * sum(steps.values()))

    def _give_up(self, name: str, why: str) -> None:
        """Raises LostReading for a counter that is of no use, as the others may not be the whole."""
        raise LostReading(f"counter {name} {why}")

    @property
    def least_s(self) -> float:
        """Twenty updates, for a band of five percent."""
        return 20 * self.update_s

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Difference of the counters, interpolated between readings; beyond them, and over resets, nothing is seen."""
        duration, note = end_s - start_s, self._losses.note(start_s, end_s)
        times, joules = self._around(start_s, end_s)
        known = ~np.isin(times[1:], self._resets)
        width = known * (np.minimum(times[1:], end_s) - np.maximum(times[:-1], start_s)).clip(0)
        covered, watts = float(width.sum()), np.diff(joules) / np.diff(times)
        if not covered >= 5 * self.update_s:
            return replace(NOT_MEASURED, samples=len(times), note=note or "too short a window")
        energy = float(watts @ width)
        if energy == 0:
            return replace(NOT_MEASURED, samples=len(times), note=note or "the counters stood still")
        power, unseen, steps = energy / covered, max(0.0, duration - covered), watts[known]
        margin = float(steps.max()) * self.update_s  # what came before the window may still be counted within it
        return Measurement(
            energy_j=energy + unseen * power,
            low_j=max(0.0, energy - margin) + unseen * float(steps.min()),
            high_j=energy + margin + unseen * float(steps.max()),
            coverage=1.0 if unseen < 1e-3 * duration else covered / duration,
            samples=len(times),
            longest_gap_s=float(np.diff(times).max()),
            note=note,
        )

    def trace(self) -> pd.DataFrame:
        """Mean power between two readings, at the later one."""
        joules = super().trace()
        steps = joules.groupby("rail")[["time_s", "power_w"]].diff()
        watts = (steps["power_w"] / steps["time_s"]).mask(joules["time_s"].isin(self._resets))
        return joules.assign(power_w=watts).dropna(ignore_index=True)

    def describe(self) -> dict[str, object]:
        """Counters and rates."""
        return super().describe() | {"counters": sorted(self._last), "update_s": self.update_s}

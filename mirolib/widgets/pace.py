"""Power and work over time, looked at from outside while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mirolib.energy import EnergyMeter, Work
from mirolib.learning.learner import Tally

_MOST_LOOKS = 1200  # five minutes at 4 Hz; then every other is dropped
_WINDOW_S, _WINDOW_PERIODS = 1.0, 6  # power is the mean of so long, and of so many readings of a slow sensor


@dataclass(frozen=True, eq=False)
class Pace:
    """Power and work at some instants, and what was going on.

    Attributes:
        time_s: `(n,)` seconds since the first look.
        work: `(n,)` sample visits done by then.
        power_w: `(n,)` mean power of the time just before; NaN where it is not known.
        kind: How power is got; `none` where there is no sensor.
        phases: Name, beginning and end of each phase, in seconds since the first look.
    """

    time_s: np.ndarray
    work: np.ndarray
    power_w: np.ndarray
    kind: str = "none"
    phases: Sequence[tuple[str, float, float]] = ()

    @property
    def rate(self) -> np.ndarray:
        """`(n,)` sample visits a second over the four looks before each instant; NaN at the first."""
        # four: between two looks there may be a step or none
        before = np.maximum(np.arange(len(self.time_s)) - 4, 0)
        elapsed = self.time_s - self.time_s[before]
        return np.divide(self.work - self.work[before], elapsed, out=np.full(len(elapsed), np.nan), where=elapsed > 0)


NO_PACE = Pace(np.zeros(0), np.zeros(0), np.zeros(0))


class PaceSampler:
    """Looks at a meter and a learner's tally now and then; one thread alone may use it."""

    def __init__(self, meter: EnergyMeter, tally: Tally) -> None:
        """A sampler whose time begins now."""
        self._meter, self._tally, self._start = meter, tally, time.monotonic()
        self._looks: list[tuple[float, float, float]] = []

    def sample(self) -> Pace:
        """Takes down how things stand, and returns all so far."""
        now, start, tally, source = time.monotonic(), self._start, self._tally, self._meter.source
        work = Work(tally.visits, tally.forward_visits).visit_equivalents
        window_s = max(_WINDOW_S, _WINDOW_PERIODS * (source.period_s or 0.0))
        power_w = source.measure(now - window_s, now).energy_j / window_s
        self._looks.append((now - start, work, power_w))
        if len(self._looks) > _MOST_LOOKS:
            del self._looks[::2]  # the whole run stays on the chart, at half the resolution
        phases = [(row.window, row.start_s, row.start_s + row.duration_s) for row in self._meter.readings]
        name, since = self._meter.under_way
        phases += [(name, since, now)] if name else []
        phases = [(name, max(0.0, begin - start), end - start) for name, begin, end in phases]
        time_s, works, powers_w = np.array(self._looks).T
        return Pace(time_s, works, powers_w, source.kind, phases)

"""Sources that read power: samples become joules by the trapezoid rule, with a band and a coverage."""

import bisect
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mirolib.energy.source import NOT_MEASURED, Losses, LostReading, Measurement, SensorSource

LEAST_SAMPLES = 5  # under this many nothing is reported
GAP_PERIODS = 3.0  # a stretch without samples of more periods counts as not seen, unless a source says otherwise
LEAST_AVERAGES = 4.0  # windows of fewer averaging times are told apart only with rest before and behind them
SETTLING = 5.0  # averaging times after which a sensor shows rest alone: a recursive mean is then within one percent
_LAG = 0.75


def integrate(
    times_s: np.ndarray,
    power_w: np.ndarray,
    start_s: float,
    end_s: float,
    gap_s: float,
    resolution_w: float = 0.0,
    extremes_w: tuple[float, float] | None = None,
) -> Measurement:
    """Energy of power `(n,)`, sampled at rising instants `(n,)`, from one instant to another, by the trapezoid rule.

    The first and last sample hold for up to `gap_s` beyond them. Longer stretches without a sample count as not seen:
    the mean power of the rest is taken for them, and the band assumes anything between `extremes_w`, the lowest and
    highest power ever seen, by default those of `power_w`. The band's other parts are twice the standard deviation of
    the sampling error and half of `resolution_w`, the smallest step of the readings. Fewer than five samples give no
    number.
    """
    inside = int(np.searchsorted(times_s, end_s, "right") - np.searchsorted(times_s, start_s, "left"))
    duration = end_s - start_s
    if inside < LEAST_SAMPLES or duration <= 0:
        return replace(NOT_MEASURED, samples=inside, note=f"only {inside} samples")
    first, last = max(start_s, times_s[0] - gap_s), min(end_s, times_s[-1] + gap_s)
    t = np.concatenate([[first] if first < times_s[0] else [], times_s, [last] if last > times_s[-1] else []])
    p = np.interp(t, times_s, power_w)
    a, b = np.maximum(t[:-1], start_s), np.minimum(t[1:], end_s)
    within = b > a
    seen = within & (np.diff(t) <= gap_s * (1 + 1e-9))  # rounding must not make a gap of a rhythm that just fits
    width = (b - a)[seen]
    energy = float((width * (np.interp(a[seen], t, p) + np.interp(b[seen], t, p)) / 2).sum())
    covered = float(width.sum())
    if covered <= 0:
        return replace(NOT_MEASURED, samples=inside, note="no two samples close enough")
    # The variance of stratified sampling with one sample a stratum is estimated from successive differences.
    margin = 2 * math.sqrt(float(np.square(width * np.diff(p)[seen]).sum()) / 2) + resolution_w / 2 * covered
    unseen = max(0.0, duration - covered)
    lowest, highest = extremes_w or (float(power_w.min()), float(power_w.max()))
    return Measurement(
        energy_j=energy + unseen * energy / covered,
        low_j=energy - margin + unseen * lowest,
        high_j=energy + margin + unseen * highest,
        coverage=1.0 if unseen < 1e-6 * duration else covered / duration,
        samples=inside,
        longest_gap_s=float(np.diff([start_s, *times_s[(times_s > start_s) & (times_s < end_s)], end_s]).max()),
    )


def undelayed(
    found: Measurement,
    times_s: np.ndarray,
    power_w: np.ndarray,
    edges_s: tuple[float, float, float],
    averaging_s: float,
) -> Measurement:
    """What `integrate` has found in readings `(n,)` that are means over some time, their lag taken back at both edges.

    Readings r that lag by L show L times the power before the start, and leave as much at the end to come: the energy
    is that of r plus L (r(end) - r(start)). A rolling mean lags by half of the averaging time, blocks and the recursive
    mean of the INA3221's data sheet by all of it; three quarters are off by a quarter either way. The band holds any
    such lag: the swing of the readings times the averaging time at each edge. `edges_s` are start, end, and until when
    the machine was at rest behind it, as it then was before: of that only its own swing leaks.
    """
    start_s, end_s, until_s = edges_s
    settled = until_s > end_s
    if end_s - start_s < LEAST_AVERAGES * averaging_s and not settled:
        longer = f"take windows of {LEAST_AVERAGES * averaging_s:.2g} s or more, or energy_settle"
        note = f"not resolvable: each reading is a mean over {averaging_s:.2g} s; {longer}"
        return replace(NOT_MEASURED, samples=found.samples, note=note)
    leaking = power_w[(times_s <= start_s) | (times_s >= (end_s + until_s) / 2)] if settled else power_w
    rest_j = (until_s - end_s) * power_w[times_s >= min(until_s - averaging_s, times_s[-1])].mean()
    at_start, at_end = np.interp([start_s, until_s], times_s, power_w)
    shift, margin = float(_LAG * averaging_s * (at_end - at_start) - rest_j), 2 * averaging_s * float(np.ptp(leaking))
    low_j, high_j = found.low_j + shift - margin, found.high_j + shift + margin
    return replace(found, energy_j=found.energy_j + shift, low_j=low_j, high_j=high_j)


class SampledSource(SensorSource):
    """A source that reads the power of rails, some of which add up to the total."""

    period_s: float = 0.05
    total_rails: tuple[str, ...] = ("total",)  # rails whose sum is the total; they are read every time
    other_rails: tuple[str, ...] = ()  # rails to look at beside, read less often
    resolution_w: float = 0.0  # smallest step of each rail
    # readings may stay exactly the same for as long; then the sensor counts as dead since they did
    stale_after_s: float = math.inf
    gap_s: float | None = None  # longest time between samples that counts as seen; by default three periods
    # whether a reading that repeats the last is no sample, as with a gauge that is asked more often than it looks
    changes_only: bool = False
    _other_period_s = 0.25  # they enter no total, and reading each costs as much as a rail of the total
    _least_w = -1.0  # a rail at rest may read slightly negative; a whole board never draws less than this

    def __init__(self) -> None:
        super().__init__()
        self._rail_losses = Losses()  # apart, since they say nothing against a window's total
        self._last_others = self._changed = -math.inf
        self._last_read: Mapping[str, float] = {}
        self._extremes = (math.inf, -math.inf)
        self._rests: list[tuple[float, float]] = []

    def _averages(self, averaging_s: float) -> None:
        """Takes note of what the sensor averages over, which is how often it deserves to be read."""
        if averaging_s > type(self).period_s:  # less than that is no more than an instant
            self.averaging_s = self.period_s = averaging_s  # a window begins with four times that rate

    @property
    def least_s(self) -> float:
        """Ten readings, as often as they come; those of a sensor that averages are as many averaging times apart."""
        came = np.diff(self._times[-10:]) if self.changes_only else ()
        return 10 * max(float(np.median(came)) if len(came) else self.period_s, self.averaging_s)

    def rested(self, start_s: float, end_s: float) -> None:
        """Keeps it, for windows that it leads to or follows."""
        self._rests.append((start_s, end_s))

    @abstractmethod
    def read(self, rails: Sequence[str]) -> Mapping[str, float]:
        """Power of some rails now, in watts; an `OSError` if it can't be read, a `ValueError` if it is no number."""

    def _ask(self) -> Mapping[str, float]:
        return self.read(self.total_rails)

    def _take(self, instant_s: float, said: Mapping[str, float]) -> None:
        self.add(instant_s, said)
        if self.other_rails and instant_s - self._last_others >= self._other_period_s:
            self._last_others = instant_s
            for rail in self.other_rails:
                try:
                    self._keep(rail, instant_s, self.read((rail,))[rail])
                except (OSError, ValueError) as error:
                    self._rail_losses.add(self.name, self.clock(), error)

    def add(self, instant_s: float, rails: Mapping[str, float]) -> None:
        """Takes in a reading of the rails that make the total, and of any others; `LostReading` if it is unusable."""
        missing = [rail for rail in self.total_rails if rail not in rails]
        if missing or not self.total_rails:
            raise LostReading(f"{', '.join(missing) or 'a known total'} missing from the reading")
        total = sum(rails[rail] for rail in self.total_rails)
        if not self._least_w < total < math.inf:
            raise LostReading(f"the sensor says {total:g} W")
        with self._lock:
            if self._times and instant_s <= self._times[-1]:
                return  # two threads read at the same time; one of them is enough
            if rails != self._last_read:  # all of them: the total alone may well repeat
                self._last_read, self._changed = rails, instant_s
            elif self.changes_only:
                return
            elif instant_s - self._changed > self.stale_after_s:
                alive = bisect.bisect_right(self._times, self._changed)
                del self._total[alive:], self._times[alive:]
                raise LostReading(f"the sensor has said exactly the same for over {self.stale_after_s:.0f} s")
            self._keep("total", instant_s, total)
            self._extremes = min(self._extremes[0], total), max(self._extremes[1], total)
        for rail in rails:
            if rail != "total":
                self._keep(rail, instant_s, rails[rail])

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Energy by the trapezoid rule; see `integrate`, and `undelayed` for a sensor that averages."""
        averaging_s = self.averaging_s
        rested = any(0 <= start_s - end <= averaging_s / 4 for _, end in self._rests)
        until_s = next((end for start, end in self._rests if rested and start == end_s), end_s)
        times, power = self._around(start_s - 2 * averaging_s, until_s)
        gap_s = self.gap_s or GAP_PERIODS * self.period_s
        resolution_w = self.resolution_w * len(self.total_rails)  # each rail is rounded for itself
        found = integrate(times, power, start_s, until_s, gap_s, resolution_w, self._extremes)
        if averaging_s and found.coverage:
            found = undelayed(found, times, power, (start_s, end_s, until_s), averaging_s)
        note = "; ".join(filter(None, [found.note, self._losses.note(start_s, end_s)]))
        return replace(found, note=note)

    def describe(self) -> dict[str, object]:
        """Rails and rates."""
        rails = {"total_rails": list(self.total_rails), "other_rails": list(self.other_rails)}
        facts = rails | {"resolution_w": self.resolution_w, "averaging_s": self.averaging_s}
        return super().describe() | facts | {"rail_readings_lost": len(self._rail_losses)}

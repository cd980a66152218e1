"""What every energy source has in common, what those with a sensor do, and the source that says there is none."""

import bisect
import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

logger = logging.getLogger(__name__)

Kind = Literal["measured", "measured-partial", "replayed", "estimated-calibrated", "estimated-uncalibrated", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # how a number was got, the most trustworthy first
NO_JOULES: tuple[Kind, ...] = ("none", "estimated-uncalibrated")  # work stands in for decisions and comparisons


@dataclass(frozen=True)
class Availability:
    """Whether a source can be used here."""

    available: bool
    reason: str  # what was found
    fix: str = ""  # what would make it available; empty if nothing does or nothing needs to


@dataclass(frozen=True)
class Measurement:
    """Energy between two instants."""

    energy_j: float  # best value in joules; NaN where there is none
    low_j: float  # lower end of the band in which the true value is expected
    high_j: float  # upper end of the band
    coverage: float  # share of the interval that the source saw, in [0, 1]; the rest is taken at the mean power seen
    samples: int  # number of sensor readings it rests on
    longest_gap_s: float  # longest time between two readings
    note: str = ""  # what went wrong meanwhile; empty if nothing


class LostReading(OSError):
    """A sensor gave no usable value this time; its text says what it gave, and `fix` what would help, if anything."""

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.fix = fix


_NAN = float("nan")
NOT_MEASURED = Measurement(_NAN, _NAN, _NAN, 0.0, 0, _NAN)


class EnergySource(ABC):
    """Where joules come from."""

    name: str  # short name for tables
    kind: Kind  # how its numbers are got
    scope: str  # what part of the machine they cover
    parts: frozenset[str] = frozenset()  # the same as names of consumers; only disjoint ones are added
    period_s: float | None = None  # how often to `mark` while something is measured; None if edges are enough
    averaging_s: float = 0.0  # each reading is a mean over about as long; 0 for one of an instant
    clock: Callable[[], float] = staticmethod(time.monotonic)  # all its instants are on it

    @abstractmethod
    def probe(self) -> Availability:
        """Says whether the source can be read here, or why not and how to fix it."""

    def mark(self) -> float:
        """Takes a reading, if there is one, and says when, in seconds of `clock`; one that fails counts as lost."""
        return self.clock()

    @abstractmethod
    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Energy between two instants that `mark` returned."""

    def trace(self) -> pd.DataFrame:
        """Power as it was read, a row each: `time_s` (monotonic clock), `rail` (`total` or a name) and `power_w`."""
        return power_table({})

    def describe(self) -> dict[str, object]:
        """Facts to keep with a run, such as the board and its rails."""
        return {}

    @property
    def least_s(self) -> float:
        """Seconds that a window should last to be compared with others; 0 where any will do."""
        return 0.0

    def rested(self, start_s: float, end_s: float) -> None:  # noqa: B027
        """Takes note that the machine was at rest between two instants, before a window or behind it."""

    def close(self) -> None:  # noqa: B027
        """Ends what the source has started."""


def power_table(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """The instants and watts of some rails as `EnergySource.trace` gives them, in the order of time."""
    tables = [pd.DataFrame({"time_s": t, "rail": rail, "power_w": power}) for rail, (t, power) in series.items()]
    # pandas refuses to join nothing, which is what a source without a sensor has.
    table = pd.concat(tables or [pd.DataFrame({"time_s": [], "rail": [], "power_w": []})])
    return table.sort_values("time_s", kind="stable", ignore_index=True)


class NullSource(EnergySource):
    """No sensor: every energy is NaN, of kind `none`."""

    name, kind, scope = "none", "none", "nothing"

    def probe(self) -> Availability:
        """Always available."""
        return Availability(True, "no sensor is read; work is counted instead")

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """NaN."""
        return NOT_MEASURED


class Losses:
    """What a source failed to read and when; the first time it is logged too."""

    def __init__(self) -> None:
        self._instants, self._texts = array("d"), list[str]()

    def __len__(self) -> int:
        return len(self._instants)

    def add(self, source: str, instant_s: float, error: Exception | str) -> None:
        """Notes that the source of a name lost a reading at an instant, and what went wrong."""
        text = str(error) or type(error).__name__
        if not self._instants:  # once: a sensor that died would fill the log, many times a second
            logger.warning("Energy source %s lost a reading: %s", source, text)
        # One text for as long as it stays the same: a sensor that died days ago must take little memory.
        self._texts.append(sys.intern(text))
        self._instants.append(instant_s)

    def note(self, start_s: float, end_s: float) -> str:
        """What was lost between two instants, in words; empty if nothing was."""
        first, end = bisect.bisect_left(self._instants, start_s), bisect.bisect_right(self._instants, end_s)
        return f"{end - first} readings lost, the last: {self._texts[end - 1]}" if end > first else ""


class SensorSource(EnergySource):
    """A source with a sensor that is read again and again; what it said is kept, and when it said nothing."""

    _fix = ""  # what helps where a reading fails and its error names nothing

    def __init__(self) -> None:
        self._lock = threading.Lock()  # edges are marked by the thread that trains, the instants between by another
        self._times, self._total = array("d"), array("d")  # instants and what was read, watts or joules
        self._rails = {"total": (self._times, self._total)}
        self._losses = Losses()
        self._facts: dict[str, object] = {}  # to keep with a run

    def probe(self) -> Availability:
        """Whether the sensor answers, asked once; why not and how to fix it are what its error says."""
        try:
            return self.availability(self._ask())
        except (OSError, ValueError) as error:
            return Availability(False, f"{error}", getattr(error, "fix", "") or self._fix)

    def availability(self, said: Mapping[str, Any]) -> Availability:
        """Whether what the sensor says is enough."""
        return Availability(True, f"{self.scope}: {', '.join(said)}")

    @abstractmethod
    def _ask(self) -> Mapping[str, Any]:
        """What the sensor says now, by rail or counter."""

    @abstractmethod
    def _take(self, instant_s: float, said: Mapping[str, Any]) -> None:
        """Keeps what the sensor said at an instant; raises LostReading if that is not usable."""

    def _keep(self, rail: str, instant_s: float, value: float) -> None:
        times, values = self._rails.setdefault(rail, (array("d"), array("d")))
        times.append(instant_s)  # first: who measures meanwhile counts the readings by their values
        values.append(value)

    def _around(self, start_s: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Instants and values `(n,)` of the total in a window, with up to two readings before it and one behind."""
        count = len(self._total)
        low = max(0, bisect.bisect_right(self._times, start_s, hi=count) - 2)
        high = min(count, bisect.bisect_left(self._times, end_s, hi=count) + 1)
        return np.array(self._times[low:high]), np.array(self._total[low:high])

    def trace(self) -> pd.DataFrame:
        """Total and rails as they were read."""
        series = {}
        for rail, (times, values) in self._rails.copy().items():
            read = np.array(values)
            series[rail] = np.array(times)[: len(read)], read
        return power_table(series)

    def mark(self) -> float:
        """Reads the sensor; the instant is the middle of reading it."""
        start = self.clock()
        try:
            said = self._ask()
            instant = (start + self.clock()) / 2
            self._take(instant, said)
        except Exception as error:  # whatever a driver does, the run goes on
            return self._lose(error)
        return instant

    def _lose(self, error: Exception | str) -> float:
        now = self.clock()
        self._losses.add(self.name, now, error)
        return now

    def describe(self) -> dict[str, object]:
        """How often it is read, and how often in vain; and facts of its own."""
        return {"period_s": self.period_s, "readings_lost": len(self._losses), **self._facts}

"""Rows of the ledger: energy, how it was got, and the work that was done."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass

from mirolib.energy.source import Kind, Measurement

ENOUGH_COVERAGE = 0.9  # rows that saw less of their interval don't enter totals
FORWARD_SHARE = 1 / 3  # of a training step's work: the backward pass takes about twice the forward one
LEARNING = ("receive", "profile", "train", "retain")  # windows that are needed to learn; evaluation is for the report
_MISSING_SHARE = 0.05  # of the time; windows too short for the sensor, such as flushing after a task, stay far below

_BADGES: dict[Kind, tuple[str, str]] = {
    "measured": ("measured", "#009E73"),
    "measured-partial": ("partial", "#0072B2"),
    "replayed": ("replayed", "#CC79A7"),
    "estimated-calibrated": ("estimated", "#D55E00"),
    "estimated-uncalibrated": ("estimated, uncalibrated", "#D55E00"),
    "none": ("none", "#777777"),
}  # word and colour of each kind


@dataclass(frozen=True)
class Work:
    """Work done since the start of a run; subtract two to see what lies between."""

    visits: int = 0  # samples that went through a training step
    forward_visits: int = 0  # samples that went through a forward pass alone
    cpu_s: float = 0.0  # processor seconds of this process, all threads
    bytes_read: int = 0  # bytes read from the storage tier
    bytes_written: int = 0  # bytes written to the storage tier

    def __sub__(self, earlier: Work) -> Work:
        return Work(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    @property
    def visit_equivalents(self) -> float:
        """Sample visits, where a forward pass alone counts as the `FORWARD_SHARE` of a training step that it is."""
        return self.visits + FORWARD_SHARE * self.forward_visits


@dataclass(frozen=True)
class Reading:
    """One row of the ledger: an interval with its energy, how that was got, and its work."""

    activities: tuple[str, ...]  # what was going on, all the time: the windows open, outermost first
    task: int  # task it belongs to; -1 for none
    start_s: float  # seconds of the monotonic clock
    duration_s: float
    measurement: Measurement
    work: Work
    kind: Kind  # how the energy was got
    scope: str  # what part of the machine it covers
    source: str  # its name
    idle_power_w: float = float("nan")  # power of the machine at rest, measured before; NaN where it was not

    @property
    def window(self) -> str:
        """The activities in one word, such as `train` or `train+swap`."""
        return "+".join(self.activities)

    @property
    def above_idle_j(self) -> float:
        """Energy above what the machine takes at rest; NaN where that was not measured."""
        return self.measurement.energy_j - self.idle_power_w * self.duration_s

    def row(self) -> dict[str, object]:
        """The reading as one flat row."""
        return {
            "window": self.window, "task": self.task, "start_s": self.start_s, "duration_s": self.duration_s,
            **asdict(self.measurement), "above_idle_j": self.above_idle_j, **asdict(self.work),
            "kind": self.kind, "scope": self.scope, "source": self.source,
        }  # fmt: skip

    def __repr__(self) -> str:
        m = self.measurement
        if math.isnan(m.energy_j):
            band = "" if math.isnan(m.low_j) else f" (between {m.low_j:.4g} and {m.high_j:.4g} J)"
            value = f"no joules{band} but {self.work.cpu_s:.3g} processor seconds"
        else:
            value = f"{m.energy_j:.4g} J (band {m.low_j:.4g} to {m.high_j:.4g})"
            if not math.isnan(self.above_idle_j):
                value += f", {self.above_idle_j:.4g} J above idle"
        seen = f", {m.coverage:.0%} of it seen" if 0 < m.coverage < 1 else ""
        note = f" [{m.note}]" if m.note else ""
        how = "no sensor" if self.kind == "none" else f"{self.kind}, {self.scope}"
        return f"{self.window}: {value} in {self.duration_s:.3g} s{seen}; {how}{note}"

    def _repr_html_(self) -> str:
        word, colour = _BADGES[self.kind]
        style = f"background:{colour};color:white;border-radius:0.7em;padding:0.1em 0.7em"
        text = f"<i>{html.escape(self.scope)}</i> &nbsp; {html.escape(str(self))}"
        return f'<div><span style="{style}">{word}</span> {text}</div>'


def in_windows(readings: Iterable[Reading], *activities: str) -> list[Reading]:
    """Those of some readings in which one of the activities was going on."""
    return [reading for reading in readings if not set(activities).isdisjoint(reading.activities)]


def total_energy_j(readings: Iterable[Reading]) -> float:
    """Energy of several readings in joules.

    Rows too short to be measured count at the mean power of the others, as long as they are a twentieth of the time at
    most. NaN if more is missing, or less than nine tenths of a row were seen.
    """
    rows = list(readings)
    seen = [row for row in rows if row.measurement.coverage >= ENOUGH_COVERAGE]
    duration = sum(row.duration_s for row in seen)
    missing_s = sum(row.duration_s for row in rows) - duration
    if not duration or missing_s > _MISSING_SHARE * (duration + missing_s):
        return float("nan")
    return sum(row.measurement.energy_j for row in seen) * (1 + missing_s / duration)

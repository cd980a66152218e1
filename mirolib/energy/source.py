"""What every energy source has in common, and the source that says there is none."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

Kind = Literal["measured", "measured-partial", "estimated-calibrated", "estimated-uncalibrated", "replayed", "none"]


@dataclass(frozen=True)
class Availability:
    """Whether a source can be used here.

    Attributes:
        available: Whether it can.
        reason: What was found.
        fix: What would make it available; empty if nothing does or nothing needs to.
    """

    available: bool
    reason: str
    fix: str = ""


@dataclass(frozen=True)
class Measurement:
    """Energy between two instants.

    Attributes:
        energy_j: Best value in joules; NaN where there is none.
        low_j: Lower end of the band in which the true value lies.
        high_j: Upper end of the band.
        coverage: Share of the interval that the source saw, in [0, 1].
        samples: Number of sensor readings it rests on.
        longest_gap_s: Longest time between two readings.
    """

    energy_j: float
    low_j: float
    high_j: float
    coverage: float
    samples: int
    longest_gap_s: float


NOT_MEASURED = Measurement(float("nan"), float("nan"), float("nan"), 0.0, 0, float("nan"))


class EnergySource(ABC):
    """Where joules come from.

    Attributes:
        name: Short name for tables.
        kind: How its numbers are got.
        scope: What part of the machine they cover.
        refresh_s: How often `mark` must be called for the source to stay right; None if edges are enough.
    """

    name: str
    kind: Kind
    scope: str
    refresh_s: float | None = None

    @abstractmethod
    def probe(self) -> Availability:
        """Says whether the source can be read here, or why not and how to fix it."""

    @abstractmethod
    def mark(self) -> float:
        """Takes a reading at the edge of a window.

        Returns:
            The instant of the reading, in seconds of the monotonic clock.
        """

    @abstractmethod
    def measure(self, start_s: float, end_s: float) -> Measurement:
        """Energy between two instants that `mark` returned."""


class NullSource(EnergySource):
    """No sensor: every energy is NaN, of kind `none`."""

    name, kind, scope = "none", "none", "nothing"

    def probe(self) -> Availability:
        """Always available."""
        return Availability(True, "no sensor is read; work is counted instead")

    def mark(self) -> float:
        """The instant, without a reading."""
        return time.monotonic()

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """NaN."""
        return NOT_MEASURED

"""A band of energy for a known board without a sensor: between its power at rest and its power cap."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mirolib.energy.sensors.boards import MODEL_FILE, identify
from mirolib.energy.source import Availability, EnergySource, Measurement

_NAN = float("nan")
_NOTE = "no sensor: between the board's idle power and its power cap"


class BoardBandSource(EnergySource):
    """Bounds of the energy of a Jetson board none of whose sensors can be read; there is no best value.

    The lower end is the module's usual power at rest, the upper the highest cap of its power modes, each times the
    duration. Caps are budgets of NVIDIA's clock settings; a mode without one (MAXN) may take more.
    Source: the idle power and caps in `mirolib.energy.sensors.boards`.
    """

    name, kind, scope = "board band", "estimated-uncalibrated", "Jetson module"
    parts = frozenset({"cpu", "dram", "gpu", "module"})

    def __init__(self, model_file: str | Path = MODEL_FILE, clock: Callable[[], float] = time.monotonic) -> None:
        """Looks up the board that `model_file` names."""
        self._clock, self._board = clock, identify(model_file)
        self._idle_w = self._cap_w = _NAN
        if self._board is not None:
            self.scope = f"{self._board.name} module"
            if self._board.idle_w is not None and self._board.caps_w:
                self._idle_w, self._cap_w = self._board.idle_w, max(self._board.caps_w)

    def probe(self) -> Availability:
        """Whether idle power and cap of this board are known."""
        if self._idle_w < self._cap_w:
            return Availability(True, f"{self.scope}, {self._idle_w:g} to {self._cap_w:g} W")
        on = "" if self._board is None else f" ({self._board.name})"
        return Availability(False, f"no band is known for this machine{on}")

    def mark(self) -> float:
        """The instant, without a reading."""
        return self._clock()

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """NaN between idle power and cap, times the duration."""
        duration_s = end_s - start_s
        return Measurement(_NAN, self._idle_w * duration_s, self._cap_w * duration_s, 0.0, 0, _NAN, _NOTE)

    def describe(self) -> dict[str, object]:
        """The board with its idle power and cap in watts."""
        return {"board": self._board.name if self._board else "", "idle_w": self._idle_w, "cap_w": self._cap_w}

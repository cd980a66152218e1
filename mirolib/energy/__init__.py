"""The energy meter: joules by activity with how they were got, and the work that was done in each.

A source measures the energy between two instants of the monotonic clock; the meter books it to activities. Where there
is no sensor the null source says so: energy is then NaN of kind `none`, and work (sample visits, CPU-seconds, bytes)
is what can be compared.
"""

from mirolib.energy import magic
from mirolib.energy.calibrate import calibrate
from mirolib.energy.compare import Difference, compare
from mirolib.energy.counter import CounterSource
from mirolib.energy.doctor import CombinedSource, Place, choose, doctor, named
from mirolib.energy.ledger import FORWARD_SHARE, Reading, Work, in_windows, in_windows as during, total_energy_j
from mirolib.energy.meter import EnergyMeter, Window
from mirolib.energy.sampled import SampledSource, integrate
from mirolib.energy.sensors.model import ModelSource, PowerModel
from mirolib.energy.sensors.rapl import RaplSource
from mirolib.energy.sensors.trace import TraceSource
from mirolib.energy.source import (
    KINDS,
    NO_JOULES,
    Availability,
    EnergySource,
    Kind,
    LostReading,
    Measurement,
    NullSource,
)

__all__ = [
    "FORWARD_SHARE", "KINDS", "NO_JOULES", "Availability", "CombinedSource", "CounterSource", "Difference",
    "EnergyMeter", "EnergySource", "Kind", "LostReading", "Measurement", "ModelSource", "NullSource", "Place",
    "PowerModel", "RaplSource", "Reading", "SampledSource", "TraceSource", "Window", "Work", "calibrate", "choose",
    "compare", "doctor", "during", "in_windows", "integrate", "magic", "named", "total_energy_j",
]  # fmt: skip

"""The energy meter: joules by window with how they were got, and the work that was done in each.

A source measures the energy between two instants of the monotonic clock; the meter books it to windows. Where there
is no sensor the null source says so: energy is then NaN of kind `none`, and work (sample visits, CPU-seconds, bytes)
is what can be compared.
"""

from mirolib.energy.meter import EnergyMeter, Reading, Work, total_energy_j
from mirolib.energy.rapl import RaplSource
from mirolib.energy.source import Availability, EnergySource, Kind, Measurement, NullSource
from mirolib.energy.trace import TraceSource

__all__ = [
    "Availability",
    "EnergyMeter",
    "EnergySource",
    "Kind",
    "Measurement",
    "NullSource",
    "RaplSource",
    "Reading",
    "TraceSource",
    "Work",
    "total_energy_j",
]

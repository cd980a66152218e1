"""Sensors that the tests set, and the trees of files that a machine shows them in."""

from pathlib import Path

import numpy as np

from mirolib import EnergyMeter
from mirolib.energy import Availability, SampledSource


class Clock:
    """Time that the test sets; with a step, it also moves a little at every look."""

    def __init__(self, step=0.0):
        self.now, self.step = 100.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def steps(source, clock, happenings):
    """Marks the source at the ends of steps of (seconds, what happens in them); the instants."""
    instants = [source.mark()]
    for seconds, happen in happenings:
        happen()
        clock.now += seconds
        instants.append(source.mark())
    return instants


class Sensor(SampledSource):
    """A sensor in real time; its power can be set."""

    name, kind, scope, parts = "fake", "measured", "test <board>", frozenset({"module"})
    period_s, gap_s = 0.01, 0.5  # a loaded machine must not make the tests fail

    def __init__(self, power_w=lambda: 5.0):
        super().__init__()
        self.power_w, self.closed = power_w, False
        self.noise = np.random.default_rng(0)

    def probe(self):
        return Availability(True, "a fake")

    def read(self, rails):
        return {"total": self.power_w() + self.noise.normal(0, 0.001)}

    def close(self):
        self.closed = True


def meter_of(power_w=lambda: 5.0):
    """A meter over a sensor of so many watts."""
    return EnergyMeter(Sensor(power_w))


def put(root: Path, folder: str, /, **files: object) -> Path:
    """Writes small files into a folder of a tree in /sys."""
    path = root / folder
    path.mkdir(exist_ok=True)
    for file, content in files.items():
        (path / file).write_text(f"{content}\n")
    return path

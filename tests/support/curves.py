"""Power curves whose joules are known, and sensors that show them as real ones do: late, averaged, set back."""

import itertools
import random

import numpy as np
from scipy.signal import lfilter

from mirolib.energy import Availability, CounterSource, Measurement, SampledSource
from mirolib.energy.meter import sampling_instants

STEP_S = 1e-3
AVERAGING_S = 0.43


def phases(rng: np.random.Generator, lengths_s: list[float], rest_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Power of a machine `(n,)`, a value a millisecond, and the edges of its phases in seconds.

    Each phase has a level between 5 and 25 W and a pattern of its own: steady, a wave of 130 ms or of 1.7 s, a ramp,
    noise. With a rest, 4 W flow for as long before each phase and behind the last, and its edges are in between.
    """
    parts, edges, at = [np.full(round(3 / STEP_S), rng.uniform(5, 25))], [3.0], 3.0
    patterns = (
        lambda t: np.ones_like(t),
        lambda t: np.where(t % 0.13 < 0.065, 1.35, 0.65),
        lambda t: np.where((t + 0.4) % 1.7 < 0.85, 1.3, 0.7),
        lambda t: 0.8 + 0.4 * t / t[-1],
        lambda t: 1 + 0.1 * np.repeat(rng.normal(size=len(t) // 10 + 1), 10)[: len(t)],
    )
    for length_s in lengths_s:
        for seconds, rest in ((rest_s, True), (length_s, False)):
            if not seconds:
                continue
            t = np.arange(round(seconds / STEP_S)) * STEP_S
            pattern = patterns[rng.integers(len(patterns))]
            parts.append(np.full(len(t), 4.0) if rest else rng.uniform(5, 25) * pattern(t))
            at += len(t) * STEP_S
            edges.append(at)
    if rest_s:
        parts.append(np.full(round(rest_s / STEP_S), 4.0))
        edges.append(at + rest_s)
    return np.concatenate([*parts, parts[-1][-1:]]), np.array(edges)


def joules(power_w: np.ndarray, start_s: float, end_s: float) -> float:
    """What a curve takes between two instants."""
    before = np.concatenate([[0.0], np.cumsum(power_w) * STEP_S])
    start, end = np.interp([start_s, end_s], np.arange(len(before)) * STEP_S, before)
    return float(end - start)


def averaged(power_w: np.ndarray, way: str, averaging_s: float = AVERAGING_S, phase: float = 0.0) -> np.ndarray:
    """What a sensor says that averages in a `block`, as a `rolling` mean, or as a `recursive` filter."""
    count = round(averaging_s / STEP_S)
    padded = np.concatenate([np.full(2 * count, power_w[0]), power_w])
    means = lfilter(np.ones(count) / count, 1.0, padded)  # of what lies up to each instant
    if way == "rolling":
        return means[2 * count :]
    if way == "block":
        at = np.arange(2 * count, len(padded))
        return means[at - (at + round(phase * count)) % count]
    share = 1 / count
    return lfilter([share], [1, share - 1], padded - power_w[0])[2 * count :] + power_w[0]


class Simulated(SampledSource):
    """A sensor that says a curve; its time is set."""

    name, kind, scope = "simulated", "measured", "a made-up machine"

    def __init__(self, said_w: np.ndarray, averaging_s: float = 0.0, resolution_w: float = 0.0) -> None:
        super().__init__()
        self._averages(averaging_s)
        self.now, self._said_w, self.resolution_w = 0.0, said_w, resolution_w
        self.clock = lambda: self.now

    def probe(self) -> Availability:
        return Availability(True, "a curve")

    def read(self, rails: object) -> dict[str, float]:
        said = float(self._said_w[min(round(self.now / STEP_S), len(self._said_w) - 1)])
        return {"total": round(said / self.resolution_w) * self.resolution_w if self.resolution_w else said}


class Counting(CounterSource):
    """A counter of a curve's joules; its time is set. It moves every `update_s` and may be set back at instants."""

    name, kind, scope = "counting", "measured", "a made-up machine"
    unit_j = 1e-3

    def __init__(self, power_w: np.ndarray, update_s: float, resets_s: tuple[float, ...] = (), phase: float = 0.0):
        super().__init__()
        self.update_s, self.now, self._resets_s, self._phase = update_s, 0.0, resets_s, phase
        self._joules = np.concatenate([[0.0], np.cumsum(power_w) * STEP_S])
        self.clock = lambda: self.now
        self.most_w = 1000.0

    def probe(self) -> Availability:
        return Availability(True, "a curve")

    def read(self) -> dict[str, int]:
        moved_s = (np.floor(self.now / self.update_s + self._phase) - self._phase) * self.update_s
        base = max([0.0, *(at for at in self._resets_s if at <= self.now)])
        at = np.interp([moved_s, base], np.arange(len(self._joules)) * STEP_S, self._joules)
        return {"card": max(0, int((at[0] - at[1]) / self.unit_j))}


def walk(source: Simulated | Counting, edges_s: np.ndarray, seed: int, settle: bool = False) -> list[Measurement]:
    """Reads a source as the meter does, and what it measures between each two edges as soon as it is there.

    To settle, every other stretch, the first and the last among them, is rest, and only those between are measured.
    """
    rng, found = random.Random(seed), []
    for number, (start, end) in enumerate(itertools.pairwise(edges_s)):
        planned = sampling_instants(start, source.period_s, rng)
        for instant in [start, *itertools.takewhile(lambda at, end=end: at < end, planned), end]:
            source.now = instant
            source.mark()
        if settle and number % 2 == 0:
            source.rested(start, end)
            found += [source.measure(edges_s[number - 1], start)] if number else []
        elif not settle:
            found.append(source.measure(start, end))
    return found

"""What one thing costs more than another: paired runs in the order ABBA, with a bootstrap interval."""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm as normal, t as student
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.energy.ledger import ENOUGH_COVERAGE, Reading
from mirolib.energy.meter import EnergyMeter
from mirolib.energy.source import NO_JOULES, Kind

LEAST_PAIRS = 6  # the fewest for which the widened interval was seen to hold the truth, in its test
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """How much more A costs than B."""

    names: tuple[str, str]  # what A and B are called
    unit: str  # `J`, or `CPU s` where there is no sensor
    mean: float  # mean over the pairs of A - B
    low: float  # lower end of its 95 % bootstrap interval
    high: float
    baseline: float  # mean of B
    pairs: pd.DataFrame  # a row a pair: its `order`, `a`, `b`, and `difference`
    kind: Kind  # how joules were got; `none` where processor time was compared
    scope: str  # what part of the machine they cover, or why there are none
    repeats: int = 1  # how often each run did its work for the sensor to see it; costs are those of doing it once

    @property
    def resolvable(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __repr__(self) -> str:
        a, b = self.names
        interval = f"{self.low:+.3g} to {self.high:+.3g} {self.unit}"
        if self.baseline > 0:
            interval += f", {100 * self.low / self.baseline:+.1f} to {100 * self.high / self.baseline:+.1f} % of {b}"
        how = f"{self.kind}, {self.scope}" if self.unit == "J" else f"{self.scope}, processor time stands in"
        how = f"{len(self.pairs)} pairs; {how}"
        if not self.resolvable:
            return f"The difference between {a} and {b} is not resolvable ({interval}; {how})."
        return f"{a} costs {self.mean:+.3g} {self.unit} compared with {b} ({interval}; {how})."

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def compare(
    meter: EnergyMeter,
    a: Callable[[], object],
    b: Callable[[], object],
    *,
    names: tuple[str, str] = ("A", "B"),
    pairs: int = 8,
    seed: int = 0,
    progress: bool = True,
    most_s: float = 20.0,
) -> Difference:
    """Runs two things in turns, A B B A and so on, and compares what they cost.

    Drifts, of temperature for one, then hit both alike. Each is run before, to warm up and to see how often a run must
    repeat its work for the sensor. About `2 (2.8 s / d)^2` pairs resolve a difference `d` where runs scatter by `s`.
    The interval is of bootstrap percentiles, widened for few pairs by what Student's t is wider than the normal.

    Args:
        meter: Measures; without a sensor, processor time of this process is compared.
        a: Does the one thing.
        b: Does the other.
        names: What they are called.
        pairs: Pairs of runs, an even number.
        seed: Seed of the bootstrap.
        progress: Whether to show a progress bar.
        most_s: Longest that a run may last; where the sensor needs more, processor time is compared.

    Returns:
        The difference; `not resolvable` where its interval covers zero.

    Raises:
        InputError: If there are fewer than six pairs or an odd number, or the sensor saw too little of a run.
    """
    if pairs < LEAST_PAIRS or pairs % 2:
        raise InputError(f"{pairs} pairs don't tell the scatter; take an even number of them, {LEAST_PAIRS} or more.")
    repeats = _repeats(meter, (a, b), most_s)
    in_joules, kind, scope = bool(repeats) and meter.source.kind not in NO_JOULES, meter.source.kind, meter.source.scope
    if not in_joules:
        scope = "no sensor" if repeats else f"{meter.source.name} needs runs of over {most_s:g} s"
        kind, repeats = "none", 1
    rows = []
    for number in tqdm(range(pairs), unit="pair", disable=not progress):
        order = "BA" if number % 2 else "AB"
        runs = {which: _run(meter, names["AB".index(which)], a if which == "A" else b, repeats) for which in order}
        cost = {which: _cost(run, in_joules) / repeats for which, run in runs.items()}
        rows.append({"order": order, "a": cost["A"], "b": cost["B"], "difference": cost["A"] - cost["B"]})
    table = pd.DataFrame(rows)
    low, high = interval(table["difference"].to_numpy(), seed)
    mean, baseline = float(table["difference"].mean()), float(table["b"].mean())
    unit = "J" if in_joules else "CPU s"
    return Difference(names, unit, mean, low, high, baseline, table, kind, scope, repeats)


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `(n,)` values; see `compare`."""
    count, mean = len(values), values.mean()
    drawn = np.random.default_rng(seed).choice(values, (_RESAMPLES, count)).mean(axis=1)
    wider = math.sqrt(count / (count - 1)) * float(student.ppf(0.975, count - 1) / normal.ppf(0.975))
    low, high = mean + wider * (np.quantile(drawn, [0.025, 0.975]) - mean)
    return float(low), float(high)


def _repeats(meter: EnergyMeter, actions: tuple[Callable[[], object], ...], most_s: float) -> int:
    """How often a run does its work for the sensor to see it, tried out; 0 where that would take too long."""
    source, count = meter.source, 1
    while True:
        runs = [_run(meter, "warming up", action, count) for action in actions]
        shortest, least_s = min(run.duration_s for run in runs), source.least_s
        enough = shortest >= least_s and all(run.measurement.coverage >= ENOUGH_COVERAGE for run in runs)
        if enough or source.kind == "replayed" or source.kind in NO_JOULES:
            return count
        if max(shortest, least_s) > most_s:
            return 0
        count = math.ceil(count * max(2.0, 1.2 * least_s / shortest))


def _run(meter: EnergyMeter, name: str, action: Callable[[], object], repeats: int) -> Reading:
    with meter.window(name) as window:
        for _ in range(repeats):
            action()
    return window.reading


def _cost(reading: Reading, in_joules: bool) -> float:
    """Joules that a run took, or processor seconds."""
    if not in_joules:
        return reading.work.cpu_s
    found = reading.measurement
    if found.coverage < ENOUGH_COVERAGE:
        raise InputError(
            f"{reading.source} saw {found.coverage:.0%} of a run of {reading.window}, {reading.duration_s:.2g} s long "
            f"({found.note or 'gaps'}); mend the sensor, or repeat the work within a run until it takes seconds."
        )
    return found.energy_j

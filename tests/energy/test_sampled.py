"""The arithmetic of sampled power against curves whose joules are known."""

import math
import random

import numpy as np
import pytest
from sensors import Sensor

from mirolib.energy import Availability, LostReading, SampledSource, integrate
from mirolib.energy.meter import sampling_instants


class Curve(SampledSource):
    """A sensor on a machine that draws what a function of time says."""

    name, kind, scope = "curve", "measured", "test"

    def __init__(self, power_w, broken=lambda now: None):
        super().__init__()
        self.now, self.clock = 0.0, lambda: self.now
        self._power_w, self._broken = power_w, broken

    def probe(self):
        return Availability(True, "a function")

    def read(self, rails):
        self._broken(self.now)
        return {"total": float(self._power_w(self.now))}

    def meter(self, start, end, seed, period_s=0.05):
        """Marks both edges and the planned instants between, as the meter's thread does."""
        self.period_s = period_s
        instants = sampling_instants(start, period_s, random.Random(seed))
        self.now = start
        self.mark()
        while (instant := next(instants)) < end:
            self.now = instant
            self.mark()
        self.now = end
        self.mark()
        return self.measure(start, end)


def square(period_s, low=6.5, high=13.5):
    return lambda t: high if t % period_s < period_s / 2 else low


def true_joules(power_w, start, end):
    t = np.linspace(start, end, round((end - start) * 5_000) + 1)
    middle = (t[1:] + t[:-1]) / 2
    return float(sum(map(power_w, middle)) * (t[1] - t[0]))


CURVES = {
    "constant": lambda t: 7.0,
    "square of 100 ms": square(0.1),
    "square of 130 ms": square(0.13),
    "slow square": square(1.7),
    "ramp": lambda t: 5 + t / 6,
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("duration", "bar", "trials"), [(0.5, 0.04, 120), (2.0, 0.01, 80), (10.0, 0.01, 30), (60.0, 0.01, 4)]
)
def test_joules_of_known_curves(curve, duration, bar, trials):
    rng, errors, inside = np.random.default_rng(0), [], 0
    for trial in range(trials):
        start = rng.uniform(0, 3)
        truth = true_joules(CURVES[curve], start, start + duration)
        found = Curve(CURVES[curve]).meter(start, start + duration, trial)
        errors.append(found.energy_j / truth - 1)
        inside += found.low_j <= truth * (1 + 1e-3) and found.high_j >= truth * (1 - 1e-3)
        assert found.coverage == 1
    assert math.sqrt(np.square(errors).mean()) <= bar
    assert inside / trials >= 0.95


def test_a_fixed_rhythm_would_alias_where_a_random_instant_does_not():
    truth, wave = 10.0 * 10, square(0.1)
    rigid = np.arange(0, 10.0001, 0.1) + 0.01
    assert integrate(rigid, np.array([wave(t) for t in rigid]), 0, 10, 0.1).energy_j == pytest.approx(135, rel=0.01)
    errors = [Curve(wave).meter(0, 10, seed, period_s=0.1).energy_j / truth - 1 for seed in range(30)]
    assert math.sqrt(np.square(errors).mean()) < 0.03


def test_instants_are_one_a_slot_and_denser_at_first():
    instants = sampling_instants(5.0, 0.05, random.Random(1))
    first = [next(instants) - 5 for _ in range(480)]
    assert [int(t / 0.0125 + 1e-9) for t in first] == list(range(480))
    later = [t for t in (next(instants) - 5 for _ in range(2000)) if t > 25]
    assert min(np.diff(later, 2)) > -0.1 and np.mean(np.diff(later)) == pytest.approx(0.05, rel=0.01)


def test_a_trapezoid_by_hand():
    # 2, 4, 4, 0, 0 W at 0, 1, 2, 3, 4 s: 3 + 4 + 2 + 0 J; from 0.5 to 3.5 s: 3 to 4 W over half a second, 4, 2, 0.
    times, power = np.arange(5.0), np.array([2.0, 4, 4, 0, 0])
    whole = integrate(times, power, 0, 4, 1.0)
    assert whole.energy_j == 9 and whole.coverage == 1 and whole.samples == 5 and whole.longest_gap_s == 1
    # differences 2, 0, -4, 0: twice the root of (4 + 16) / 2
    assert whole.high_j - 9 == pytest.approx(2 * math.sqrt(10)) == 9 - whole.low_j
    held = integrate(times, power, -1, 4, 1.0)
    assert held.energy_j == 11 and held.coverage == 1, "the first sample holds for up to three periods"
    part = integrate(np.arange(0, 5, 0.5), np.interp(np.arange(0, 5, 0.5), times, power), 0.5, 3.5, 0.5)
    assert part.energy_j == pytest.approx(1.75 + 4 + 2 + 0)
    assert integrate(times, power, 0, 3.9, 1.0).samples == 4
    assert math.isnan(integrate(times, power, 0, 3.9, 1.0).energy_j), "under five samples nothing is reported"


def test_the_resolution_is_part_of_the_band():
    found = integrate(np.arange(9.0), np.full(9, 6.0), 0, 8, 1.0, resolution_w=0.4)
    assert (found.low_j, found.high_j) == (pytest.approx(48 - 1.6), pytest.approx(48 + 1.6))


def outage(error):
    def broken(now):
        if 3 <= now < 5:
            raise error

    return broken


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), ValueError("invalid literal"), LostReading("dead")]
)
def test_an_outage_lowers_the_coverage_and_widens_the_band(error, caplog):
    source = Curve(square(1.7), outage(error))
    found = source.meter(0, 10, 0)
    truth = true_joules(square(1.7), 0, 10)
    assert 0.79 < found.coverage < 0.82 and "readings lost" in found.note
    assert found.low_j < truth < found.high_j and found.high_j - found.low_j > 10
    assert "lost a reading" in caplog.text and source.describe()["readings_lost"] > 30
    after = source.measure(5.5, 10)
    assert after.coverage == 1 and not after.note


def test_a_sensor_that_dies_leaves_no_number_rather_than_zero():
    def dead(now):
        if now >= 3:
            raise FileNotFoundError(2, "No such file or directory")

    source = Curve(CURVES["constant"], dead)
    half = source.meter(0, 6, 0)
    assert half.coverage == pytest.approx(0.5 + 3 * 0.05 / 6, abs=0.01) and half.energy_j == pytest.approx(42)
    nothing = source.meter(7, 9, 0)
    assert math.isnan(nothing.energy_j) and nothing.coverage == 0 and "lost" in nothing.note


@pytest.mark.parametrize("watts", [math.nan, math.inf, -3.0])
def test_impossible_values_are_lost_readings(watts):
    source = Curve(lambda t: watts if 2 < t < 4 else 5.0)
    found = source.meter(0, 10, 0)
    assert found.energy_j == pytest.approx(50) and 0.75 < found.coverage < 0.85


def test_slightly_negative_readings_are_kept():
    source = Curve(lambda t: -0.04 if t < 1 else 0.04)
    assert source.meter(0, 2, 0).energy_j == pytest.approx(0, abs=0.005)
    assert source.trace()["power_w"].min() == -0.04


def test_a_sensor_that_says_the_same_for_long_is_taken_for_dead():
    source = Curve(lambda t: 5.0 + 0.01 * (round(t * 50) % 2) if t < 2 else 5.0)
    source.stale_after_s = 3.0
    found = source.meter(0, 10, 0)
    assert found.coverage == pytest.approx(0.2, abs=0.03) and "exactly the same" in found.note


def test_each_rail_is_rounded_for_itself():
    class Rails(Sensor):
        total_rails = ("a", "b", "c")
        resolution_w, period_s, gap_s = 0.4, 1.0, None

        def read(self, rails):
            return {rail: round(power / 0.4) * 0.4 for rail, power in zip("abc", self.true_w, strict=True)}

    rng, inside = np.random.default_rng(0), 0
    for _ in range(40):
        source = Rails()
        source.true_w = rng.uniform(1, 5, 3)
        for k in range(20):
            source.add(float(k), source.read(()))
        found = source.measure(0, 19)
        inside += found.low_j <= 19 * source.true_w.sum() <= found.high_j
    assert inside == 40

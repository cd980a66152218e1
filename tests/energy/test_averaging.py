"""Sensors whose readings are means over some time: the joules of phases whose edges are known."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from boards import CASES, write_board
from curves import AVERAGING_S, Simulated, averaged, joules, phases, walk
from hypothesis import given, settings, strategies as st
from sensors import Clock

from benchmarks import energy_accuracy
from mirolib import EnergyMeter
from mirolib.energy import integrate
from mirolib.energy.sampled import SETTLING
from mirolib.energy.sensors.jetson import JetsonSource

WAYS = ("rolling", "block", "recursive")
EDGES_J = 4 * AVERAGING_S  # twice swing times averaging time at each of two edges, per watt of swing


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("length_s", "trials"), [(2.0, 40), (5.0, 20), (10.0, 12), (60.0, 3)])
def test_phases_lie_in_a_band_of_bounded_width(way, length_s, trials):
    inside, errors, uncorrected = [], [], []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        power, edges = phases(rng, [length_s] * 6)
        said = averaged(power, way, phase=rng.uniform())
        source = Simulated(said, AVERAGING_S)
        for (start, end), found in zip(pairwise(edges), walk(source, edges, seed), strict=True):
            truth = joules(power, start, end)
            inside.append(found.low_j <= truth <= found.high_j)
            around = power[max(0, round(1000 * (start - 6))) : round(1000 * end) + 1]
            times, read = source._around(start, end)
            alone = integrate(times, read, start, end, 1.0)
            assert found.high_j - found.low_j <= EDGES_J * np.ptp(around) + alone.high_j - alone.low_j + 1e-9
            errors.append(found.energy_j - truth)
            uncorrected.append(alone.energy_j - truth)
    assert np.mean(inside) >= 0.95
    assert np.std(errors) < 0.75 * np.std(uncorrected), "taking back the lag undoes most of the leak"


def test_the_leak_that_was_reported_is_taken_back():
    """Phases of 5 and 25 W, a second each and five: readings of a block mean alone are off by up to 7 J a phase."""
    for length_s, bar_j in ((5.0, 2.2),):
        power = np.repeat([5.0, 25.0] * 10, round(1000 * length_s))
        edges = np.arange(1, 20) * length_s
        for way in WAYS:
            source = Simulated(averaged(power, way, phase=0.3), AVERAGING_S)
            found = walk(source, edges, 0)
            truth = [joules(power, a, b) for a, b in pairwise(edges)]
            off = np.abs([one.energy_j - true for one, true in zip(found, truth, strict=True)])
            assert off.mean() < bar_j + 0.5, way


@pytest.mark.parametrize("way", WAYS)
def test_settled_phases_of_any_length(way):
    inside, errors = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        power, edges = phases(rng, list(rng.uniform(0.3, 4, 5)), SETTLING * AVERAGING_S)
        source = Simulated(averaged(power, way, phase=rng.uniform()), AVERAGING_S)
        for start, end, found in zip(edges[1:-1:2], edges[2::2], walk(source, edges, seed, settle=True), strict=True):
            truth = joules(power, start, end)
            inside.append(found.low_j <= truth <= found.high_j)
            errors.append(found.energy_j / truth - 1)
    assert np.mean(inside) >= 0.95 and math.sqrt(np.square(errors).mean()) < 0.06


@given(st.floats(5, 25), st.floats(5, 25), st.sampled_from(WAYS), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_any_step_lies_in_the_band(before_w, within_w, way, phase):
    power = np.repeat([before_w, within_w], [4000, 2001])
    found = walk(Simulated(averaged(power, way, phase=phase), AVERAGING_S), np.array([0.0, 4.0, 6.0]), 0)[1]
    assert found.low_j - 0.01 <= 2 * within_w <= found.high_j + 0.01
    assert abs(found.energy_j - 2 * within_w) <= AVERAGING_S * abs(within_w - before_w) + 0.01


def test_a_short_window_is_not_resolvable():
    source = Simulated(np.full(5000, 7.0), AVERAGING_S)
    (found,) = walk(source, np.array([1.0, 2.7]), 0)
    assert math.isnan(found.energy_j) and found.coverage == 0
    assert found.note == (
        "not resolvable: each reading is a mean over 0.43 s; take windows of 1.7 s or more, or energy_settle"
    )
    (found,) = walk(Simulated(np.full(5000, 7.0), AVERAGING_S), np.array([1.0, 2.73]), 0)
    assert found.energy_j == pytest.approx(7 * 1.73)


def jetson(tmp_path, name="Orin Nano"):
    source = JetsonSource(write_board(tmp_path, name, CASES[name][0]))
    source.clock = Clock(step=0.001)
    return source


@pytest.mark.parametrize("name", ["Xavier NX", "AGX Orin"])
def test_the_averaging_time_is_read_from_the_files(tmp_path, name):
    source = jetson(tmp_path, name)
    assert source.probe().available and source.averaging_s == 0.43
    assert source.period_s == 0.43, "one read to an averaging time is enough, and four where a window begins"
    assert source.describe()["averaging_s"] == 0.43 and source.least_s == pytest.approx(10 * 0.43)
    (file, *_) = tmp_path.glob("drivers/ina3221/*/hwmon/*/update_interval")
    file.write_text("7\n")
    for other in tmp_path.glob("drivers/ina3221/*/hwmon/*/update_interval"):
        other.write_text("7\n")
    quick = JetsonSource(tmp_path / "drivers")
    assert quick.averaging_s == 0 and quick.period_s == 0.05, "a mean over 7 ms is as good as an instant"


def test_idle_is_measured_when_the_sensor_has_forgotten(monkeypatch):
    waits = []
    source = Simulated(np.full(60_000, 7.0), AVERAGING_S)

    def sleep(seconds):
        waits.append(seconds)
        for _ in range(20):
            source.now += seconds / 20
            source.mark()

    monkeypatch.setattr("mirolib.energy.meter.time.sleep", sleep)
    meter = EnergyMeter(source)
    meter.sampling = None
    monkeypatch.setattr(meter._sampler, "_source", type("Quiet", (), {"period_s": None})())
    assert meter.measure_idle(2.0).measurement.energy_j == pytest.approx(14)
    assert waits == [pytest.approx(SETTLING * AVERAGING_S), 2.0]
    settled, waits[:] = EnergyMeter(source, settle=True), []
    monkeypatch.setattr(settled._sampler, "_source", type("Quiet", (), {"period_s": None})())
    with settled.window("a"):
        sleep(0.6)
    with settled.window("b") as window:
        sleep(0.6)
    rest = pytest.approx(SETTLING * AVERAGING_S)
    assert waits == [rest, 0.6, rest, 0.6, rest], "the rest between two windows serves both"
    assert window.reading.measurement.energy_j == pytest.approx(0.6 * 7) and window.reading.duration_s < 0.7
    assert [row.window for row in settled.readings] == ["a", "b"]


@pytest.mark.parametrize("way", WAYS)
def test_jumps_that_no_reading_has_shown_yet_lie_in_the_band(way):
    """Power jumps between 5 and 25 W at any moment, also just before a window ends."""
    inside = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        pieces = rng.uniform(0.2, 1.2, 20)
        power = np.concatenate([np.full(round(1000 * s), 5.0 + 20 * (k % 2)) for k, s in enumerate(pieces)])
        source = Simulated(averaged(power, way, phase=rng.uniform()), AVERAGING_S)
        (_, found) = walk(source, np.array([0.5, 4.0, 6.5]), seed)
        inside.append(found.low_j <= joules(power, 4.0, 6.5) <= found.high_j)
    assert np.mean(inside) >= 0.95


def test_the_page_shows_the_table_that_was_measured():
    table = pd.read_csv(energy_accuracy.TABLE)
    assert energy_accuracy.page(table) in (energy_accuracy.DOCS / "energy.md").read_text()
    assert (table["in_band_percent"].dropna() >= 95).all() and set(table["sensor"]) == set(energy_accuracy.SENSORS)
    quick = energy_accuracy.accuracy(5, (2.0, 5.0)).set_index(["sensor", "phase_s"])
    assert (quick["in_band_percent"].dropna() >= 90).all(), "30 phases each"
    known = table.set_index(["sensor", "phase_s"]).loc[quick.index]
    assert (quick["measured_percent"] == known["measured_percent"]).all()


@pytest.mark.parametrize("phase", np.linspace(0, 1, 9))
def test_a_jump_just_before_the_end_lies_in_the_band(phase):
    """A mean in blocks shows nothing of the last 0.4 s where its block began after the jump: 8 J of 40."""
    power = np.repeat([5.0, 25.0, 5.0, 25.0], [4000, 1000, 1600, 401])
    found = walk(Simulated(averaged(power, "block", phase=phase), AVERAGING_S), np.array([0.0, 4.0, 7.0]), 0)[1]
    assert found.low_j <= 25 + 8 + 10 <= found.high_j

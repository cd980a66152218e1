import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.integrate import trapezoid

from mirolib import EnergyMeter, InputError, NullSource, RaplSource, TraceSource
from mirolib.energy import Work, total_energy_j


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_without_a_sensor_there_is_no_number_and_work_is_counted():
    meter, work = EnergyMeter(NullSource()), Work(3, 1.0, 10, 20)
    meter.watch(lambda: work)
    with meter.window("train", task=2):
        work = Work(10, 1.5, 14, 20)
    (reading,) = meter.readings
    assert math.isnan(reading.measurement.energy_j) and reading.kind == "none" and reading.task == 2
    assert reading.work == Work(7, 0.5, 4, 0)
    assert {"window", "energy_j", "low_j", "high_j", "coverage", "kind", "scope", "visits"} <= set(reading.row())


def test_a_window_that_ends_by_an_error_is_booked():
    meter = EnergyMeter(NullSource())
    with pytest.raises(KeyError), meter.window("train"):
        raise KeyError
    assert [reading.window for reading in meter.readings] == ["train"]


def test_a_square_wave_integrates_to_its_joules():
    clock = Clock()
    # 10 W for 2 s, 2 W for 3 s, sampled every 10 ms
    times = np.arange(0, 5.001, 0.01)
    source = TraceSource(times, np.where(times < 2, 10.0, 2.0), clock=clock)
    meter = EnergyMeter(source)
    clock.now += 1
    with meter.window("a"):
        clock.now += 2
    with meter.window("b"):
        clock.now += 4
    a, b = (reading.measurement for reading in meter.readings)
    assert a.energy_j == pytest.approx(10 + 2, abs=0.05) and a.coverage == 1 and a.low_j < 12 < a.high_j
    # half of the second window lies behind the trace, whose last sample holds for three steps
    assert b.energy_j == pytest.approx(4 + 2 * 2, abs=1e-4) and b.coverage == pytest.approx(2.03 / 4)
    assert (b.low_j, b.high_j) == (pytest.approx(8), pytest.approx(4 + 0.03 * 2 + 1.97 * 10)), "half was not seen"
    assert "does not reach" in b.note
    assert total_energy_j(meter.readings[:1]) == a.energy_j and math.isnan(total_energy_j(meter.readings))
    assert meter.readings[0].kind == "replayed"


@given(st.lists(st.floats(0.5, 1), min_size=12, max_size=30), st.floats(0.3, 0.6), st.integers(0, 99))
def test_windows_add_up_and_agree_with_a_fine_sum(steps, cut, seed):
    clock = Clock()
    times = np.cumsum(steps) - steps[0]
    power = np.random.default_rng(seed).uniform(-1, 20, len(times))
    source = TraceSource(times, power, clock=clock)
    whole = source.measure(100, 100 + times[-1])
    middle = cut * times[-1]
    parts = [source.measure(100 + s, 100 + e) for s, e in ((0, middle), (middle, times[-1]))]
    if all(part.samples >= 5 for part in parts):
        assert sum(part.energy_j for part in parts) == pytest.approx(whole.energy_j, rel=1e-4, abs=1e-3)
    assert whole.energy_j == pytest.approx(trapezoid(power, times)) and whole.coverage == 1


def test_a_hole_in_a_trace_is_not_seen():
    clock = Clock()
    times = np.concatenate([np.arange(0, 5, 0.1), np.arange(60, 62, 0.1)])
    found = TraceSource(times, np.full(len(times), 5.0), clock=clock).measure(100, 161.9)
    assert found.coverage == pytest.approx(6.8 / 61.9, abs=0.001) and found.longest_gap_s == pytest.approx(55.1)
    few = TraceSource([0, 60, 61], [5, 5, 5], clock=clock).measure(120, 121)
    assert math.isnan(few.energy_j) and "samples" in few.note


def test_outside_the_trace_nothing_is_known():
    clock = Clock()
    measured = TraceSource(np.arange(0, 1, 0.1), np.full(10, 5.0), clock=clock).measure(102, 103)
    assert math.isnan(measured.energy_j) and measured.coverage == 0


@pytest.mark.parametrize(
    ("times", "power", "sentence"),
    [
        ([0, 2, 1], [1, 1, 1], "backwards at sample 2"),
        ([0, 1, 1], [1, 1, 1], "stands still .* at sample 2"),
        ([0], [1], "two samples or more"),
        ([0, 1], [1], "one power a time"),
        ([0, 1], [1, float("nan")], "NaN"),
    ],
)
def test_bad_traces_are_refused(times, power, sentence):
    with pytest.raises(InputError, match=sentence):
        TraceSource(times, power)


def test_traces_from_files(tmp_path):
    good = tmp_path / "good.csv"
    rows = "".join(f"{k / 10},total,4\n{k / 10},VDD_IN,3\n" for k in range(100))
    good.write_text("time_s,rail,power_w\n" + rows)
    source = TraceSource.from_csv(good)
    start = source.mark()
    assert source.measure(start, start + 2).energy_j == pytest.approx(8)
    for name, content in (("columns.csv", "t,w\n0,1\n"), ("text.csv", "time_s,power_w\n0,much\n"), ("empty.csv", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="is no power trace"):
            TraceSource.from_csv(tmp_path / name)
    with pytest.raises(InputError, match="is no power trace"):
        TraceSource.from_csv(tmp_path / "absent.csv")


def rapl_tree(root: Path) -> Path:
    """Two packages with core, uncore and DRAM below the first, and psys: as a server shows them."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
    }
    for zone, name in zones.items():
        (root / zone).mkdir()
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "max_energy_range_uj").write_text("999999\n")
        (root / zone / "energy_uj").write_text("0\n")
    return root


def advance(root: Path, **microjoules: int) -> None:
    for zone in root.glob("intel-rapl:*"):
        name = (zone / "name").read_text().strip().replace("-", "_")
        value = (int((zone / "energy_uj").read_text()) + microjoules.get(name, 0)) % 1_000_000
        fresh = zone / "fresh"
        fresh.write_text(f"{value}\n")
        os.replace(fresh, zone / "energy_uj")


def test_rapl_adds_packages_and_dram_only(tmp_path):
    root = rapl_tree(tmp_path)
    meter = EnergyMeter(RaplSource(root))
    with meter.window("train"):
        advance(root, package_0=300_000, package_1=200_000, dram=100_000, core=250_000, psys=700_000)
        time.sleep(0.02)
    reading = meter.readings[0]
    assert reading.measurement.energy_j == pytest.approx(0.6)
    assert reading.kind == "measured-partial" and reading.scope == "processor packages and DRAM"
    assert reading.measurement.low_j <= 0.6 <= reading.measurement.high_j


def test_rapl_counters_that_wrap_within_a_long_window(tmp_path, monkeypatch):
    root = rapl_tree(tmp_path)
    source = RaplSource(root)
    source.period_s = 0.01
    meter = EnergyMeter(source)
    with meter.window("train"):
        for _ in range(5):
            for _ in range(6):
                advance(root, package_0=100_000, package_1=10, dram=10)
                time.sleep(0.01)
            advance(root, package_0=100_000)
    assert meter.readings[0].measurement.energy_j == pytest.approx(3.5006)
    assert meter.readings[0].measurement.samples >= 10


def test_rapl_says_why_it_is_not_available(tmp_path, monkeypatch):
    nothing = RaplSource(tmp_path).probe()
    assert not nothing.available and "no RAPL counters" in nothing.reason
    source = RaplSource(rapl_tree(tmp_path))
    (tmp_path / "intel-rapl:1" / "max_energy_range_uj").unlink()
    assert RaplSource(tmp_path).probe().reason == "2 counters"

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(RaplSource, "_read", staticmethod(refuse))
    refused = source.probe()
    assert not refused.available and "root only" in refused.reason and "chmod" in refused.fix
    with pytest.raises(InputError, match="root only"):
        EnergyMeter(source)


def test_auto_is_never_without_a_source():
    assert EnergyMeter.auto().source.probe().available

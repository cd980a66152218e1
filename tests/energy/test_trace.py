import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.integrate import trapezoid

from mirolib import EnergyMeter, InputError, TraceSource
from mirolib.energy import total_energy_j


def test_a_square_wave_integrates_to_its_joules(clock):
    # 10 W for 2 s, 2 W for 3 s, sampled every 10 ms
    times = np.arange(0, 5.001, 0.01)
    source = TraceSource(times, np.where(times < 2, 10.0, 2.0))
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
    times = np.cumsum(steps) - steps[0]
    power = np.random.default_rng(seed).uniform(-1, 20, len(times))
    source = TraceSource(times, power)
    first = source.trace()["time_s"][0]
    whole = source.measure(first, first + times[-1])
    middle = cut * times[-1]
    parts = [source.measure(first + s, first + e) for s, e in ((0, middle), (middle, times[-1]))]
    if all(part.samples >= 5 for part in parts):
        assert sum(part.energy_j for part in parts) == pytest.approx(whole.energy_j, rel=1e-4, abs=1e-3)
    assert whole.energy_j == pytest.approx(trapezoid(power, times)) and whole.coverage == 1


def test_a_hole_in_a_trace_is_not_seen(clock):
    times = np.concatenate([np.arange(0, 5, 0.1), np.arange(60, 62, 0.1)])
    found = TraceSource(times, np.full(len(times), 5.0)).measure(100, 161.9)
    assert found.coverage == pytest.approx(6.8 / 61.9, abs=0.001) and found.longest_gap_s == pytest.approx(55.1)
    few = TraceSource([0, 60, 61], [5, 5, 5]).measure(120, 121)
    assert math.isnan(few.energy_j) and "samples" in few.note


def test_outside_the_trace_nothing_is_known(clock):
    measured = TraceSource(np.arange(0, 1, 0.1), np.full(10, 5.0)).measure(102, 103)
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

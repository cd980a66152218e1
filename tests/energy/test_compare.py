"""Pairs of runs."""

import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from gpus import Nvml, take
from sensors import meter_of, put

from mirolib import EnergyMeter, InputError, NullSource, RunSettings, compare, swapping_cost as measure_swapping
from mirolib.energy import Availability, Work
from mirolib.energy.compare import interval
from mirolib.energy.sensors.battery import BatterySource
from mirolib.energy.sensors.jtop import JtopSource
from mirolib.energy.sensors.nvml import NvmlSource


def test_pairs_show_a_difference_that_is_there_and_none_that_is_not():
    power = [5.0]
    meter = meter_of(lambda: power[0])

    def draw(watts):
        def action():
            power[0] = watts
            time.sleep(0.08)

        return action

    more = compare(meter, draw(7.0), draw(5.0), names=("much", "little"), pairs=6, progress=False)
    assert (
        more.resolvable and more.low < 2 * 0.08 * 1.05 < more.high * 1.2 and more.mean == pytest.approx(0.16, rel=0.3)
    )
    assert "much costs +" in str(more) and more.pairs["order"].tolist() == ["AB", "BA"] * 3


def test_noise_is_not_resolvable():
    meter, work = EnergyMeter(NullSource()), [0.0]
    rng = np.random.default_rng(1)
    meter.watch(lambda: Work(cpu_s=work[0]))

    def noise():
        work[0] += rng.normal(1, 0.1)

    found = compare(meter, noise, noise, pairs=12, progress=False)
    assert not found.resolvable and "not resolvable" in str(found) and "processor time stands in" in str(found)
    assert found.low < found.mean < found.high
    for pairs in (4, 7):
        with pytest.raises(InputError, match="an even number of them, 6 or more"):
            compare(meter, noise, noise, pairs=pairs)


@pytest.mark.parametrize("pairs", [6, 8, 20])
def test_few_pairs_rarely_show_a_difference_that_is_not_there(pairs):
    rng = np.random.default_rng(3)
    bounds = np.array([interval(rng.normal(0, 1, pairs), seed) for seed in range(400)])
    assert ((bounds[:, 0] > 0) | (bounds[:, 1] < 0)).mean() < 0.075, "nominally 5 %"
    found = np.array([interval(rng.normal(2, 1, 8), seed) for seed in range(50)])
    assert (found[:, 0] > 0).mean() > 0.9, "and a large one is seen"


def still(source, clock):
    """A meter whose readings the test takes, on a clock that it sets."""
    source.clock = clock
    meter = EnergyMeter(source)
    meter._sampler = nullcontext()
    meter._sampler.edge_s = meter._sampler.cpu_s = 0.0
    return meter


def card(nvml_source, clock, tmp_path):
    nvml = Nvml("A")

    def draw(watts, seconds):
        take(nvml, round(1000 * watts * seconds))
        clock.now += seconds

    return nvml_source(nvml), draw


def battery(nvml_source, clock, tmp_path):
    """A gauge that looks about once a second."""
    put(tmp_path, "BAT0", type="Battery", status="Discharging", power_now=10_000_000)
    source, passed = BatterySource(tmp_path), [0.0, 0]

    def draw(watts, seconds):
        for _ in range(max(1, round(seconds))):
            clock.now += seconds / max(1, round(seconds))
            if clock.now - passed[0] >= 1:
                passed[:] = clock.now, 1 - passed[1]
                put(tmp_path, "BAT0", power_now=round(1e6 * watts) + passed[1])
            source.mark()

    return source, draw


def jtop(nvml_source, clock, tmp_path):
    """The service, once a second, on a board whose sensor averages."""
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit")
    source, last = JtopSource(), [0.0]
    source.probe = lambda: Availability(True, "a fake")
    source.period_s, source.mark = 1.0, clock

    def draw(watts, seconds):
        clock.now += seconds
        if clock.now - last[0] >= 1:
            last[0] = clock.now
            source.add(clock.now, {"VDD_IN": watts + clock.now % 7 / 1e6})

    return source, draw


@pytest.mark.parametrize(("make", "least_s"), [(card, 2.0), (battery, 10.0), (jtop, 10.0)])
def test_work_is_lengthened_to_what_the_source_needs(nvml_source, clock, tmp_path, make, least_s):
    source, draw = make(nvml_source, clock, tmp_path)
    meter = still(source, clock)
    found = compare(meter, lambda: draw(14.0, 0.3), lambda: draw(10.0, 0.3), pairs=6, progress=False)
    assert found.unit == "J" and 0.3 * found.repeats >= least_s
    assert found.baseline == pytest.approx(3, rel=0.15) and found.mean == pytest.approx(1.2, rel=0.35)
    assert found.resolvable
    shortest = min(row.duration_s for row in meter.readings if row.window != "warming up")
    assert least_s <= shortest < 40


def test_a_sensor_that_would_need_too_long_gives_way_to_processor_time():
    found = compare(meter_of(lambda: 0 / 0), lambda: time.sleep(0.1), lambda: time.sleep(0.1), pairs=6, most_s=0.15,
                    progress=False)  # fmt: skip
    assert found.unit == "CPU s" and found.kind == "none"
    assert "fake needs runs of over 0.15 s, processor time stands in" in str(found)


def test_what_swapping_costs_beside_a_card(monkeypatch, nvml_source):
    nvml = Nvml("A")
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda _: int(100_000 * time.monotonic())
    monkeypatch.setattr(NvmlSource, "update_s", 0.005)  # a twentieth, for the test to be fast
    found = measure_swapping(
        RunSettings(energy="none", epochs=1), EnergyMeter(nvml_source(nvml)), pairs=6, progress=False
    )
    assert found.unit == "J" and found.baseline > 0 and len(found.pairs) == 6 and found.repeats >= 1
    assert found.scope == "NVIDIA GPU A"


def test_what_swapping_costs_without_a_sensor():
    found = measure_swapping(RunSettings(energy="none", epochs=1), pairs=6, progress=False)
    assert found.names == ("swapping", "no swapping") and found.unit == "CPU s" and len(found.pairs) == 6
    assert found.baseline > 0


def test_without_a_sensor_processor_time_is_compared_by_default():
    found = compare(
        EnergyMeter(NullSource()), lambda: sum(range(3_000_000)), lambda: sum(range(30_000)), pairs=6, progress=False
    )
    assert found.unit == "CPU s" and found.mean > 10 * found.baseline > 0 and found.resolvable
    with EnergyMeter(NullSource()).window("train") as window:
        sum(range(1_000_000))
    assert "processor seconds" in str(window.reading) and "no sensor" in str(window.reading)
    assert "of B" not in str(replace(found, baseline=0.0)), "nothing to divide by"

"""Pairs of runs."""

import time
from dataclasses import replace

import numpy as np
import pytest
from sensors import meter_of

from mirolib import EnergyMeter, InputError, NullSource, RunSettings, compare, swapping_cost as measure_swapping
from mirolib.energy import Work
from mirolib.energy.compare import interval


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
        more.resolvable and more.low < 2 * 0.08 * 1.05 < more.high * 1.2 and more.mean == pytest.approx(0.16, rel=0.1)
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


def test_pairs_too_short_for_the_sensor_are_refused():
    with pytest.raises(InputError, match="saw 0% of a run of A .* repeat the work"):
        compare(meter_of(), lambda: None, lambda: None, pairs=6, progress=False)


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

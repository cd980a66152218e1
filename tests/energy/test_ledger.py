"""Rows of the ledger and their totals."""

import math
import time
from dataclasses import replace

import pytest
from sensors import meter_of

from mirolib import EnergyMeter, NullSource
from mirolib.energy import Work, total_energy_j


def test_a_forward_pass_is_a_third_of_a_visit():
    assert Work(visits=10, forward_visits=6).visit_equivalents == 12


def test_without_a_sensor_there_is_no_number_and_work_is_counted():
    meter, work = EnergyMeter(NullSource()), Work(3, 1.0, 10, 20)
    meter.watch(lambda: work)
    with meter.window("train", task=2):
        work = Work(10, 1.5, 14, 20)
    (reading,) = meter.readings
    assert math.isnan(reading.measurement.energy_j) and reading.kind == "none" and reading.task == 2
    assert reading.work == Work(7, 0.5, 4, 0)
    assert {"window", "energy_j", "low_j", "high_j", "coverage", "kind", "scope", "visits"} <= set(reading.row())


def test_a_reading_says_how_it_was_got_and_escapes_names():
    meter = meter_of()
    with meter.window("train") as window:
        time.sleep(0.1)
    text, page = str(window.reading), window.reading._repr_html_()
    assert "measured, test <board>" in text and " J (band " in text
    assert "test &lt;board&gt;" in page and "<board>" not in page
    with EnergyMeter(NullSource()).window("train") as nothing:
        pass
    assert "no joules" in str(nothing.reading) and ">none<" in nothing.reading._repr_html_()


def test_rows_too_short_to_measure_do_not_empty_a_total():
    meter = meter_of()
    with meter.window("train"):
        time.sleep(0.5)
    with meter.window("retain"):
        pass
    total = total_energy_j(meter.readings)
    seen = meter.readings[0]
    assert math.isnan(meter.readings[1].measurement.energy_j)
    assert total == pytest.approx(5 * sum(reading.duration_s for reading in meter.readings), rel=0.01)
    assert math.isnan(total_energy_j([seen, replace(meter.readings[1], duration_s=0.1)])), "more than a twentieth"

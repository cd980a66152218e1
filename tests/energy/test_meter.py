"""Windows, what metering costs, and runs that are metered."""

import math
import threading
import time
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from sensors import Sensor, meter_of

from mirolib import EnergyMeter, InputError, NullSource, RunSettings, plots, run_experiment
from mirolib.energy import Work, in_windows


def test_nested_windows_are_booked_to_the_set_of_activities():
    meter = meter_of()
    with meter.window("train", task=3) as train:
        time.sleep(0.1)
        with meter.window("swap"):
            time.sleep(0.1)
        time.sleep(0.1)
    assert [reading.window for reading in meter.readings] == ["train", "train+swap", "train"]
    assert [reading.task for reading in meter.readings] == [3, 3, 3]
    parts = sum(reading.measurement.energy_j for reading in meter.readings)
    assert train.reading.measurement.energy_j == pytest.approx(parts, rel=0.02)
    assert train.reading.measurement.energy_j == pytest.approx(5 * train.reading.duration_s, rel=0.01)
    assert len(in_windows(meter.readings, "swap")) == 1 and len(in_windows(meter.readings, "train", "swap")) == 3


def test_overlapping_windows_of_two_threads():
    meter, inside, done = meter_of(), threading.Event(), threading.Event()

    def other():
        with meter.window("swap"):
            inside.set()
            done.wait()
            time.sleep(0.1)

    thread = threading.Thread(target=other)
    with meter.window("train"):
        thread.start()
        inside.wait()
        time.sleep(0.1)
        done.set()
    thread.join()
    assert [reading.activities for reading in meter.readings] == [("train",), ("train", "swap"), ("swap",)]


@pytest.mark.parametrize("interrupted", [False, True])
def test_windows_that_end_by_an_error_are_booked_and_leave_the_meter_usable(interrupted):
    meter = meter_of()

    def wait():
        if interrupted and len(meter.readings) == 1:
            raise KeyboardInterrupt

    meter.watch(Work, wait)
    with pytest.raises(BaseException) as ended, meter.window("train"), meter.window("swap") as swap:
        raise ZeroDivisionError
    assert ended.type is (KeyboardInterrupt if interrupted else ZeroDivisionError)
    assert ("train+swap" in [reading.window for reading in meter.readings]) == (swap.reading is not None)
    assert (swap.reading is None) == interrupted
    meter.watch(Work)
    with meter.window("again") as again:
        time.sleep(0.1)
    assert again.reading.activities == ("again",) and meter.readings[-1].window == "again"
    assert not any(thread.name == "miro-meter" for thread in threading.enumerate())


def test_the_device_is_waited_for_at_both_edges():
    meter, log = EnergyMeter(NullSource()), []
    meter.watch(Work, lambda: log.append("synchronise"))
    with meter.window("train"):
        log.append("train")
    assert log == ["synchronise", "train", "synchronise"]


def test_a_device_that_fails_leaves_the_ledger_whole(caplog):
    meter = meter_of()

    def broken():
        raise RuntimeError("device-side assert")

    meter.watch(Work, broken)
    with pytest.raises(ValueError, match="the user's own"), meter.window("train"):
        raise ValueError("the user's own")
    assert [reading.window for reading in meter.readings] == ["train"] and "device-side assert" in caplog.text
    with meter.window("again"):
        time.sleep(0.1)
    assert meter.readings[-1].measurement.energy_j > 0


def test_idle_power_and_energy_above_it():
    power = [4.0]
    meter = meter_of(lambda: power[0])
    idle = meter.measure_idle(0.2)
    assert meter.idle_power_w == pytest.approx(4, rel=0.01) and idle.above_idle_j == pytest.approx(0, abs=1e-9)
    power[0] = 10.0
    with meter.window("train") as train:
        time.sleep(0.2)
    assert train.reading.above_idle_j == pytest.approx(6 * train.reading.duration_s, rel=0.02)
    assert train.reading.row()["above_idle_j"] == train.reading.above_idle_j


def test_what_metering_costs_is_measured():
    meter = meter_of()
    with meter.window("train"):
        time.sleep(0.3)
    share = meter.describe()["metering_cpu_share"]
    assert 0 < share < 0.2 and meter.describe()["kind"] == "measured"


def test_what_is_no_source_is_refused():
    class Nameless(Sensor):
        kind = "mesured"

    for wrong, sentence in (
        ("auto", "is no energy source"),
        (Sensor, "is no energy source"),
        (Nameless(), "as kind one"),
    ):
        with pytest.raises(InputError, match=sentence):
            EnergyMeter(wrong)


def test_auto_is_never_without_a_source():
    assert EnergyMeter.auto().source.probe().available


def test_a_run_keeps_trace_board_and_cost_of_metering(tmp_path, monkeypatch):
    sensor = Sensor()
    monkeypatch.setattr(import_module("mirolib.energy.doctor"), "candidates", lambda _: [sensor, NullSource()])
    monkeypatch.setattr("mirolib.experiment.experiment._IDLE_S", 0.1)
    result = run_experiment(RunSettings(epochs=2, controller="miro-2023"), results=tmp_path, progress=False)
    assert set(result.energy["kind"]) == {"measured"} and set(result.trials["energy_kind"]) == {"measured"}
    assert set(result.trials["cost_unit"]) == {"visits", "J"}, "joules once a task was measured"
    assert len(result.trace) > 50 and sensor.closed
    described = pd.read_json(result.path / "run.json", typ="series")["energy"]
    assert described["source"] == "fake" and described["idle_power_w"] == pytest.approx(5, rel=0.05)
    train = result.energy[result.energy["window"] == "train"]
    assert (train["energy_j"] / train["duration_s"]).to_numpy() == pytest.approx(5, rel=0.05)
    assert np.isfinite(train["above_idle_j"]).all()
    for figure in (plots.power_over_time(result.trace, result.energy), plots.energy_by_phase(result.energy)):
        assert len(figure.data)


def test_a_sensor_that_dies_midway_leaves_the_run_going(tmp_path, monkeypatch, caplog):
    readings = iter(range(10**9))

    def dying():
        if next(readings) > 40:
            raise OSError(5, "Input/output error")
        return 5.0

    monkeypatch.setattr(import_module("mirolib.energy.doctor"), "candidates", lambda _: [Sensor(dying), NullSource()])
    monkeypatch.setattr("mirolib.experiment.experiment._IDLE_S", 0.1)
    result = run_experiment(RunSettings(epochs=2), results=tmp_path, progress=False)
    last = result.energy.iloc[-1]
    assert len(result.tasks) == 5 and last["coverage"] == 0 and math.isnan(last["energy_j"])
    assert "Input/output error" in last["note"] and "lost a reading" in caplog.text
    assert math.isnan(result.tasks["train_energy_j"].iloc[-1]), "never a silent 0 J"

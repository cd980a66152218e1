"""The power model: its fit, the file it is kept in, and what it estimates."""

import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sensors import meter_of

from mirolib import EnergyMeter, InputError, NullSource
from mirolib.energy import ModelSource, PowerModel, calibrate
from mirolib.energy.calibrate import fit
from mirolib.energy.sensors.model import Load, LoadMeter, machine_name, power_mode

POINTS = pd.DataFrame(
    {
        "time_s": 2.0,
        "cpu_s": [0.0, 2, 8, 2, 3],
        "read_bytes": [0.0, 0, 0, 2e9, 0],
        "written_bytes": [0.0, 0, 0, 0, 1e9],
        "gpu_s": 0.0,
    }
)


def test_the_model_is_found_from_points_that_follow_it():
    # 4 W at rest, 3 W a core, 2 J/GB read, 5 J/GB written: 8, 14, 32, 18 and 22 J, by hand.
    coefficients, errors = fit(POINTS.assign(energy_j=[8.0, 14, 32, 18, 22]))
    np.testing.assert_allclose(coefficients, [4, 3, 2e-9, 5e-9, 0], rtol=1e-6)
    assert np.abs(errors).max() < 1e-6
    _, worse = fit(POINTS.assign(energy_j=[8.0, 14, 32, 18, 25]).iloc[[0, 1, 2, 2, 2, 4, 4, 4]].assign(written_bytes=0))
    assert np.abs(worse).max() > 0.02


def model(**changes):
    plain = PowerModel(
        4.0, 3.0, 2e-9, 5e-9, 0.0, 0.1, machine_name(), power_mode(), "2026-01-01 00:00", "ina", "module", ("module",)
    )
    return replace(plain, **changes)


def test_a_calibrated_model_estimates_with_its_band():
    load, clock = Load(), time.monotonic
    start = clock()

    def read_load():
        now = clock() - start
        return replace(load, time_s=now, cpu_s=2 * now)

    meter = EnergyMeter(ModelSource(model(), read_load))
    with meter.window("train") as window:
        time.sleep(0.3)
    m = window.reading.measurement
    assert m.energy_j == pytest.approx(10 * window.reading.duration_s, rel=0.02), "4 W at rest and two busy cores"
    assert m.low_j < 0.91 * m.energy_j and m.high_j > 1.09 * m.energy_j
    assert window.reading.kind == "estimated-calibrated" and window.reading.scope == "estimate of module"


def test_calibrations_are_kept_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRO_CALIBRATION", str(tmp_path / "here" / "calibration.json"))
    missing = ModelSource().probe()
    assert not missing.available and "no calibration" in missing.reason and "calibrate" in missing.fix
    path = model().save()
    assert PowerModel.load() == model() and ModelSource().probe().available
    model(machine="another").save()
    assert "of another in mode" in ModelSource().probe().reason
    model(mode="15W").save()
    assert "mode 15W" in ModelSource().probe().reason
    good = path.read_text()
    for bad in ("", "[]", "{", good.replace("4.0", '"four"'), good.replace("4.0", "-4.0"), good.replace("4.0", "NaN"),
                good.replace('"format": 1', '"format": 9'), good.replace('"mode"', '"other"')):  # fmt: skip
        path.write_text(bad)
        with pytest.raises(InputError, match=str(path)):
            PowerModel.load()


@pytest.mark.skipif(os.getloadavg()[0] > os.cpu_count(), reason="the machine is busy, which no calibration stands")
def test_calibration_on_this_machine_with_a_sensor_that_follows_its_load(tmp_path):
    read_load, start = LoadMeter(), time.monotonic()
    last, power = [read_load()], [5.0]

    def watts():  # what a power supply would show, a tenth of a second behind
        now = read_load()
        if now.time_s - last[0].time_s > 0.1:
            span = now - last[0]
            last[0], power[0] = now, 5 + 4 * span.cpu_s / span.time_s
        return power[0]

    found, points = calibrate(meter_of(watts), duration_s=0.4, repeats=1, folder=tmp_path, progress=False)
    assert set(points["activity"]) >= {"idle", "one core", "all cores", "memory traffic", "writing", "reading"}
    assert points.loc[points["activity"] == "all cores", "cpu_s"].item() > 0.3
    assert found.machine == machine_name() and found.source == "fake" and found.scope == "test <board>"
    assert found.idle_w > 0 and np.isfinite(points["error"]).all() and not list(tmp_path.iterdir())
    assert time.monotonic() - start < 30
    with pytest.raises(InputError, match="needs a sensor"):
        calibrate(EnergyMeter(NullSource()))


def test_the_load_of_a_graphics_unit_adds_up(tmp_path):
    file = tmp_path / "load"
    file.write_text("500\n")
    meter = LoadMeter()
    meter.gpu_load = file
    before = meter()
    time.sleep(0.1)
    span = meter() - before
    assert span.gpu_s == pytest.approx(0.5 * span.time_s, rel=0.01) and span.time_s >= 0.1

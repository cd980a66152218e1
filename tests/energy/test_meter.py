"""Windows, phases, pairs, calibration and the notebook's magic."""

import math
import multiprocessing
import os
import threading
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from mirolib import (
    EnergyMeter,
    InputError,
    NullSource,
    RunSettings,
    compare,
    doctor,
    plots,
    run_experiment,
    swapping_cost as measure_swapping,
)
from mirolib.energy import (
    CounterSource,
    ModelSource,
    PowerModel,
    SampledSource,
    Work,
    calibrate,
    in_windows,
    magic,
    named,
    total_energy_j,
)
from mirolib.energy.calibrate import fit
from mirolib.energy.compare import interval
from mirolib.energy.sensors.boards import BOARDS
from mirolib.energy.sensors.load import Load, LoadMeter, machine_name, power_mode
from mirolib.energy.source import Availability


class Sensor(SampledSource):
    """A sensor in real time; its power can be set."""

    name, kind, scope, parts = "fake", "measured", "test <board>", frozenset({"module"})
    period_s, gap_s = 0.01, 0.5  # a loaded machine must not make the tests fail

    def __init__(self, power_w=lambda: 5.0):
        super().__init__()
        self.power_w, self.closed = power_w, False
        self.noise = np.random.default_rng(0)

    def probe(self):
        return Availability(True, "a fake")

    def read(self, rails):
        return {"total": self.power_w() + self.noise.normal(0, 0.001)}

    def close(self):
        self.closed = True


def meter_of(power_w=lambda: 5.0):
    return EnergyMeter(Sensor(power_w))


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


def test_windows_closed_out_of_order_or_twice_are_refused():
    meter = meter_of()
    outer, inner = meter.window("outer").open(), meter.window("inner").open()
    with pytest.raises(InputError, match=r"outer is closed while inner.*close inner first"):
        outer.close()
    inner.close()
    outer.close()
    with pytest.raises(InputError, match="outer is closed already"):
        outer.close()
    with pytest.raises(InputError, match="opened before"):
        outer.open()
    with pytest.raises(InputError, match="never opened"):
        meter.window("other").close()


def test_a_crashed_cell_leaves_the_meter_usable():
    meter = meter_of()
    with pytest.raises(ZeroDivisionError), meter.window("train"):
        meter.window("swap").open()
        raise ZeroDivisionError
    assert "train+swap" in [reading.window for reading in meter.readings]
    meter.window("left open").open()
    meter.restart()
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
    coefficients, error = fit(POINTS.assign(energy_j=[8.0, 14, 32, 18, 22]))
    np.testing.assert_allclose(coefficients, [4, 3, 2e-9, 5e-9, 0], rtol=1e-6)
    assert error < 1e-6
    _, worse = fit(POINTS.assign(energy_j=[8.0, 14, 32, 18, 25]).iloc[[0, 1, 2, 2, 2, 4, 4, 4]].assign(written_bytes=0))
    assert worse > 0.02


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
    meter = LoadMeter(file)
    before = meter()
    time.sleep(0.1)
    span = meter() - before
    assert span.gpu_s == pytest.approx(0.5 * span.time_s, rel=0.01) and span.time_s >= 0.1


def test_the_doctor_lists_every_source_with_reason_and_fix():
    table = doctor()
    assert {"jetson-ina", "jtop", "rapl", "nvml", "zeus", "battery", "model", "none"} <= set(table.index)
    assert table.loc["none", "available"] and table["found"].str.len().min() > 5
    unavailable = table[~table["available"]]
    assert len(unavailable) and unavailable.loc["model", "fix"]
    with pytest.raises(InputError, match=r"no energy source 'plug'; choose auto, jetson-ina"):
        named("plug")
    assert multiprocessing.get_start_method(allow_none=True) in (None, "fork")


def test_a_run_keeps_trace_board_and_cost_of_metering(tmp_path, monkeypatch):
    sensor = Sensor()
    monkeypatch.setattr(import_module("mirolib.energy.doctor"), "candidates", lambda: [sensor, NullSource()])
    monkeypatch.setattr("mirolib.experiment.experiment._IDLE_S", 0.1)
    result = run_experiment(RunSettings(epochs=2), results=tmp_path, progress=False)
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

    monkeypatch.setattr(import_module("mirolib.energy.doctor"), "candidates", lambda: [Sensor(dying), NullSource()])
    monkeypatch.setattr("mirolib.experiment.experiment._IDLE_S", 0.1)
    result = run_experiment(RunSettings(epochs=2), results=tmp_path, progress=False)
    last = result.energy.iloc[-1]
    assert len(result.tasks) == 5 and last["coverage"] == 0 and math.isnan(last["energy_j"])
    assert "Input/output error" in last["note"] and "lost a reading" in caplog.text
    assert math.isnan(result.tasks["train_energy_j"].iloc[-1]), "never a silent 0 J"


def test_the_magic_measures_a_cell(monkeypatch):
    monkeypatch.setattr(magic, "_METERS", [meter_of()])
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "mirolib")
    found = shell.run_cell_magic("energy", "napping", "import time\ntime.sleep(0.1)\nx = 3")
    assert found.window == "napping" and shell.user_ns["x"] == 3 and shell.user_ns["_energy"] is found
    assert found.measurement.energy_j == pytest.approx(5 * found.duration_s, rel=0.05)
    with pytest.raises(ZeroDivisionError):
        shell.run_cell_magic("energy", "", "1 / 0")
    assert shell.run_cell_magic("energy", "", "import time; time.sleep(0.1)").window == "cell"
    with pytest.raises(InputError, match="one word"):
        shell.run_cell_magic("energy", "two words", "1")


PAGE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_page_lists_every_board_with_its_total(board):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {board.name} |"))
    total = row.split("|")[2].split(";")[0].strip()
    assert tuple(total.split(" + ")) == board.total_rails


def test_the_page_s_own_source_works():
    code = PAGE.split("```python")[1].split("```")[0]
    names = {}
    exec(code, names)
    names["Plug"].period_s = 0.01
    with names["meter"].window("train") as window:
        time.sleep(0.1)
    assert window.reading.measurement.energy_j == pytest.approx(12.3 * window.reading.duration_s)
    assert all(f"| `{name}` |" in PAGE for name in doctor().index)


def test_a_device_that_fails_leaves_the_ledger_whole(caplog):
    meter = meter_of()

    def broken():
        raise RuntimeError("device-side assert")

    meter.watch(Work, broken)
    with pytest.raises(ValueError, match="the user's own"), meter.window("train"):
        raise ValueError("the user's own")
    assert [reading.window for reading in meter.readings] == ["train"] and "device-side assert" in caplog.text
    suspended = meter.sampling()
    suspended.__enter__()
    meter.restart()
    assert not any(thread.name == "miro-meter" for thread in threading.enumerate())
    suspended.__exit__(None, None, None)
    with meter.window("again"):
        time.sleep(0.1)
    assert meter.readings[-1].measurement.energy_j > 0


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


def test_a_counter_s_band_holds_what_came_before_the_window():
    class Counter(CounterSource):
        name, kind, scope, update_s, unit_j, wraps = "counter", "measured", "test", 0.1, 1.0, {}

        def probe(self):
            return Availability(True, "a function")

        def tell(self):
            return self.now

        def read(self):
            seen = math.floor(self.now / 0.1 + self.phase) * 0.1 - self.phase * 0.1  # as of the last update
            return {"a": round(1000 * (400 * min(seen, 5) + 60 * max(0, seen - 5)))}

    rng, inside = np.random.default_rng(0), 0
    for _ in range(100):
        source = Counter()
        source._clock = source.tell
        source.unit_j, source.now, source.phase = 1e-3, 1.0, rng.uniform(0, 1)
        for instant in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
            source.now = instant
            source.mark()
        found = source.measure(5.0, 7.0)
        inside += found.low_j <= 120 <= found.high_j
    assert inside >= 95


def test_a_counter_that_freezes_within_a_window_is_not_taken_as_measured():
    class Counter(CounterSource):
        name, kind, scope, update_s, unit_j, wraps = "counter", "measured", "test", 0.1, 1.0, {}

        def probe(self):
            return Availability(True, "a function")

        def read(self):
            return {"a": round(100 * min(self.now, 3.0)), "b": round(10 * self.now)}

    source = Counter(lambda: source.now)
    source.now = 0.0
    for instant in range(31):
        source.now = float(instant)
        source.mark()
    found = source.measure(0.0, 30.0)
    assert found.coverage < 0.25 and "counter a stands still" in found.note


def test_rails_are_stacked_on_one_time_base_without_what_lies_inside():
    trace = pd.DataFrame(
        {"time_s": [0, 0, 0, 1, 1, 1.5], "rail": ["total", "a", "b", "total", "a", "b"], "power_w": [3, 1, 2, 5, 3, 2]}
    )
    energy = pd.DataFrame({"window": ["train"], "start_s": [0.0], "duration_s": [1.5]})
    stack = plots.power_over_time(trace, energy, rails=("a", "b")).data[-2:]
    assert [list(part.x) for part in stack] == [[0, 1, 1.5]] * 2
    assert sum(part.y[0] for part in stack) == 3 and sum(part.y[1] for part in stack) == 5
    (total,) = plots.power_over_time(trace, energy).data[1:]
    assert list(total.y) == [3, 5]


def test_a_phase_that_was_not_seen_is_no_bar_of_zero():
    energy = pd.DataFrame(
        {"window": ["train", "train"], "task": [0, 1], "energy_j": [5.0, math.nan], "coverage": [1.0, 0.0],
         "kind": "measured", "scope": "board", "visits": 1, "forward_visits": 0}
    )  # fmt: skip
    figure = plots.energy_by_phase(energy)
    assert math.isnan(figure.data[0].y[1]) and "not seen: train" in figure.layout.title.text


def test_without_a_sensor_processor_time_is_compared_by_default():
    found = compare(
        EnergyMeter(NullSource()), lambda: sum(range(3_000_000)), lambda: sum(range(30_000)), pairs=6, progress=False
    )
    assert found.unit == "CPU s" and found.mean > 10 * found.baseline > 0 and found.resolvable
    with EnergyMeter(NullSource()).window("train") as window:
        sum(range(1_000_000))
    assert "processor seconds" in str(window.reading) and "no sensor" in str(window.reading)
    assert "of B" not in str(replace(found, baseline=0.0)), "nothing to divide by"


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

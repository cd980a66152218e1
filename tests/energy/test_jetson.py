import json
import math
import multiprocessing
import os
import sys
import time
from pathlib import Path

import boards
import pytest
from boards import set_watts, write_board

from mirolib import EnergyMeter, InputError
from mirolib.energy.sensors import boards as known
from mirolib.energy.sensors.jetson import JetsonSource
from mirolib.energy.sensors.jtop import JtopSource
from mirolib.energy.sensors.jtop_helper import rails_w

# board: watts of its rails, and what the module draws, added by hand
CASES = {
    "TX2": (
        {"VDD_IN": 8.0, "VDD_SYS_GPU": 3.0, "VDD_SYS_SOC": 1.0, "VDD_SYS_CPU": 2.0, "VDD_SYS_DDR": 1.2, "VDD_MUX": 9.0},
        8.0,
    ),
    "TX2 NX": ({"VDD_IN": 6.5}, 6.5),
    "Nano": ({"POM_5V_IN": 4.5, "POM_5V_GPU": 1.5, "POM_5V_CPU": 1.0}, 4.5),
    "Xavier NX": ({"VDD_IN": 9.0, "VDD_CPU_GPU_CV": 4.0, "VDD_SOC": 2.0}, 9.0),
    "AGX Xavier": ({"GPU": 5.0, "CPU": 3.0, "SOC": 2.0, "CV": 1.0, "VDDRQ": 1.5, "SYS5V": 3.5}, 16.0),
    "Orin Nano": ({"VDD_IN": 7.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5}, 7.0),
    "Orin NX": ({"VDD_IN": 11.0, "VDD_CPU_GPU_CV": 5.0, "VDD_SOC": 2.5}, 11.0),
    "AGX Orin": ({"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 4.0, "VIN_SYS_5V0": 6.0, "VDDQ_VDD2_1V8AO": 1.0}, 20.0),
    "Thor": ({"VDD_GPU": 12.0, "VDD_CPU_SOC_MSS": 6.5, "VIN_SYS_5V0": 6.5, "VIN": 40.0}, 25.0),
}
PARTIAL = set(CASES) - {"Nano"}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 0.001
        return self.now


def board_source(root: Path, name: str, generation: str = "hwmon", clock=None, **options) -> JetsonSource:
    drivers = write_board(root, name, CASES[name][0], generation=generation, **options)
    return JetsonSource(drivers, root / "model", clock or Clock())


def sample(source: JetsonSource, count: int = 20) -> tuple[float, float]:
    """First and last instant of some readings, 50 ms from each other."""
    instants = []
    for _ in range(count):
        instants.append(source.mark())
        source._clock.now += 0.048
    return instants[0], instants[-1]


@pytest.mark.parametrize(
    ("name", "generation"), [(name, "iio") for name in boards.IIO] + [(name, "hwmon") for name in boards.HWMON]
)
def test_the_total_is_that_of_the_module(tmp_path, name, generation):
    source = board_source(tmp_path, name, generation)
    watts, total = CASES[name]
    found = source.probe()
    assert found.available and found.reason.startswith(f"{name}: "), found
    start, end = sample(source)
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(total * (end - start), rel=1e-6) and measured.coverage == 1
    assert measured.note == ""
    assert source.kind == ("measured-partial" if name in PARTIAL else "measured")
    assert ("without" in source.scope) == (name in PARTIAL)
    trace = source.trace().groupby("rail")["power_w"].mean()
    for rail, power in watts.items():
        assert trace[rail] == pytest.approx(power), rail
    rails = {label for labels in boards.BOARDS[name][2].values() for label in labels} - {"NC"}
    rails |= {"VIN"} if name == "Thor" else set()
    assert set(source.total_rails) | set(source.other_rails) == rails == set(trace.index) - {"total"}


def test_every_board_is_told_from_the_others(tmp_path):
    models = {name: entry[0] for name, entry in boards.BOARDS.items()}
    more = {
        "NVIDIA Jetson TX2 Developer Kit": "TX2",
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit": "Orin NX",
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super": "Orin Nano",
        "NVIDIA Jetson AGX Orin Developer Kit": "AGX Orin",
        "NVIDIA Jetson AGX Xavier Developer Kit": "AGX Xavier",
        "NVIDIA Jetson Nano 2GB Developer Kit": "Nano",
    }
    assert set(models) == {board.name for board in known.BOARDS}
    for model, name in [*((model, name) for name, model in models.items()), *more.items()]:
        (tmp_path / "model").write_bytes(model.encode() + b"\0")
        assert known.identify(tmp_path / "model").name == name, model
        assert known.is_jetson(tmp_path / "model")
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert known.identify(tmp_path / "model") is None and not known.is_jetson(tmp_path / "model")
    (tmp_path / "compatible").write_bytes(b"vendor,carrier\0nvidia,tegra234\0")
    assert known.is_jetson(tmp_path / "model")
    assert known.identify(tmp_path / "absent") is None


def test_no_rail_is_both_in_the_total_and_inside_it():
    for board in known.BOARDS:
        assert board.total_rails and not set(board.total_rails) & set(board.inner_rails)
        assert not board.caps_w or (board.idle_w or 0) < board.caps_w[-1]


def test_an_unknown_board_shows_its_rails_and_claims_no_total(tmp_path):
    source = board_source(tmp_path, "Xavier NX", model="NVIDIA Jetson Next Developer Kit")
    found = source.probe()
    assert not found.available and "VDD_IN 9.00 W" in found.reason and "no total is claimed" in found.reason
    assert "Jetson Next" in found.reason and "boards.BOARDS" in found.fix
    assert source.read(["VDD_SOC"]) == {"VDD_SOC": pytest.approx(2.0)}
    start, end = sample(source)
    assert math.isnan(source.measure(start, end).energy_j) and len(source.trace()) == 0
    with pytest.raises(InputError, match="unknown board"):
        EnergyMeter(source)


def test_a_board_can_be_added(tmp_path, monkeypatch):
    added = known.Board("Next", ("Jetson Next",), ("VDD_CPU_GPU_CV", "VDD_SOC"))
    monkeypatch.setattr(known, "BOARDS", [*known.BOARDS, added])
    source = board_source(tmp_path, "Xavier NX", model="NVIDIA Jetson Next Developer Kit")
    start, end = sample(source)
    assert source.probe().available and source.measure(start, end).energy_j == pytest.approx(6 * (end - start))


def test_negative_readings_are_kept(tmp_path):
    source = board_source(tmp_path, "AGX Orin")
    set_watts(tmp_path, VDD_GPU_SOC=-0.39, VDD_CPU_CV=0.39, VIN_SYS_5V0=2.0)
    start, end = sample(source)
    trace = source.trace()
    assert list(trace.loc[trace["rail"] == "VDD_GPU_SOC", "power_w"]) == pytest.approx([-0.39] * 20)
    assert source.measure(start, end).energy_j == pytest.approx(2.0 * (end - start))
    assert source.measure(start, end).note == ""


@pytest.mark.parametrize("generation", ["hwmon", "iio"])
def test_a_sensor_that_comes_back_under_another_number(tmp_path, generation):
    source = board_source(tmp_path, "AGX Xavier", generation)
    start, _ = sample(source)
    pattern = {"hwmon": "drivers/ina3221/1-0041/hwmon/hwmon*", "iio": "drivers/ina3221x/1-0041/iio:device*"}
    (sensor,) = tmp_path.glob(pattern[generation])
    away = tmp_path / "away"
    os.rename(sensor, away)
    _, gone = sample(source)
    assert source.measure(start, gone).coverage < 0.7
    assert "lost" in source.measure(start, gone).note
    os.rename(away, sensor.with_name(sensor.name[:-1] + "42"))
    back, end = sample(source)
    after = source.measure(back + 0.1, end)
    assert after.coverage == 1 and after.energy_j == pytest.approx(16 * (end - back - 0.1)) and after.note == ""
    assert source.probe().available


def test_an_empty_file_is_a_lost_reading(tmp_path):
    source = board_source(tmp_path, "Orin Nano")
    start, _ = sample(source)
    (file,) = tmp_path.glob("drivers/ina3221/*/hwmon/*/curr1_input")
    content = file.read_text()
    file.write_text("")
    source.mark()
    file.write_text(content)
    _, end = sample(source)
    measured = source.measure(start, end)
    assert measured.note.startswith("1 readings lost") and measured.energy_j == pytest.approx(7 * (end - start))


def test_a_value_that_stands_still_is_no_reading(tmp_path):
    clock = Clock()
    source = board_source(tmp_path, "Orin Nano", clock=clock)
    start = clock.now
    for _ in range(100):
        source.mark()
        clock.now += 0.25
    measured = source.measure(start, clock.now)
    assert "exactly the same" in measured.note and measured.coverage < 0.6
    set_watts(tmp_path, VDD_IN=7.1)
    first, last = sample(source)
    assert source.measure(first, last).coverage == 1


def test_a_channel_that_fails_is_dropped(tmp_path):
    drivers = write_board(tmp_path, "Xavier NX", CASES["Xavier NX"][0])
    for name in ("in3_input", "in1_input"):
        (file,) = drivers.glob(f"ina3221/*/hwmon/*/{name}")
        file.unlink()
        file.mkdir()  # to read it is an error of input and output
        source = JetsonSource(drivers, tmp_path / "model", Clock())
        if name == "in3_input":
            assert source.probe().available and source.other_rails == ("VDD_CPU_GPU_CV",)
    found = source.probe()
    assert not found.available and "Xavier NX lacks VDD_IN" in found.reason and found.fix
    start, end = sample(source)
    assert "VDD_IN" in source.measure(start, end).note and math.isnan(source.measure(start, end).energy_j)
    (file,) = drivers.glob("ina3221/*/hwmon/*/in2_input")
    file.unlink()
    file.mkdir()
    found = source.probe()
    assert not found.available and found.reason.startswith("all 3 channels") and found.fix


def test_why_there_is_nothing_to_read(tmp_path):
    found = JetsonSource(tmp_path / "none", tmp_path / "model").probe()
    assert not found.available and "not a Jetson" in found.reason and not found.fix
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Nano 2GB Developer Kit\0")
    found = JetsonSource(tmp_path / "none", tmp_path / "model").probe()
    assert not found.available and "this Jetson shows no" in found.reason and "container" in found.fix


def refuse_text(read_text, path, denied, **options):
    if path.name == denied:
        raise PermissionError(13, "Permission denied")
    return read_text(path, **options)


@pytest.mark.parametrize("denied", ["curr1_input", "in1_label"])
def test_permission_is_asked_for(tmp_path, monkeypatch, denied):
    source = board_source(tmp_path, "Orin NX")
    open_ = os.open

    def refuse(path, *args, **options):
        if Path(path).name == denied:
            raise PermissionError(13, "Permission denied")
        return open_(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **options: refuse_text(read_text, path, denied, **options))
    found = source.probe()
    (folder,) = tmp_path.glob("drivers/ina3221/*/hwmon/*")
    assert not found.available and "permission denied" in found.reason and f"chmod a+r {folder}/*" in found.fix
    start, end = sample(source)
    assert math.isnan(source.measure(start, end).energy_j)
    monkeypatch.undo()
    assert source.probe().available


def test_what_is_kept_with_a_run(tmp_path):
    facts = json.loads(json.dumps(board_source(tmp_path, "AGX Orin").describe()))
    assert facts["board"] == "AGX Orin" and facts["model"] == "Jetson AGX Orin Developer Kit"
    assert facts["resolution_w"] == 0.4
    assert facts["rails"]["VDD_CPU_CV"][0].endswith("1-0040/hwmon/hwmon9/in2_input")
    assert list(facts["sensors"].values()) == [{"samples": "512", "update_interval": "1689"}] * 2


FAKE = """
import multiprocessing, os, sys, time
multiprocessing.set_start_method("fork", force=True)
print("jtop says hello")

class JtopException(Exception):
    pass

class jtop:
    def __init__(self, interval=0.5):
        self.interval = {interval}
        self._left = {ticks}
    def __enter__(self):
        if {error!r}:
            raise JtopException({error!r})
        return self
    def __exit__(self, *error):
        pass
    def ok(self, spin=False):
        self._left -= 1
        if self._left < 0 and {hang}:
            time.sleep(60)
        time.sleep(self.interval if self._left >= 0 else 3 * self.interval)
        return self._left >= 0
    @property
    def power(self):
        return {power!r}
"""


def entry(watts: float, **more) -> dict:
    return {"volt": 5000, "curr": round(watts * 200), "power": round(watts * 1000), "avg": 123456, **more}


def jtop_power(name: str) -> dict:
    """What jtop makes of a board's rails: the input rail apart, or the sum of all of them."""
    watts = dict(CASES[name][0])
    for rail in ("VDD_IN", "POM_5V_IN"):
        if rail in watts:
            total = entry(watts.pop(rail), name=rail)
            return {"rail": {name: entry(power) for name, power in watts.items()}, "tot": total}
    total = {"power": round(1000 * sum(watts.values())), "avg": 0}
    return {"rail": {name: entry(power) for name, power in watts.items()}, "tot": total}


@pytest.fixture
def fake_jtop(tmp_path, monkeypatch):
    """Writes a fake jtop and a board's device tree, and makes sources on them."""
    made = []

    def make(name="AGX Orin", *, power=None, error="", ticks=10**6, interval=0.02, hang=False, model=None):
        folder = tmp_path / "packages" / "jtop"
        folder.mkdir(parents=True, exist_ok=True)
        power = jtop_power(name) if power is None else power
        code = FAKE.format(interval=interval, ticks=ticks, error=error, power=power, hang=hang)
        (folder / "__init__.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder.parent))
        monkeypatch.syspath_prepend(folder.parent)
        (tmp_path / "model").write_bytes((boards.BOARDS[name][0] if model is None else model).encode() + b"\0")
        (tmp_path / "compatible").write_bytes(b"nvidia,tegra234\0")
        made.append(JtopSource(model_file=tmp_path / "model"))
        return made[-1]

    yield make
    for source in made:
        start = time.monotonic()
        source.close()
        assert source._process is None or source._process.poll() is not None
        assert time.monotonic() - start < 4, "it had to be killed"


def wait_for(condition, timeout_s: float = 8.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["AGX Orin", "Xavier NX"])
def test_jtop_is_read_in_another_process_and_its_total_is_not_taken(fake_jtop, name):
    before = multiprocessing.get_start_method(allow_none=True)
    source = fake_jtop(name)
    assert source.probe().available
    assert source.period_s == 0.02, "the interval is the service's"
    start = source.mark()
    wait_for(lambda: len(source._times) > 15)
    end = source._times[-1]
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(CASES[name][1] * (end - start), rel=1e-3)
    assert source.kind == "measured-partial" and source.scope == "module (without carrier, NVMe)"
    assert source.read(source.total_rails)
    assert set(source.describe()["other_rails"]) == set(CASES[name][0]) - set(source.total_rails)
    assert "jtop" not in sys.modules and multiprocessing.get_start_method(allow_none=True) == before


def test_the_input_rail_of_jtop_stands_apart():
    assert rails_w(jtop_power("TX2")) == pytest.approx(CASES["TX2"][0])
    assert rails_w(jtop_power("AGX Orin")) == pytest.approx(CASES["AGX Orin"][0])


def test_a_service_that_dies_midway(fake_jtop):
    source = fake_jtop(ticks=10)
    assert source.probe().available
    start = source.mark()
    wait_for(lambda: source._ended)
    end = source.mark()
    assert "fell silent" in source.measure(start, end + 1).note
    count = len(source._times)
    source._started -= 60
    source.mark()
    wait_for(lambda: len(source._times) > count)


def test_a_service_that_hangs(fake_jtop):
    source = fake_jtop(ticks=10, hang=True)
    assert source.probe().available
    wait_for(lambda: len(source._times) >= 10)
    time.sleep(0.1)
    instant = source.mark()
    assert "said nothing for" in source.measure(instant - 1e-3, instant + 1).note
    with pytest.raises(Exception, match="nothing lately"):
        source.read(source.total_rails)


@pytest.mark.parametrize(
    ("error", "reason", "fix"),
    [
        ("The jtop.service is not active. Please run:\nsudo systemctl restart jtop.service", "not active", "restart"),
        ("I can't access jtop.service.\nPlease logout or reboot this board.", "can't access", "usermod -aG jtop"),
        (
            "Mismatch version jtop service: [4.2.7] and client: [4.3.1]. Please run:\n\nsudo systemctl restart",
            "[4.2.7] and client: [4.3.1]",
            "version of jetson-stats",
        ),
    ],
)
def test_jtop_says_why_not(fake_jtop, error, reason, fix):
    source = fake_jtop(error=error)
    found = source.probe()
    assert not found.available and reason in found.reason and "Please" not in found.reason and fix in found.fix
    with pytest.raises(InputError, match="jtop says"):
        EnergyMeter(source)


def test_jtop_without_sensors_or_on_an_unknown_board(fake_jtop, tmp_path):
    found = fake_jtop(power={}).probe()
    assert not found.available and "no power sensor" in found.reason and found.fix
    source = fake_jtop("AGX Orin", model="NVIDIA Jetson Next Developer Kit")
    found = source.probe()
    assert not found.available and "VDD_CPU_CV 4.00 W" in found.reason and "boards.BOARDS" in found.fix
    assert len(source._times) == 0


def test_jtop_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    source = JtopSource(model_file=tmp_path / "model")
    assert source.probe().reason == "not a Jetson board"
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Next Developer Kit\0")
    found = JtopSource(model_file=tmp_path / "model").probe()
    assert not found.available and "not installed" in found.reason and "pip3 install -U jetson-stats" in found.fix

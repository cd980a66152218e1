import json
import math
import os
from pathlib import Path

import boards
import pytest
from boards import CASES, set_watts, write_board
from sensors import Clock

from mirolib import EnergyMeter, InputError
from mirolib.energy.sensors import boards as known
from mirolib.energy.sensors.jetson import JetsonSource

PARTIAL = set(CASES) - {"Nano"}


def board_source(root: Path, name: str, generation: str = "hwmon", clock=None, **options) -> JetsonSource:
    drivers = write_board(root, name, CASES[name][0], generation=generation, **options)
    source = JetsonSource(drivers)
    source.clock = clock or Clock(step=0.001)
    return source


def sample(source: JetsonSource, count: int = 40) -> tuple[float, float]:
    """First and last instant of some readings, 50 ms from each other."""
    instants = []
    for _ in range(count):
        instants.append(source.mark())
        source.clock.now += 0.048
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
    assert list(trace.loc[trace["rail"] == "VDD_GPU_SOC", "power_w"]) == pytest.approx([-0.39] * 40)
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
    assert source.measure(start, gone).coverage < 0.85
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
    clock = Clock(step=0.001)
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
        source = JetsonSource(drivers)
        source.clock = Clock(step=0.001)
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
    found = JetsonSource(tmp_path / "none").probe()
    assert not found.available and "not a Jetson" in found.reason and not found.fix
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Nano 2GB Developer Kit\0")
    found = JetsonSource(tmp_path / "none").probe()
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
    assert list(facts["sensors"].values()) == [{"samples": "512", "update_interval": "430"}] * 2


def test_a_carrier_s_sensor_on_a_lower_bus_is_told_from_the_module_s(tmp_path):
    source = board_source(tmp_path, "Orin Nano")
    folder = tmp_path / "drivers" / "ina3221" / "0-0041" / "hwmon" / "hwmon1"
    boards._put(folder, name="ina3221", in1_label="VDD_IN", in1_input=5000, curr1_input=9000)
    assert source.probe().available
    assert source.read(["VDD_IN", "VDD_IN (0-0041)"]) == {"VDD_IN": 7.0, "VDD_IN (0-0041)": 45.0}
    start, end = sample(source)
    assert source.measure(start, end).energy_j == pytest.approx(7 * (end - start))


def test_a_chip_without_labels_is_named_as_such(tmp_path):
    source = board_source(tmp_path, "Orin Nano")
    for label in tmp_path.glob("drivers/ina3221/*/hwmon/*/in[1-3]_label"):
        label.unlink()
    found = source.probe()
    assert not found.available and "the chip at 1-0040 has no labels" in found.reason and "device tree" in found.fix


def test_a_board_that_a_container_hides_is_named(tmp_path):
    drivers = board_source(tmp_path, "Orin Nano")._root
    (tmp_path / "model").unlink()
    (tmp_path / "compatible").unlink()
    assert not JetsonSource(drivers).probe().available
    assert JetsonSource(drivers, "Orin Nano").probe().available

import math
import types

import boards
import pytest

from mirolib import EnergyMeter, InputError
from mirolib.energy import total_energy_j
from mirolib.energy.sensors import boards as known
from mirolib.energy.sensors.boards import BoardBandSource


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
    assert set(models) == {board.name for board in known.BOARDS} - {"Raspberry Pi 5"}
    for model, name in [*((model, name) for name, model in models.items()), *more.items()]:
        (tmp_path / "model").write_bytes(model.encode() + b"\0")
        assert known.identify().name == name, model
        assert known.is_jetson()
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert known.identify() is known.PI and not known.is_jetson()
    (tmp_path / "compatible").write_bytes(b"vendor,carrier\0nvidia,tegra234\0")
    assert known.is_jetson()
    (tmp_path / "model").unlink()
    assert known.identify() is None


def test_rails_and_caps_of_the_boards_are_consistent():
    for board in known.BOARDS[:-1]:
        _, bus, sensors = boards.BOARDS[board.name]
        assert set(board.sensors) <= {f"{bus}-{address}" for address in sensors}
        assert set(board.total_rails) <= {rail for rails in boards.BOARDS[board.name][2].values() for rail in rails}
        assert not board.idle_w >= board.cap_w


def test_the_band_of_a_board_without_a_sensor(model_file, clock):
    model_file.write_bytes(b"NVIDIA Jetson Xavier NX Developer Kit\0")
    source = BoardBandSource()
    found = source.probe()
    assert found.available and source.kind == "estimated-uncalibrated" and source.scope == "Xavier NX module"
    meter = EnergyMeter(source)
    with meter.window("train"):
        clock.now += 10
    measured = meter.readings[0].measurement
    assert math.isnan(measured.energy_j) and measured.coverage == 0 and math.isnan(total_energy_j(meter.readings))
    assert measured.low_j == pytest.approx(51) and measured.high_j == pytest.approx(200)
    assert measured.note == "no sensor: between the board's idle power and its power cap"
    assert source.describe()["idle_w"] == 5.1 and "no joules (between" in str(meter.readings[0])


@pytest.mark.parametrize("model", [None, b"Raspberry Pi 5 Model B\0"])
def test_no_band_is_known_for_another_machine(model_file, model):
    if model:
        model_file.write_bytes(model)
    source = BoardBandSource()
    found = source.probe()
    assert not found.available and "no band is known for this machine" in found.reason
    assert math.isnan(source.measure(0, 1).high_j)


def test_no_band_is_made_up_for_a_board_whose_idle_power_is_not_known(monkeypatch):
    board = types.SimpleNamespace(name="Jetson X", idle_w=math.nan, cap_w=20.0)
    monkeypatch.setattr(known, "identify", lambda _: board)
    found = BoardBandSource().probe()
    assert not found.available and "Jetson X" in found.reason


def test_a_board_can_be_named_where_a_container_hides_it():
    assert known.identify("Orin Nano").name == "Orin Nano"
    with pytest.raises(InputError, match="energy_board is 'Orion'; choose one of TX2, TX2 NX, Nano"):
        known.identify("Orion")

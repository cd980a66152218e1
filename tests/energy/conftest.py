"""What stands in for the machine in the tests of energy sources."""

import sys

import pytest
from sensors import Clock

from mirolib.energy import EnergySource
from mirolib.energy.sensors import boards
from mirolib.energy.sensors.nvml import NvmlSource


@pytest.fixture
def clock(monkeypatch):
    """Time of every source made in a test."""
    made = Clock()
    monkeypatch.setattr(EnergySource, "clock", staticmethod(made))
    return made


@pytest.fixture(autouse=True)
def model_file(tmp_path, monkeypatch):
    """Where the board's name stands, so that it does not matter what machine runs the tests."""
    monkeypatch.setattr(boards, "MODEL_FILE", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def nvml_source(monkeypatch):
    """Makes sources over a fake of pynvml, where CUDA's variables are not set."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)

    def make(nvml, devices=None, device=""):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return NvmlSource(devices, device)

    return make

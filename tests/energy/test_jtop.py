import math
import multiprocessing
import sys
import time

import boards
import pytest

from mirolib import EnergyMeter, InputError
from mirolib.energy.sensors.jtop import JtopSource
from mirolib.energy.sensors.jtop_helper import rails_w

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
    watts = dict(boards.CASES[name][0])
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
        made.append(JtopSource())
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
    assert source.averaging_s == 0.43, "the same chip, and its files are out of sight here"
    assert math.isnan(source.measure(source.mark(), source.mark() + 1).energy_j)
    source.averaging_s = 0.0
    start = source.mark()
    wait_for(lambda: len(source._times) > 15)
    end = source._times[-1]
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(boards.CASES[name][1] * (end - start), rel=1e-3)
    assert source.kind == "measured-partial" and source.scope == "module (without carrier, NVMe)"
    assert source.read(source.total_rails)
    assert set(source.describe()["other_rails"]) == set(boards.CASES[name][0]) - set(source.total_rails)
    assert "jtop" not in sys.modules and multiprocessing.get_start_method(allow_none=True) == before


def test_the_input_rail_of_jtop_stands_apart():
    assert rails_w(jtop_power("TX2")) == pytest.approx(boards.CASES["TX2"][0])
    assert rails_w(jtop_power("AGX Orin")) == pytest.approx(boards.CASES["AGX Orin"][0])


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
    assert not found.available and reason in found.reason and fix in found.fix
    assert " ".join(error.split()) in found.reason, "jtop's own sentence, whole"
    assert " ".join(error.partition("Please")[2].split()) in found.fix
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
    source = JtopSource()
    assert source.probe().reason == "not a Jetson board"
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Next Developer Kit\0")
    found = JtopSource().probe()
    assert not found.available and "not installed" in found.reason and "pip3 install -U jetson-stats" in found.fix

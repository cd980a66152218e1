"""The rails of a Raspberry Pi 5, as a fake of vcgencmd tells them."""

import math
import subprocess

import pytest

from mirolib.energy.sensors import boards
from mirolib.energy.sensors.jetson import JetsonSource
from mirolib.energy.sensors.pi import PiSource


@pytest.fixture
def firmware(tmp_path, monkeypatch):
    """Puts a vcgencmd in the path that prints what a board does, and the board's model."""
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    lines = [f" {rail}_A current({n})=0.25000000A" for n, rail in enumerate(boards.PI.total_rails)]
    lines += [f" {rail}_V volt({n + 8})=2.{n:02}000000V" for n, rail in enumerate(boards.PI.total_rails)]
    lines += [" EXT5V_V volt(24)=5.15000000V", " BATT_V volt(25)=0.00512820V"]  # of these only the volts are told

    def write(text="", code=0):
        command = tmp_path / "vcgencmd"
        said = text or "\n".join(lines)
        command.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit {code}\n")
        command.chmod(0o755)

    write()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return write


def test_the_twelve_rails_are_added(firmware, clock):
    source = PiSource()
    found = source.probe()
    assert found.available and "VDD_CORE 0.52 W" in found.reason and len(source.total_rails) == 12
    assert source.kind == "measured-partial" and "without losses of its power chip, USB" in source.scope
    assert not JetsonSource().probe().available
    instants = []
    for _ in range(11):
        instants.append(source.mark())
        clock.now += 1
    true_w = sum(0.25 * (2 + n / 100) for n in range(12))
    assert source.measure(instants[0], instants[-1]).energy_j == pytest.approx(10 * true_w)


def test_why_a_pi_tells_nothing(firmware, monkeypatch, tmp_path):
    firmware("VDD_CORE_A current(7)=1.0A")
    assert "lacks 3V7_WL_SW" in PiSource().probe().reason
    firmware(code=255)
    assert "group video" in PiSource().probe().fix
    (tmp_path / "vcgencmd").unlink()
    assert "raspi-utils" in PiSource().probe().fix
    source = PiSource()
    assert math.isnan(source.measure(source.mark(), source.mark()).energy_j)
    monkeypatch.setattr(subprocess, "run", None)
    (tmp_path / "model").unlink()
    assert PiSource().probe().reason == "not a Raspberry Pi 5"
    assert PiSource("Raspberry Pi 5").board is boards.PI

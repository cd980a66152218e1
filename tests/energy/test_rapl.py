import itertools
import math
import os
import time
from pathlib import Path

import pytest

from mirolib import EnergyMeter, InputError, RaplSource


def rapl_tree(root: Path) -> Path:
    """Two packages with core, uncore and DRAM below the first, and psys: as a server shows them."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
    }
    for zone, name in zones.items():
        (root / zone).mkdir()
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "max_energy_range_uj").write_text("999999\n")
        (root / zone / "energy_uj").write_text("0\n")
    return root


def advance(root: Path, **microjoules: int) -> None:
    for zone in root.glob("intel-rapl:*"):
        name = (zone / "name").read_text().strip().replace("-", "_")
        value = (int((zone / "energy_uj").read_text()) + microjoules.get(name, 0)) % 1_000_000
        fresh = zone / "fresh"
        fresh.write_text(f"{value}\n")
        os.replace(fresh, zone / "energy_uj")


def test_rapl_adds_packages_and_dram_only(tmp_path):
    root = rapl_tree(tmp_path)
    meter = EnergyMeter(RaplSource(root))
    with meter.window("train"):
        advance(root, package_0=300_000, package_1=200_000, dram=100_000, core=250_000, psys=700_000)
        time.sleep(0.02)
    reading = meter.readings[0]
    assert reading.measurement.energy_j == pytest.approx(0.6)
    assert reading.kind == "measured-partial" and reading.scope == "processor packages and DRAM"
    assert reading.measurement.low_j <= 0.6 <= reading.measurement.high_j


def test_rapl_counters_that_wrap_within_a_long_window(tmp_path, clock):
    root = rapl_tree(tmp_path)
    source = RaplSource(root)
    source.period_s = None  # the test reads it, so that a busy machine makes no difference
    meter = EnergyMeter(source)
    with meter.window("train"):
        for _ in range(5):
            for _ in range(6):
                advance(root, package_0=100_000, package_1=10, dram=10)
                clock.now += 0.01
                source.mark()
            advance(root, package_0=100_000)
        clock.now += 0.01
    assert meter.readings[0].measurement.energy_j == pytest.approx(3.5006)
    assert meter.readings[0].measurement.samples >= 10


def test_rapl_says_why_it_is_not_available(tmp_path, monkeypatch):
    nothing = RaplSource(tmp_path).probe()
    assert not nothing.available and "no RAPL counters" in nothing.reason
    source = RaplSource(rapl_tree(tmp_path))
    (tmp_path / "intel-rapl:1" / "max_energy_range_uj").unlink()
    assert list(RaplSource(tmp_path).read()) == ["package-0 (intel-rapl:0)", "dram (intel-rapl:0:1)"]

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mirolib.energy.sensors.rapl.file_number", refuse)
    refused = source.probe()
    assert not refused.available and "root only" in refused.reason and "chmod" in refused.fix
    with pytest.raises(InputError, match="root only"):
        EnergyMeter(source)


def test_a_counter_that_stands_still_is_no_zero(tmp_path):
    tree = tmp_path / "intel-rapl:0"
    tree.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "999999"), ("energy_uj", "5")):
        (tree / name).write_text(text)
    source = RaplSource(tmp_path)
    clock = itertools.count(0.0, 0.5)
    source.clock = lambda: next(clock)
    start, end = source.mark(), source.mark()
    found = source.measure(start, end)
    assert math.isnan(found.energy_j) and found.coverage == 0 and found.note == "the counters stood still"

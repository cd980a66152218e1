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
    assert RaplSource(root).parts == {"cpu", "dram"}
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


def write(zone: Path, value: object) -> None:
    (zone / "energy_uj").write_text(f"{value}\n")


@pytest.fixture
def server(tmp_path, clock):
    """A source over a server's tree whose packages take 50 and 30 W and its DRAM 5 W, and what lets seconds pass."""
    root = rapl_tree(tmp_path)
    for zone in root.glob("intel-rapl:*"):
        (zone / "max_energy_range_uj").write_text("262143328850\n")
        write(zone, 200_000_000_000)
    source = RaplSource(root)
    uses = {"intel-rapl:0": 50, "intel-rapl:1": 30, "intel-rapl:0:1": 5}

    def seconds(count, **gone):
        instants = []
        for _ in range(count):
            for zone, watts in uses.items():
                if zone not in gone.get("still", ()):
                    write(root / zone, int((root / zone / "energy_uj").read_text()) + watts * 1_000_000)
            clock.now += 1
            instants.append(source.mark())
        return instants

    return root, source, seconds


@pytest.mark.parametrize("value", [0, 199_999_999_939, 12_000_000])
def test_a_step_back_that_is_no_wrap_leaves_its_interval_out(server, value):
    """A read of 0, a jitter of 61 uJ, a driver that begins anew: a wrap would be 62 kJ and more within a second."""
    root, source, seconds = server
    before = seconds(4)
    write(root / "intel-rapl:0", value - 50_000_000 if value else 0)
    after = seconds(6)
    found = source.measure(before[0], after[-1])
    assert found.energy_j == pytest.approx(85 * 9, rel=0.01) and found.coverage == pytest.approx(8 / 9)
    assert found.low_j <= 85 * 9 <= found.high_j and "set back" in found.note
    assert source.measure(after[0], after[-1]).coverage == 1


def test_a_wrap_at_plausible_watts_is_one(server):
    root, source, seconds = server
    for zone in root.glob("intel-rapl:*"):
        write(zone, 262_143_328_850 - 20_000_000)
    instants = [source.mark()]
    write(root / "intel-rapl:0", 29_999_999 - 50_000_000)
    instants += seconds(1)
    assert source.measure(instants[0], instants[1]).energy_j == pytest.approx(50 - 1e-6 + 30 + 5)


def test_a_step_forward_beyond_any_processor_is_a_reset_too(server):
    root, source, seconds = server
    first = seconds(1)[0]
    write(root / "intel-rapl:0", 0)
    seconds(2)
    write(root / "intel-rapl:0", 200_000_000_000)
    last = seconds(7)[-1]
    found = source.measure(first, last)
    assert found.energy_j == pytest.approx(85 * 9, rel=0.01) and found.coverage == pytest.approx(7 / 9)


def test_a_dead_dram_counter_does_not_blank_the_packages(server):
    _, source, seconds = server
    start = seconds(3)[0]
    end = seconds(12, still=["intel-rapl:0:1"])[-1]
    found = source.measure(start, end)
    assert found.coverage == 1 and found.energy_j == pytest.approx(80 * 14 + 5 * 2, abs=0.1)
    assert source.scope == "processor packages (without dram (intel-rapl:0:1))" and source.parts == {"cpu"}
    assert "stands still: left out from here on" in found.note and source.describe()["unusable"]
    dead = seconds(8, still=["intel-rapl:1"])
    assert source.measure(dead[4], dead[-1]).coverage == 0, "a part of the sockets is not all of them"


@pytest.mark.parametrize("zone", ["intel-rapl:1", "intel-rapl:0:1"])
def test_a_zone_that_fails_is_named_and_the_scope_changes(tmp_path, zone):
    root = rapl_tree(tmp_path)
    (root / zone / "energy_uj").unlink()
    source = RaplSource(root)
    found = source.probe()
    assert found.available and f"({zone})" in source.scope and "without" in source.scope
    assert "No such file" in str(source.describe()["unusable"]) and ("dram" in source.parts) == (zone == "intel-rapl:1")


def test_a_package_without_a_readable_range_is_counted_all_the_same(tmp_path, clock):
    root = rapl_tree(tmp_path)
    (root / "intel-rapl:1" / "max_energy_range_uj").unlink()
    source = RaplSource(root)
    start = source.mark()
    advance(root, package_0=300_000, package_1=200_000)
    clock.now += 1
    end = source.mark()
    assert source.measure(start, end).energy_j == pytest.approx(0.5), "not half of it"
    assert "no readable range" in source.describe()["package-1 (intel-rapl:1)"]
    write(root / "intel-rapl:1", 100)
    clock.now += 1
    assert source.measure(end, source.mark()).coverage == 0, "where it wraps is not known"


def zones(root: Path, **labels: str) -> Path:
    for zone, label in labels.items():
        folder = root / zone.replace("__", "-").replace("_", ":")
        folder.mkdir(parents=True)
        for name, text in (("name", label), ("max_energy_range_uj", 999_999_999), ("energy_uj", 0)):
            (folder / name).write_text(f"{text}\n")
    return root


def test_amd_s_scope_claims_no_dram(tmp_path):
    source = RaplSource(zones(tmp_path, **{"intel__rapl_0": "package-0", "intel__rapl_0_0": "core"}))
    assert source.scope == "processor packages" and source.parts == {"cpu"}
    assert list(source.read()) == ["package-0 (intel-rapl:0)"]


def test_domains_can_be_chosen(tmp_path):
    laptop = {
        "intel__rapl_0": "package-0",
        "intel__rapl_0_0": "core",
        "intel__rapl_0_1": "dram",
        "intel__rapl_1": "psys",
    }
    root = zones(tmp_path, **laptop, intel__rapl__mmio_0="package-0")
    assert list(RaplSource(root).read()) == ["package-0 (intel-rapl:0)", "dram (intel-rapl:0:1)"], "MMIO shows it again"
    assert list(RaplSource(root, "-dram").read()) == ["package-0 (intel-rapl:0)"]
    whole = RaplSource(root, "psys")
    assert list(whole.read()) == ["psys (intel-rapl:1)"] and whole.scope == "platform (psys)"
    assert "machine" in whole.parts, "nothing may be added to it"
    assert list(RaplSource(root, "core").read()) == ["core (intel-rapl:0:0)"]
    assert list(RaplSource(root, "intel-rapl-mmio:0").read()) == ["package-0 (intel-rapl-mmio:0)"]
    for wrong, sentence in (
        ("gpu", "energy_domains names 'gpu'; this machine has core, dram"),
        ("psys, dram", "would count energy twice"),
        ("package, core", "would count energy twice"),
    ):
        with pytest.raises(InputError, match=sentence):
            RaplSource(root, wrong)


def test_a_machine_with_mmio_only(tmp_path):
    source = RaplSource(zones(tmp_path, intel__rapl__mmio_0="package-0"))
    assert list(source.read()) == ["package-0 (intel-rapl-mmio:0)"] and source.probe().available

import math

import pytest
from sensors import put, steps

from mirolib import EnergyMeter, InputError
from mirolib.energy.sensors.battery import BatterySource


def battery(root, name="BAT0", status="Discharging", **files):
    return put(root, name, type="Battery", status=status, **(files or {"power_now": 12_500_000}))


def flicker(folder):
    """A gauge that has looked anew: its last digit is another."""
    (file,) = [folder / name for name in ("power_now", "voltage_now") if (folder / name).exists()]
    value = int(file.read_text())
    file.write_text(str(value - 1 if value % 2 else value + 1))


@pytest.mark.parametrize(
    ("batteries", "power_w"),
    [
        ([{"power_now": 12_500_000}], 12.5),
        ([{"power_now": -12_500_000}], 12.5),
        ([{"current_now": 1_500_000, "voltage_now": 12_000_000}], 18),
        ([{"current_now": -1_500_000, "voltage_now": 12_000_000}], 18),
        ([{"power_now": 8_000_000}, {"power_now": -4_000_000}], 12),
        ([{"power_now": 8_000_000}, {"status": "Not charging", "power_now": 0}], 8),
        ([{"power_now": 8_000_000}, {"status": "Unknown", "power_now": 77_000_000}], 8),
    ],
)
def test_a_battery_that_discharges(tmp_path, clock, batteries, power_w):
    for number, files in enumerate(batteries):
        battery(tmp_path, f"BAT{number}", **files)
    put(tmp_path, "AC", type="Mains", online=0)
    source = BatterySource(tmp_path)
    assert source.probe().available and source.kind == "measured"
    instants = steps(source, clock, [(1, lambda: flicker(tmp_path / "BAT0"))] * 10)
    measured = source.measure(instants[0], instants[-1])
    assert measured.energy_j == pytest.approx(10 * power_w, rel=1e-3) and measured.coverage == 1
    margin = 0.05 * len(batteries)
    assert (measured.low_j, measured.high_j) == pytest.approx((10 * power_w - margin, 10 * power_w + margin), rel=1e-3)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_is_not_in_use(tmp_path, status):
    battery(tmp_path, status=status)
    found = BatterySource(tmp_path).probe()
    assert not found.available and f"BAT0: {status}" in found.reason and found.fix == "Unplug the charger."
    with pytest.raises(InputError, match="Unplug the charger"):
        EnergyMeter(BatterySource(tmp_path))


def test_no_battery_and_what_is_none(tmp_path):
    assert BatterySource(tmp_path / "absent").probe().reason == "no battery"
    put(tmp_path, "BAT0", type="UPS", status="Discharging", power_now=5_000_000)
    assert BatterySource(tmp_path).probe().reason == "no battery"


@pytest.mark.parametrize("name", ["CMB1", "macsmc-battery", "qcom-battmgr-bat"])
def test_a_battery_is_known_by_its_type(tmp_path, name):
    battery(tmp_path, name)
    battery(tmp_path, "hidpp_battery_0", scope="Device", power_now=1_000_000)  # that of a mouse
    source = BatterySource(tmp_path)
    assert source.probe().available and source.total_rails == (name,)


def test_a_battery_beside_a_charger_gives_only_a_part(tmp_path):
    battery(tmp_path)
    put(tmp_path, "AC", type="Mains", online=1)
    found = BatterySource(tmp_path).probe()
    assert not found.available and "only a part" in found.reason
    put(tmp_path, "AC", online=0)
    for name, kind, online in (("ucsi", "USB", 1), ("usb-c", "USB_C", 2), ("pad", "Wireless", 1), ("pd", "USB", 2)):
        put(tmp_path, name, type=kind, online=online)
        assert "only a part" in BatterySource(tmp_path).probe().reason, name
        put(tmp_path, name, online=0)
    assert BatterySource(tmp_path).probe().available
    battery(tmp_path, "BAT1", status="Charging", power_now=9_000_000)
    assert not BatterySource(tmp_path).probe().available, "one battery is being charged"


@pytest.mark.parametrize(
    ("files", "reason"),
    [({"power_now": 0}, "0 W"), ({"power_now": "much"}, "does not say"), ({"voltage_now": 12_000_000}, "does not say")],
)
def test_a_battery_that_does_not_say_its_power(tmp_path, files, reason):
    battery(tmp_path, **files)
    assert reason in BatterySource(tmp_path).probe().reason


def test_a_battery_that_may_not_be_read(tmp_path, monkeypatch):
    battery(tmp_path)
    source = BatterySource(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mirolib.energy.sensors.boards.file_number", refuse)
    found = source.probe()
    assert not found.available and "Permission denied" in found.reason and "power_now" in found.fix


def test_going_on_mains_midway_is_not_counted_as_battery_power(tmp_path, clock, caplog):
    battery(tmp_path, power_now=10_000_000)
    source = BatterySource(tmp_path)
    looks = [(1, lambda: flicker(tmp_path / "BAT0"))] * 10
    plug = [(1, lambda: battery(tmp_path, status="Charging", power_now=40_000_000))]
    mains = [(10, lambda: None)] * 10
    unplug = [(1, lambda: battery(tmp_path, status="Discharging", power_now=10_000_000))]
    instants = steps(source, clock, [*looks, *plug, *mains, *unplug, *looks])
    measured = source.measure(instants[0], instants[-1])
    assert measured.coverage == pytest.approx(19 / 122) and source.trace()["power_w"].max() < 10.1
    assert "11 readings lost" in measured.note and "BAT0: Charging" in measured.note
    assert "not running from its battery" in caplog.text


def test_a_gauge_that_repeats_itself_gives_no_samples(tmp_path, clock):
    battery(tmp_path)
    source = BatterySource(tmp_path)
    changes = [(20, lambda: flicker(tmp_path / "BAT0"))] * 6
    instants = steps(source, clock, [*changes, *[(1, lambda: None)] * 300])
    known = source.measure(instants[0], instants[6])
    assert known.samples == 7 and known.coverage == 1 and known.energy_j == pytest.approx(1500, rel=1e-3)
    assert math.isnan(source.measure(instants[6], instants[60]).energy_j), "one sample in a minute"
    assert source.measure(instants[0], instants[-1]).coverage == pytest.approx((120 + 60) / 420)

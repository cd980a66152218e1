import logging
import math
import sys

import pytest
from gpus import Nvml, OldNvml, take
from sensors import steps

from mirolib import EnergyMeter, InputError
from mirolib.energy import total_energy_j
from mirolib.energy.sensors.nvml import NvmlSource


def test_the_stub_has_only_what_pynvml_has():
    pynvml = pytest.importorskip("pynvml")
    assert all(hasattr(pynvml, name) for name in dir(Nvml) if name.startswith(("nvml", "NVML")))
    assert all(getattr(pynvml, name) == getattr(Nvml, name) for name in dir(Nvml) if name.startswith("NVML_"))


def test_nvml_adds_the_cards(nvml_source, clock):
    nvml = Nvml("NVIDIA H100", "Tesla V100")
    source = nvml_source(nvml)
    assert source.probe().available and source.scope == "NVIDIA GPU H100, Tesla V100"
    meter = EnergyMeter(source)
    source.period_s = meter.source.period_s = None
    with meter.window("train"):
        take(nvml, 200_000, 60_000)
        clock.now += 2
    measured = meter.readings[0].measurement
    assert measured.energy_j == pytest.approx(260) and measured.coverage == 1 and not measured.note
    # 130 W for one update of 0.1 s either way
    assert (measured.low_j, measured.high_j) == (pytest.approx(247), pytest.approx(273))
    assert meter.readings[0].kind == "measured-partial" and source.parts == {"gpu"}
    trace = source.trace()
    assert dict(zip(trace["rail"], trace["power_w"], strict=True)) == pytest.approx(
        {"total": 130, "GPU 0": 100, "GPU 1": 30}
    )


def test_nvml_describes_the_cards_and_ends_its_use(nvml_source):
    nvml = Nvml("NVIDIA H100", "Tesla V100")
    source = nvml_source(nvml)
    facts = source.describe()
    assert facts["driver"] == "550.1"
    assert facts["GPU 0"] == {"name": "NVIDIA H100", "uuid": "GPU-0abc-def", "power_limit_w": 250}
    assert facts["GPU 1"]["power_limit_w"] is None, "a card that does not tell its limit is used all the same"
    source.close()
    source.close()
    assert nvml.users == 0 and not source.probe().available
    refused = nvml_source(nvml, [9])
    assert nvml.users == 1
    refused.close()
    assert nvml.users == 0


def test_nvml_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = NvmlSource().probe()
    assert not found.available and found.fix == "pip install nvidia-ml-py"
    with pytest.raises(OSError, match="not installed"):
        NvmlSource().read()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(12, "no NVIDIA driver"), (9, "no NVIDIA driver"), (4, "may not be read"), (18, "differ in version")],
)
def test_nvml_does_not_start(nvml_source, code, reason):
    found = nvml_source(Nvml("A", init_error=code)).probe()
    assert not found.available and reason in found.reason and found.fix


def test_nvml_without_cards(nvml_source):
    found = nvml_source(Nvml()).probe()
    assert not found.available and "no GPU" in found.reason and "--gpus all" in found.fix


def test_nvml_names_what_a_card_lacks(nvml_source):
    nvml = Nvml("Tesla P100", "Tesla V100")
    nvml.errors[0] = 3
    source = nvml_source(nvml)
    found = source.probe()
    assert not found.available and "GPU 0" in found.reason and "older than Volta" in found.reason
    with pytest.raises(InputError, match="older than Volta"):
        EnergyMeter(source)
    assert nvml_source(nvml, [1]).probe().available
    nvml.errors[0] = 4
    found = source.probe()
    assert "may not be read by this user" in found.reason and "/dev/nvidia" in found.fix


def test_nvml_on_a_jetson_names_its_sensors(nvml_source, tmp_path):
    (tmp_path / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    nvml = Nvml("Orin (nvgpu)")
    nvml.errors[0] = 3
    found = nvml_source(nvml).probe()
    assert not found.available and "Jetson" in found.reason and "INA" in found.fix


@pytest.mark.parametrize("devices", [[2], [-1], [0, 7]])
def test_nvml_refuses_a_card_that_is_not_there(nvml_source, devices):
    found = nvml_source(Nvml("A", "B"), devices).probe()
    assert not found.available and f"no GPU {devices[-1]}" in found.reason and "0 to 1" in found.fix


@pytest.mark.parametrize(
    ("visible", "counters"),
    [
        ("1", ["GPU 1"]),
        ("2, 0", ["GPU 0", "GPU 2"]),
        ("GPU-1abc-def", ["GPU 1"]),
        ("GPU-2,GPU-0a", ["GPU 0", "GPU 2"]),
        ("0,9,1", ["GPU 0"]),
        ("1,-1,2", ["GPU 1"]),
        ("GPU-,0", None),
        ("", None),
        ("-1", None),
        ("MIG-1-0", ["GPU 1"]),
        ("MIG-2-0", None),
    ],
)
def test_nvml_reads_the_cards_that_cuda_sees(nvml_source, visible, counters, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = Nvml("A", "A", "A", sliced=[1])
    source = nvml_source(nvml)
    found = source.probe()
    assert found.available == (counters is not None) and "\n" not in found.reason
    if counters:
        assert sorted(source.read()) == counters
    assert ("others may share it" in source.scope) == (counters is not None and "GPU 1" in counters)
    asked = nvml_source(nvml, [2, 2])
    assert list(asked.read()) == ["GPU 2"] and asked.scope == "NVIDIA GPU A", (
        "what is asked for goes before the variable"
    )


def test_nvml_does_not_guess_how_cuda_numbers_unlike_cards(nvml_source, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    nvml = Nvml("slow", "fast")
    found = nvml_source(nvml).probe()
    assert not found.available and "CUDA_DEVICE_ORDER=PCI_BUS_ID" in found.fix
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert list(nvml_source(nvml).read()) == ["GPU 0"]
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    for all_or_named in ("1,0", "GPU-0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", all_or_named)
        assert nvml_source(nvml).probe().available


def test_an_nvml_error_midway_loses_nothing(nvml_source, clock, caplog):
    nvml = Nvml("A", "B")
    source = nvml_source(nvml)

    def fail(code):
        def happen():
            take(nvml, 50_000, 10_000)
            nvml.errors[1] = code

        return happen

    start, lost, end = steps(source, clock, [(1, fail(15)), (1, fail(None))])
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(120) and measured.coverage == 1
    assert "1 readings lost" in measured.note and "GPU 1 can't be read: GPU is lost" in measured.note
    assert source.measure(start, lost).note and "lost a reading" in caplog.text
    assert source.describe()["readings_lost"] == 1


def test_an_nvml_counter_that_is_set_back_is_never_taken_for_whole(nvml_source, clock):
    nvml = Nvml("A")
    source = nvml_source(nvml)

    def reload():
        nvml.energy_mj[0] = 3_000

    instants = steps(source, clock, [(1, lambda: take(nvml, 100_000)), (1, reload), (1, lambda: take(nvml, 100_000))])
    measured = source.measure(instants[0], instants[-1])
    assert "set back" in measured.note and measured.coverage == pytest.approx(2 / 3)
    assert measured.energy_j == pytest.approx(300), "the mean of the rest is taken for what no counter tells"
    after = source.measure(instants[2], instants[3])
    assert after.energy_j == pytest.approx(100)


def test_a_total_leaves_out_a_window_in_which_the_counter_was_set_back(nvml_source, clock):
    nvml = Nvml("A")
    source = nvml_source(nvml)
    source.period_s = None
    meter = EnergyMeter(source)
    with meter.window("train"):
        nvml.energy_mj[0] = 0
        clock.now += 2
    assert math.isnan(total_energy_j(meter.readings))


def test_a_counter_set_back_is_noticed_by_the_edge_that_reads_it(nvml_source, clock):
    nvml = Nvml("A")
    source = nvml_source(nvml)
    clock.step = 1e-4
    start, end = steps(source, clock, [(2, lambda: nvml.energy_mj.__setitem__(0, 0))])
    measured = source.measure(start, end)
    assert measured.coverage == 0 and "set back" in measured.note


def test_nvml_reports_nothing_for_a_short_window(nvml_source, clock):
    nvml = Nvml("A")
    source = nvml_source(nvml)
    start, end = steps(source, clock, [(0.49, lambda: take(nvml, 100_000))])
    measured = source.measure(start, end)
    assert math.isnan(measured.energy_j) and measured.note == "too short a window"
    assert source.measure(start - 1, end).coverage == 0
    start, end = steps(source, clock, [(0.51, lambda: take(nvml, 100_000))])
    assert source.measure(start, end).energy_j == pytest.approx(100)


def test_sources_warn_once_only(nvml_source, clock, caplog):
    nvml = Nvml("A")
    nvml.errors[0] = 15
    source = nvml_source(nvml)
    with caplog.at_level(logging.WARNING):
        steps(source, clock, [(1, lambda: None)] * 5)
    assert caplog.text.count("lost a reading") == 1


@pytest.mark.parametrize(("device", "card"), [("cuda", "GPU 0"), ("cuda:0", "GPU 0"), ("cuda:5", "GPU 5")])
def test_a_run_on_one_card_is_not_booked_those_of_eight(nvml_source, device, card):
    source = nvml_source(Nvml(*["A"] * 8), device=device)
    assert list(source.read()) == [card] and source.scope == "NVIDIA GPU A"


def test_the_card_that_trains_is_known_by_its_uuid(nvml_source, monkeypatch):
    """CUDA numbers otherwise than NVML here, and only the UUID tells."""
    properties = type("Properties", (), {"uuid": "2abc-def"})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    assert list(nvml_source(Nvml("slow", "slow", "fast"), device="cuda:0").read()) == ["GPU 2"]
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: object())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert list(nvml_source(Nvml(*"AAAA"), device="cuda:1").read()) == ["GPU 1"], "of those that CUDA sees"
    found = nvml_source(Nvml(*"AAAA"), device="cuda:2").probe()
    assert not found.available and "shows no GPU cuda:2" in found.reason
    assert list(nvml_source(Nvml(*"AAAA"), ["GPU-2abc"], "cuda:0").read()) == ["GPU 2"], "what is named goes first"


def test_old_bindings_that_give_bytes(nvml_source):
    source = nvml_source(OldNvml("NVIDIA H100"))
    assert source.probe().available and source.scope == "NVIDIA GPU H100"
    assert source.describe()["driver"] == "410.2" and source.describe()["GPU 0"]["uuid"] == "GPU-0abc-def"


def test_another_package_of_that_name_is_one_line(nvml_source):
    class Other:
        NVMLError = Nvml.NVMLError

    found = nvml_source(Other()).probe()
    assert not found.available and "not that of nvidia-ml-py" in found.reason and "pip uninstall pynvml" in found.fix
    assert "\n" not in found.reason


@pytest.mark.parametrize(
    ("name", "whole"), [("NVIDIA GH200 480GB", True), ("NVIDIA GB200", True), ("NVIDIA H200", False)]
)
def test_a_counter_that_covers_more_than_the_card_says_so(nvml_source, name, whole):
    source = nvml_source(Nvml(name))
    assert ("processor and memory too" in source.scope) == whole and ("cpu" in source.parts) == whole

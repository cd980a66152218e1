import itertools
import logging
import math
import sys
import types
from pathlib import Path

import pytest

from mirolib import EnergyMeter, InputError, RaplSource
from mirolib.energy import CombinedSource, total_energy_j
from mirolib.energy.sensors.battery import BatterySource
from mirolib.energy.sensors.board_band import BoardBandSource
from mirolib.energy.sensors.nvml import NvmlSource
from mirolib.energy.sensors.zeus import ZeusSource


class Clock:
    """Time that the test sets; with a step, it also moves a little at every look."""

    def __init__(self, step=0.0):
        self.now, self.step = 100.0, step

    def __call__(self):
        self.now += self.step
        return self.now


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


# NVML


class NVMLError(Exception):
    texts = {3: "Not Supported", 4: "Insufficient Permissions", 9: "Driver Not Loaded", 15: "GPU is lost"}

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return self.texts.get(self.value, "NVML Shared Library Not Found")

    def __eq__(self, other):  # as in pynvml, which makes its errors unhashable
        return self.value == other.value


class Nvml:
    """The functions of pynvml in use, over cards that count what the test lets them take."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION = 3, 4
    NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND = 9, 12

    def __init__(self, *names, init_error=None):
        self.names, self.energy_mj = names, [1_000_000] * len(names)
        self.errors = [None] * len(names)
        self.init_error, self.users = init_error, 0

    def nvmlInit(self):
        if self.init_error:
            raise NVMLError(self.init_error)
        self.users += 1

    def nvmlShutdown(self):
        if not self.users:
            raise NVMLError(1)
        self.users -= 1

    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return self.names[handle]

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}abc-def"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.users:
            raise NVMLError(1)
        if self.errors[handle]:
            raise NVMLError(self.errors[handle])
        return self.energy_mj[handle]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        if handle:
            raise NVMLError(3)
        return 250_000

    def nvmlSystemGetDriverVersion(self):
        return "550.1"


def test_the_stub_has_only_what_pynvml_has():
    pynvml = pytest.importorskip("pynvml")
    assert all(hasattr(pynvml, name) for name in dir(Nvml) if name.startswith(("nvml", "NVML")))
    assert all(getattr(pynvml, name) == getattr(Nvml, name) for name in dir(Nvml) if name.startswith("NVML_"))


def run(source, clock, steps):
    """Marks the source at the ends of steps of (seconds, what happens in them)."""
    instants = [source.mark()]
    for seconds, happen in steps:
        happen()
        clock.now += seconds
        instants.append(source.mark())
    return instants


def take(nvml, *millijoules):
    for card, value in enumerate(millijoules):
        nvml.energy_mj[card] += value


def test_nvml_adds_the_cards():
    nvml, clock = Nvml("NVIDIA H100", "Tesla V100"), Clock()
    source = NvmlSource(library=nvml, clock=clock)
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


def test_nvml_describes_the_cards_and_ends_its_use():
    nvml = Nvml("NVIDIA H100", "Tesla V100")
    source = NvmlSource(library=nvml)
    facts = source.describe()
    assert facts["driver"] == "550.1"
    assert facts["GPU 0"] == {"name": "NVIDIA H100", "uuid": "GPU-0abc-def", "power_limit_w": 250}
    assert facts["GPU 1"]["power_limit_w"] is None, "a card that does not tell its limit is used all the same"
    source.close()
    source.close()
    assert nvml.users == 0 and not source.probe().available
    refused = NvmlSource(library=nvml, devices=[9])
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
    ("code", "reason"), [(12, "no NVIDIA driver"), (9, "no NVIDIA driver"), (4, "may not be read")]
)
def test_nvml_does_not_start(code, reason):
    found = NvmlSource(library=Nvml("A", init_error=code)).probe()
    assert not found.available and reason in found.reason and found.fix


def test_nvml_without_cards():
    found = NvmlSource(library=Nvml()).probe()
    assert not found.available and "no GPU" in found.reason and "--gpus all" in found.fix


def test_nvml_names_what_a_card_lacks(tmp_path):
    nvml = Nvml("Tesla P100", "Tesla V100")
    nvml.errors[0] = 3
    source = NvmlSource(library=nvml, model_file=tmp_path / "model")
    found = source.probe()
    assert not found.available and "GPU 0" in found.reason and "older than Volta" in found.reason
    with pytest.raises(InputError, match="older than Volta"):
        EnergyMeter(source)
    assert NvmlSource(devices=[1], library=nvml).probe().available
    nvml.errors[0] = 4
    found = source.probe()
    assert "may not be read by this user" in found.reason and "/dev/nvidia" in found.fix


def test_nvml_on_a_jetson_names_its_sensors(tmp_path):
    (tmp_path / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    nvml = Nvml("Orin (nvgpu)")
    nvml.errors[0] = 3
    found = NvmlSource(library=nvml, model_file=tmp_path / "model").probe()
    assert not found.available and "Jetson" in found.reason and "INA" in found.fix


@pytest.mark.parametrize("devices", [[2], [-1], [0, 7]])
def test_nvml_refuses_a_card_that_is_not_there(devices):
    found = NvmlSource(devices, Nvml("A", "B")).probe()
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
        ("MIG-0abc", None),
    ],
)
def test_nvml_reads_the_cards_that_cuda_sees(visible, counters, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = Nvml("A", "A", "A")
    source = NvmlSource(library=nvml)
    assert source.probe().available == (counters is not None)
    if counters:
        assert sorted(source.read()) == counters
    elif visible.startswith("MIG"):
        assert "slice" in source.probe().reason
    asked = NvmlSource([2, 2], nvml)
    assert list(asked.read()) == ["GPU 2"] and asked.scope == "NVIDIA GPU A", (
        "what is asked for goes before the variable"
    )


def test_nvml_does_not_guess_how_cuda_numbers_unlike_cards(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    nvml = Nvml("slow", "fast")
    found = NvmlSource(library=nvml).probe()
    assert not found.available and "CUDA_DEVICE_ORDER=PCI_BUS_ID" in found.fix
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert list(NvmlSource(library=nvml).read()) == ["GPU 0"]
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    for all_or_named in ("1,0", "GPU-0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", all_or_named)
        assert NvmlSource(library=nvml).probe().available


def test_an_nvml_error_midway_loses_nothing(caplog):
    nvml, clock = Nvml("A", "B"), Clock()
    source = NvmlSource(library=nvml, clock=clock)

    def fail(code):
        def happen():
            take(nvml, 50_000, 10_000)
            nvml.errors[1] = code

        return happen

    start, lost, end = run(source, clock, [(1, fail(15)), (1, fail(None))])
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(120) and measured.coverage == 1
    assert "1 readings lost" in measured.note and "GPU 1 can't be read: GPU is lost" in measured.note
    assert source.measure(start, lost).note and "lost a reading" in caplog.text
    assert source.describe()["readings_lost"] == 1


def test_an_nvml_counter_that_is_set_back_is_never_taken_for_whole():
    nvml, clock = Nvml("A"), Clock()
    source = NvmlSource(library=nvml, clock=clock)

    def reload():
        nvml.energy_mj[0] = 3_000

    instants = run(source, clock, [(1, lambda: take(nvml, 100_000)), (1, reload), (1, lambda: take(nvml, 100_000))])
    measured = source.measure(instants[0], instants[-1])
    assert "set back" in measured.note and measured.coverage == 0
    assert not math.isfinite(measured.high_j), "what was used before the reload is not known"
    assert 0 <= measured.energy_j <= 200 + 1e-9
    after = source.measure(instants[2], instants[3])
    assert after.energy_j == pytest.approx(100)


def test_a_total_leaves_out_a_window_in_which_the_counter_was_set_back():
    nvml, clock = Nvml("A"), Clock()
    source = NvmlSource(library=nvml, clock=clock)
    source.period_s = None
    meter = EnergyMeter(source)
    with meter.window("train"):
        nvml.energy_mj[0] = 0
        clock.now += 2
    assert math.isnan(total_energy_j(meter.readings))


def test_a_counter_set_back_is_noticed_by_the_edge_that_reads_it():
    nvml, clock = Nvml("A"), Clock(step=1e-4)
    source = NvmlSource(library=nvml, clock=clock)
    start, end = run(source, clock, [(2, lambda: nvml.energy_mj.__setitem__(0, 0))])
    measured = source.measure(start, end)
    assert measured.coverage == 0 and "set back" in measured.note


def test_nvml_reports_nothing_for_a_short_window():
    nvml, clock = Nvml("A"), Clock()
    source = NvmlSource(library=nvml, clock=clock)
    start, end = run(source, clock, [(0.49, lambda: take(nvml, 100_000))])
    measured = source.measure(start, end)
    assert math.isnan(measured.energy_j) and measured.note == "too short a window"
    assert source.measure(start - 1, end).coverage == 0
    start, end = run(source, clock, [(0.51, lambda: take(nvml, 100_000))])
    assert source.measure(start, end).energy_j == pytest.approx(100)


# Zeus


class ZeusBaseError(Exception):
    pass


class AMDGPUs:
    def __init__(self, *counters):
        self.counters = list(counters)  # mJ; None where zeus found the counter to disagree with the power

    def __len__(self):
        return len(self.counters)

    def get_name(self, gpu_index):
        return f"AMD Instinct {gpu_index}"

    def supports_get_total_energy_consumption(self, gpu_index):
        return self.counters[gpu_index] is not None

    def get_total_energy_consumption(self, gpu_index):
        value = self.counters[gpu_index]
        if isinstance(value, Exception):
            raise value
        return value


class NVIDIAGPUs(AMDGPUs):
    pass


class EmptyGPUs(AMDGPUs):
    pass


class AppleSilicon:
    def __init__(self, gpu_mj):
        self.gpu_mj = gpu_mj

    def get_total_energy_consumption(self):
        return types.SimpleNamespace(cpu_total_mj=5, dram_mj=None, gpu_mj=self.gpu_mj, gpu_sram_mj=None)


class Jetson(AppleSilicon):
    pass


def zeus_device(gpus=None, soc=None):
    """The module zeus.device over some hardware, or none."""

    def answer(found):
        def get(*arguments, **options):
            if found is None:
                raise ZeusBaseError("NVML and AMDSMI unavailable")
            return found

        return get

    return types.SimpleNamespace(
        get_gpus=answer(gpus),
        get_soc=answer(soc),
        gpu=types.SimpleNamespace(AMDGPUs=AMDGPUs),
        soc=types.SimpleNamespace(AppleSilicon=AppleSilicon if type(soc) is AppleSilicon else type("A", (), {})),
    )


def no_nvidia():
    return NvmlSource(library=Nvml(init_error=9))


def zeus_source(tmp_path, gpus=None, soc=None, platform="linux", clock=None, nvml=None):
    library = zeus_device(gpus, soc)
    return ZeusSource(library, nvml or no_nvidia(), platform, model_file=tmp_path / "model", clock=clock or Clock())


def test_zeus_adds_amd_cards(tmp_path):
    gpus, clock = AMDGPUs(5_000, None, 7_000), Clock()
    source = zeus_source(tmp_path, gpus, clock=clock)
    assert source.probe().available and source.scope == "AMD GPU AMD Instinct 0, AMD Instinct 2"

    def happen():
        gpus.counters[0] += 300_000
        gpus.counters[2] += 700_000

    start, end = run(source, clock, [(10, happen)])
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(1000) and measured.coverage == 1
    assert source.describe()["gpus"]["GPU 1"] == "AMD Instinct 1"


def test_zeus_reads_the_gpu_of_an_apple_chip(tmp_path):
    soc, clock = AppleSilicon(40_000), Clock()
    source = zeus_source(tmp_path, soc=soc, platform="darwin", clock=clock)
    assert source.probe().available and source.scope == "Apple GPU"
    start, end = run(source, clock, [(10, lambda: setattr(soc, "gpu_mj", 90_000))])
    assert source.measure(start, end).energy_j == pytest.approx(50)


@pytest.mark.parametrize(
    ("gpus", "soc", "platform", "reason"),
    [
        (None, None, "linux", "NVML and AMDSMI unavailable"),
        (EmptyGPUs(), None, "linux", None),
        (AMDGPUs(), None, "linux", "sees 0 AMD GPUs"),
        (AMDGPUs(None), None, "linux", "none with an energy counter"),
        (AMDGPUs(5_000, 0), None, "linux", "0 mJ for GPU 1"),
        (AMDGPUs(PermissionError("no")), None, "linux", "can't read the GPU: no"),
        (None, None, "darwin", "can't read the GPU"),
        (None, Jetson(5), "darwin", "no Apple chip"),
        (None, AppleSilicon(0), "darwin", "0 mJ"),
        (None, AppleSilicon(None), "darwin", "None mJ"),
    ],
)
def test_zeus_refuses_what_it_does_not_count(tmp_path, gpus, soc, platform, reason):
    source = zeus_source(tmp_path, gpus, soc, platform)
    found = source.probe()
    assert not found.available and found.fix and (reason or "") in found.reason
    with pytest.raises(OSError):
        source.read()


def test_zeus_refuses_nvidia_and_jetson_without_being_imported(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    (tmp_path / "compatible").write_bytes(b"nvidia,tegra194\0")
    jetson = ZeusSource(nvml=no_nvidia(), model_file=tmp_path / "model", platform="linux").probe()
    assert not jetson.available and "Jetson" in jetson.reason and "INA" in jetson.fix
    nvidia = ZeusSource(
        nvml=NvmlSource(library=Nvml("A")), model_file=tmp_path / "absent" / "model", platform="linux"
    ).probe()
    assert not nvidia.available and "NVIDIA" in nvidia.reason and "nvml" in nvidia.fix


def test_zeus_refuses_nvidia_cards_that_only_it_sees(tmp_path):
    library = zeus_device(AMDGPUs(5))
    library.gpu.AMDGPUs = type("Other", (), {})
    found = ZeusSource(library, no_nvidia(), "linux", tmp_path / "model").probe()
    assert not found.available and "no AMD GPU" in found.reason


def test_zeus_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ZeusSource(platform="linux").probe().fix == "pip install zeus"
    assert "zeus[apple]" in ZeusSource(platform="darwin").probe().fix


def test_zeus_that_does_not_import(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "zeus.device", None)
    found = ZeusSource(nvml=no_nvidia(), platform="linux", model_file=tmp_path / "model").probe()
    assert not found.available and "zeus" in found.reason


def test_zeus_errors_and_zeros_midway_lose_nothing(tmp_path):
    gpus, clock = AMDGPUs(5_000), Clock()
    source = zeus_source(tmp_path, gpus, clock=clock)
    assert source.probe().available

    def say(value):
        return lambda: gpus.counters.__setitem__(0, value)

    instants = run(source, clock, [(4, say(ZeusBaseError("timeout"))), (4, say(0)), (4, say(245_000))])
    measured = source.measure(instants[0], instants[-1])
    assert measured.energy_j == pytest.approx(240) and measured.coverage == 1
    assert measured.note.startswith("2 readings lost") and "0 mJ" in measured.note


# Battery


def supply(root: Path, folder: str, /, **files: object) -> Path:
    path = root / folder
    path.mkdir(exist_ok=True)
    for file, content in files.items():
        (path / file).write_text(f"{content}\n")
    return path


def battery(root, name="BAT0", status="Discharging", **files):
    return supply(root, name, type="Battery", status=status, **(files or {"power_now": 12_500_000}))


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
def test_a_battery_that_discharges(tmp_path, batteries, power_w):
    for number, files in enumerate(batteries):
        battery(tmp_path, f"BAT{number}", **files)
    supply(tmp_path, "AC", type="Mains", online=0)
    clock = Clock()
    source = BatterySource(tmp_path, clock)
    assert source.probe().available and source.kind == "measured"
    instants = run(source, clock, [(1, lambda: flicker(tmp_path / "BAT0"))] * 10)
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
    supply(tmp_path, "BAT0", type="UPS", status="Discharging", power_now=5_000_000)
    assert BatterySource(tmp_path).probe().reason == "no battery"


def test_a_battery_beside_a_charger_gives_only_a_part(tmp_path):
    battery(tmp_path)
    supply(tmp_path, "AC", type="Mains", online=1)
    found = BatterySource(tmp_path).probe()
    assert not found.available and "only a part" in found.reason
    supply(tmp_path, "AC", online=0)
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
    source, read = BatterySource(tmp_path), Path.read_text

    def refuse(path, *arguments, **options):
        if path.name == "power_now":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    found = source.probe()
    assert not found.available and "by this user" in found.reason and "power_now" in found.fix


def test_going_on_mains_midway_is_not_counted_as_battery_power(tmp_path, caplog):
    battery(tmp_path, power_now=10_000_000)
    clock = Clock()
    source = BatterySource(tmp_path, clock)
    steps = [(1, lambda: flicker(tmp_path / "BAT0"))] * 10
    plug = [(1, lambda: battery(tmp_path, status="Charging", power_now=40_000_000))]
    mains = [(10, lambda: None)] * 10
    unplug = [(1, lambda: battery(tmp_path, status="Discharging", power_now=10_000_000))]
    instants = run(source, clock, [*steps, *plug, *mains, *unplug, *steps])
    measured = source.measure(instants[0], instants[-1])
    assert measured.coverage == pytest.approx(19 / 122) and source.trace()["power_w"].max() < 10.1
    assert "11 readings lost" in measured.note and "BAT0: Charging" in measured.note
    assert "not running from its battery" in caplog.text


def test_a_gauge_that_repeats_itself_gives_no_samples(tmp_path):
    battery(tmp_path)
    clock = Clock()
    source = BatterySource(tmp_path, clock)
    changes = [(20, lambda: flicker(tmp_path / "BAT0"))] * 6
    instants = run(source, clock, [*changes, *[(1, lambda: None)] * 300])
    known = source.measure(instants[0], instants[6])
    assert known.samples == 7 and known.coverage == 1 and known.energy_j == pytest.approx(1500, rel=1e-3)
    assert math.isnan(source.measure(instants[6], instants[60]).energy_j), "one sample in a minute"
    assert source.measure(instants[0], instants[-1]).coverage == pytest.approx((120 + 60) / 420)


# Band of a board


def test_the_band_of_a_board_without_a_sensor(tmp_path):
    model = tmp_path / "model"
    model.write_bytes(b"NVIDIA Jetson Xavier NX Developer Kit\0")
    clock = Clock()
    source = BoardBandSource(model, clock)
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
def test_no_band_is_known_for_another_machine(tmp_path, model):
    if model:
        (tmp_path / "model").write_bytes(model)
    source = BoardBandSource(tmp_path / "model")
    found = source.probe()
    assert not found.available and "no band is known for this machine" in found.reason
    assert math.isnan(source.measure(0, 1).high_j)


def test_no_band_is_made_up_for_a_board_whose_idle_power_is_not_known(tmp_path, monkeypatch):
    board = types.SimpleNamespace(name="Jetson X", idle_w=None, caps_w=(10.0, 20.0))
    monkeypatch.setattr("mirolib.energy.sensors.board_band.identify", lambda model_file: board)
    found = BoardBandSource(tmp_path / "model").probe()
    assert not found.available and "Jetson X" in found.reason


# Sums


def rapl_tree(root: Path) -> Path:
    supply(root, "intel-rapl:0", name="package-0", max_energy_range_uj=999_999_999, energy_uj=0)
    return root


def test_processor_and_card_are_added(tmp_path):
    nvml, tree = Nvml("A"), rapl_tree(tmp_path)
    card = NvmlSource(library=nvml)
    source = CombinedSource([RaplSource(tree), card])
    assert source.probe().available and source.name == "rapl + nvml" and source.kind == "measured-partial"
    assert source.parts == {"cpu", "dram", "gpu"} and source.scope.endswith("+ NVIDIA GPU A")
    clock = Clock()
    for part in source.sources:
        part._clock = clock  # RAPL's can't be given
    start = source.mark()
    take(nvml, 300_000)
    supply(tree, "intel-rapl:0", energy_uj=80_000_000)
    clock.now += 2
    end = source.mark()
    assert source.measure(start, end).energy_j == pytest.approx(380)
    nvml.errors[0] = 3
    assert "older than Volta" in source.probe().reason


def test_overlapping_sources_are_not_added(tmp_path):
    battery(tmp_path)
    with pytest.raises(InputError, match="rapl and battery both cover cpu, dram; add only sources of different parts"):
        CombinedSource([RaplSource(rapl_tree(tmp_path)), BatterySource(tmp_path)])
    with pytest.raises(InputError, match="nvml and zeus both cover gpu"):
        CombinedSource([NvmlSource(library=Nvml("A")), ZeusSource()])


def test_sources_warn_once_only(caplog):
    nvml, clock = Nvml("A"), Clock()
    nvml.errors[0] = 15
    source = NvmlSource(library=nvml, clock=clock)
    with caplog.at_level(logging.WARNING):
        run(source, clock, [(1, lambda: None)] * 5)
    assert caplog.text.count("lost a reading") == 1


def test_a_counter_that_stands_still_is_no_zero(tmp_path):
    tree = tmp_path / "intel-rapl:0"
    tree.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "999999"), ("energy_uj", "5")):
        (tree / name).write_text(text)
    source = RaplSource(tmp_path)
    clock = itertools.count(0.0, 0.5)
    source._clock = lambda: next(clock)
    start, end = source.mark(), source.mark()
    found = source.measure(start, end)
    assert math.isnan(found.energy_j) and found.coverage == 0 and found.note == "the counters stood still"

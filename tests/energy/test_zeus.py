import sys
import types

import pytest
from gpus import Nvml
from sensors import steps

from mirolib.energy.sensors.zeus import ZeusSource


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


@pytest.fixture
def zeus_source(monkeypatch, nvml_source):
    """Makes sources over a fake of zeus.device, on a platform, beside an NVIDIA driver or none."""

    def make(gpus=None, soc=None, platform="linux", nvml=None):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        monkeypatch.setitem(sys.modules, "zeus.device", zeus_device(gpus, soc))
        monkeypatch.setattr(ZeusSource, "_apple", platform == "darwin")
        nvml_source(nvml or Nvml(init_error=9))
        return ZeusSource()

    return make


def test_zeus_adds_amd_cards(zeus_source, clock):
    gpus = AMDGPUs(5_000, None, 7_000)
    source = zeus_source(gpus)
    assert source.probe().available and source.scope == "AMD GPU AMD Instinct 0, AMD Instinct 2"

    def happen():
        gpus.counters[0] += 300_000
        gpus.counters[2] += 700_000

    start, end = steps(source, clock, [(10, happen)])
    measured = source.measure(start, end)
    assert measured.energy_j == pytest.approx(1000) and measured.coverage == 1
    assert source.describe()["gpus"]["GPU 1"] == "AMD Instinct 1"


def test_zeus_reads_the_gpu_of_an_apple_chip(zeus_source, clock):
    soc = AppleSilicon(40_000)
    source = zeus_source(soc=soc, platform="darwin")
    assert source.probe().available and source.scope == "Apple GPU"
    start, end = steps(source, clock, [(10, lambda: setattr(soc, "gpu_mj", 90_000))])
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
def test_zeus_refuses_what_it_does_not_count(zeus_source, gpus, soc, platform, reason):
    source = zeus_source(gpus, soc, platform)
    found = source.probe()
    assert not found.available and found.fix and (reason or "") in found.reason
    with pytest.raises(OSError):
        source.read()


def test_zeus_refuses_nvidia_and_jetson_without_being_imported(zeus_source, model_file, monkeypatch):
    source = zeus_source(nvml=Nvml("A"))
    monkeypatch.delitem(sys.modules, "zeus.device")
    nvidia = source.probe()
    assert not nvidia.available and "NVIDIA" in nvidia.reason and "nvml" in nvidia.fix
    model_file.with_name("compatible").write_bytes(b"nvidia,tegra194\0")
    jetson = source.probe()
    assert not jetson.available and "Jetson" in jetson.reason and "INA" in jetson.fix


def test_zeus_refuses_nvidia_cards_that_only_it_sees(zeus_source):
    source = zeus_source(AMDGPUs(5))
    sys.modules["zeus.device"].gpu.AMDGPUs = type("Other", (), {})
    found = source.probe()
    assert not found.available and "no AMD GPU" in found.reason


@pytest.mark.parametrize(("platform", "fix"), [("linux", "pip install zeus"), ("darwin", 'pip install "zeus[apple]"')])
def test_zeus_is_not_installed(zeus_source, monkeypatch, platform, fix):
    source = zeus_source(platform=platform)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert source.probe().fix == fix


def test_zeus_that_does_not_import(zeus_source, monkeypatch):
    source = zeus_source()
    monkeypatch.setitem(sys.modules, "zeus.device", None)
    found = source.probe()
    assert not found.available and "zeus" in found.reason


def test_zeus_errors_and_zeros_midway_lose_nothing(zeus_source, clock):
    gpus = AMDGPUs(5_000)
    source = zeus_source(gpus)
    assert source.probe().available

    def say(value):
        return lambda: gpus.counters.__setitem__(0, value)

    instants = steps(source, clock, [(4, say(ZeusBaseError("timeout"))), (4, say(0)), (4, say(245_000))])
    measured = source.measure(instants[0], instants[-1])
    assert measured.energy_j == pytest.approx(240) and measured.coverage == 1
    assert measured.note.startswith("2 readings lost") and "0 mJ" in measured.note

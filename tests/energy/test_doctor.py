"""Sources side by side: the doctor's table, sums of them, and the page that lists them."""

import multiprocessing
import time
from importlib import import_module
from pathlib import Path

import pytest
from gpus import Nvml, take
from sensors import put

from mirolib import Experiment, InputError, RaplSource, RunSettings, doctor
from mirolib.energy import CombinedSource, NullSource, Place, choose, named
from mirolib.energy.sensors.battery import BatterySource
from mirolib.energy.sensors.boards import BOARDS
from mirolib.energy.sensors.zeus import ZeusSource


def test_the_doctor_lists_every_source_with_reason_and_fix():
    table = doctor()
    assert {"jetson-ina", "jtop", "rapl", "nvml", "zeus", "battery", "model", "none"} <= set(table.index)
    assert table.loc["none", "available"] and table["found"].str.len().min() > 5
    unavailable = table[~table["available"]]
    assert len(unavailable) and unavailable.loc["model", "fix"]
    with pytest.raises(InputError, match=r"no energy source 'plug'; choose auto, jetson-ina"):
        named("plug")
    assert multiprocessing.get_start_method(allow_none=True) in (None, "fork")


def rapl_tree(root: Path) -> Path:
    put(root, "intel-rapl:0", name="package-0", max_energy_range_uj=999_999_999, energy_uj=0)
    put(root, "intel-rapl:0:1", name="dram", max_energy_range_uj=999_999_999, energy_uj=0)
    return root


def test_processor_and_card_are_added(nvml_source, clock, tmp_path):
    nvml, tree = Nvml("A"), rapl_tree(tmp_path)
    card = nvml_source(nvml)
    source = CombinedSource([RaplSource(tree), card])
    assert source.probe().available and source.name == "rapl + nvml" and source.kind == "measured-partial"
    assert source.parts == {"cpu", "dram", "gpu"} and source.scope.endswith("+ NVIDIA GPU A")
    start = source.mark()
    take(nvml, 300_000)
    put(tree, "intel-rapl:0", energy_uj=80_000_000)
    put(tree, "intel-rapl:0:1", energy_uj=1)
    clock.now += 2
    end = source.mark()
    assert source.measure(start, end).energy_j == pytest.approx(380)
    assert {"total", "rapl: total", "nvml: GPU 0"} <= set(source.trace()["rail"])
    nvml.errors[0] = 3
    assert "older than Volta" in source.probe().reason
    silent = CombinedSource([RaplSource(tree), nvml_source(nvml)])
    silent.mark()
    clock.now += 2
    silent.mark()
    assert len(silent.trace()) and "nvml: total" not in set(silent.trace()["rail"]), "one that never read anything"


def test_overlapping_sources_are_not_added(nvml_source, tmp_path):
    put(tmp_path, "BAT0", type="Battery", status="Discharging", power_now=12_500_000)
    with pytest.raises(InputError, match="rapl and battery both cover cpu, dram; add only sources of different parts"):
        CombinedSource([RaplSource(rapl_tree(tmp_path)), BatterySource(tmp_path)])
    with pytest.raises(InputError, match="nvml and zeus both cover gpu"):
        CombinedSource([nvml_source(Nvml("A")), ZeusSource()])


PAGE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_page_lists_every_board_with_its_total(board):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {board.name} |"))
    total = row.split("|")[2].split(";")[0].strip()
    assert tuple(total.split(" + ")) == board.total_rails


def test_the_page_s_own_source_works():
    code = PAGE.split("```python")[1].split("```")[0]
    names = {}
    exec(code, names)
    names["Plug"].period_s = 0.01
    with names["meter"].window("train") as window:
        time.sleep(0.1)
    assert window.reading.measurement.energy_j == pytest.approx(12.3 * window.reading.duration_s)
    assert all(f"| `{name}` |" in PAGE for name in doctor().index)


DOCTOR = import_module("mirolib.energy.doctor")


def test_a_run_on_the_processor_is_not_booked_its_idle_cards(nvml_source, monkeypatch, tmp_path):
    nvml_source(Nvml("A", "A")).close()
    monkeypatch.setattr(DOCTOR, "RaplSource", lambda **_: RaplSource(tmp_path))
    assert choose(Place(device="cpu")).name == "none"
    on_card = choose(Place(device="cuda:1"))
    assert on_card.name == "nvml" and list(on_card.read()) == ["GPU 1"]
    on_card.close()
    assert list(choose(Place(device="cuda", cards="1")).read()) == ["GPU 1"]
    with pytest.raises(InputError, match="nvml reads graphics cards, and this run is on the processor"):
        named("nvml", Place(device="cpu"))


@pytest.mark.parametrize("when", ["made", "asked"])
def test_a_source_that_fails_is_in_nobody_s_way(monkeypatch, when):
    class Broken(NullSource):
        name, kind = "broken", "measured"

        def probe(self):
            raise RuntimeError("segmentation fault of a driver")

    def make(_):
        raise RuntimeError("it is not even imported")

    monkeypatch.setitem(DOCTOR.SOURCES, "nvml", make)
    assert named("none").name == "none", "what is not asked for is not made"
    if when == "asked":
        monkeypatch.setitem(DOCTOR.SOURCES, "nvml", lambda _: Broken())
        assert choose().probe().available
        assert "segmentation fault" in doctor().loc["broken", "found"]


def test_a_container_is_told_what_to_mount(monkeypatch, tmp_path):
    monkeypatch.setattr(DOCTOR, "in_container", lambda: True)
    table = doctor()
    assert "/sys/devices/virtual/powercap" in table.loc["rapl", "fix"] and "--gpus all" in table.loc["nvml", "fix"]
    assert "/proc/device-tree" in table.loc["jetson-ina", "fix"] and "jtop.sock" in table.loc["jtop", "fix"]
    monkeypatch.setattr(DOCTOR, "in_container", lambda: False)
    assert not doctor()["fix"].str.contains("container: start").any()


def test_a_wrong_name_of_board_or_domain_is_refused(tmp_path):
    with pytest.raises(InputError, match="energy_board is 'Orion'"):
        choose(Place(board="Orion"))
    assert named("none", Place(board="Orion")).name == "none"


def test_what_is_covered_already_is_not_asked(monkeypatch):
    """To ask jtop starts a process, and waits for it."""

    class Second(NullSource):
        name, kind, parts = "second", "measured", frozenset({"module"})

    class First(NullSource):
        name, kind, parts = "first", "measured", frozenset({"module"})

    monkeypatch.setattr(DOCTOR, "candidates", lambda _: [First(), Second()])
    asked = []
    monkeypatch.setattr(Second, "probe", lambda self: asked.append(self))
    assert choose().name == "first" and not asked


def test_the_parameters_of_a_run_reach_its_source_and_meter(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(DOCTOR, "candidates", lambda place: asked.append(place) or [NullSource()])
    where = {"energy_device": "1", "energy_board": "Nano", "energy_domains": "psys"}
    experiment = Experiment.build(RunSettings(device="cpu", energy_settle=True, **where), tmp_path)
    assert asked == [Place("cpu", "1", "Nano", "psys")] and experiment.meter.settle
    experiment.memory.close()
    with pytest.raises(InputError, match="energy_settle is 1; give a value of type bool"):
        RunSettings(energy_settle=1)

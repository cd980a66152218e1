"""Sources side by side: the doctor's table, sums of them, and the page that lists them."""

import multiprocessing
import time
from pathlib import Path

import pytest
from gpus import Nvml, take
from sensors import put

from mirolib import InputError, RaplSource, doctor
from mirolib.energy import CombinedSource, named
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

"""Which rails of each Jetson board add up to its module, how to tell the boards apart, and bounds without a sensor."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mirolib.base.errors import InputError
from mirolib.energy.sampled import SampledSource
from mirolib.energy.source import NOT_MEASURED, Availability, EnergySource, Kind, Measurement

MODEL_FILE = Path("/proc/device-tree/model")  # looked up anew at each use
USE_OWN_SENSORS = "Use the board's own sensors: its INA power monitors in sysfs, or jtop."
_APPEND = "Append to mirolib.energy.sensors.boards.BOARDS a Board with the rails that add up, or report this line."
_MODULE = frozenset({"module", "cpu", "gpu", "dram"})


@dataclass(frozen=True)
class Board:
    """What is known of a board's power rails."""

    name: str
    models: tuple[str, ...]  # parts of the device tree's model; the longest that fits decides between boards
    total_rails: tuple[str, ...]  # rails whose sum is the module's power
    not_included: str = ""  # what hangs on the board but not on these rails; empty if nothing
    resolution_w: float = 0.04  # smallest step of a reading
    idle_w: float = math.nan  # usual power at rest; NaN if not known
    cap_w: float = math.nan  # the highest cap of its power modes; NaN if not known
    # where the module's own sensors are, as I2C bus and address; those of a carrier may bear the same names
    sensors: tuple[str, ...] = ()


# A module's NVMe drive and fan are fed by its carrier, so no rail of the module shows them. Rails that lie inside these
# would count twice. Thor's rail VIN feeds the carrier too: it is shown beside the total.
BOARDS: list[Board] = [
    Board("TX2", ("Jetson TX2", "jetson-tx2", "quill"), ("VDD_IN",), "carrier, M.2 SSD", 0.04, 2.9, 15,
          ("0-0040", "0-0041")),
    Board("TX2 NX", ("Jetson TX2 NX",), ("VDD_IN",), "carrier, NVMe"),
    Board("Nano", ("Jetson Nano", "jetson-nano"), ("POM_5V_IN",), sensors=("6-0040",)),
    Board("Xavier NX", ("Xavier NX",), ("VDD_IN",), "carrier, NVMe", 0.04, 5.1, 20, ("7-0040",)),
    Board("AGX Xavier", ("AGX Xavier", "Jetson-AGX", "jetson-xavier"),
          ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), "carrier", 0.4, sensors=("1-0040", "1-0041")),
    Board("Orin Nano", ("Orin Nano",), ("VDD_IN",), "carrier, NVMe, fan", 0.04, 3.5, 25, ("1-0040",)),
    Board("Orin NX", ("Orin NX",), ("VDD_IN",), "carrier, NVMe, fan", cap_w=25, sensors=("1-0040",)),
    # VDDQ_VDD2_1V8AO, the memory's rail, lies inside VIN_SYS_5V0.
    Board("AGX Orin", ("AGX Orin", "Jetson-AGX Orin"), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
          "carrier, NVMe", 0.4, 11, 60, ("1-0040", "1-0041")),
    Board("Thor", ("Jetson AGX Thor", "Jetson Thor"), ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
          "carrier, NVMe", 0.4, 13),
    # What its power chip converts is measured behind it; what it loses, and all that hangs on 5 V, is on no rail.
    PI := Board("Raspberry Pi 5", ("Raspberry Pi 5", "Compute Module 5"),
                ("3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS", "0V8_SW", "VDD_CORE", "3V3_DAC",
                 "3V3_ADC", "0V8_AON", "HDMI"), "losses of its power chip, USB, fan, HATs", 0.01),
]  # fmt: skip
"""The boards that are known; append one to have a total of its rails.

Source: NVIDIA Jetson Linux developer guides, platform power and performance; Raspberry Pi documentation, vcgencmd.
"""


def model_name() -> str:
    """The board's name in the device tree; empty where there is no such tree, as on a PC."""
    return file_text(MODEL_FILE)


def file_text(file: Path) -> str:
    """Content of a small file of the system's; empty if there is none."""
    try:  # device-tree strings end with a zero byte, and lists of them have more
        return file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def file_number(file: Path) -> int:
    """The number in a file, read with three system calls: sensors are read many times a second."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return int(os.read(descriptor, 64))
    finally:
        os.close(descriptor)


class Channel(NamedTuple):
    """A channel of a sensor: its power is the product of its files, times a unit."""

    files: tuple[Path, ...]
    unit_w: float

    def power_w(self) -> float:
        """Its power now, in watts."""
        return math.prod(map(file_number, self.files)) * self.unit_w


def identify(name: str = "") -> Board | None:
    """The board of this machine, or of a name; None if it is none of `BOARDS`, InputError if the name is of none."""
    if name:
        named = {board.name: board for board in BOARDS}
        if name not in named:
            raise InputError(f"energy_board is {name!r}; choose one of {', '.join(named)}.")
        return named[name]
    model = model_name().lower()
    fits = [(len(part), board) for board in BOARDS for part in board.models if part.lower() in model]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def is_jetson() -> bool:
    """Whether this machine is a Jetson, be it one of `BOARDS` or another."""
    # The compatible string names the chip whatever the carrier's vendor calls the board.
    known = identify() not in (None, PI) or "jetson" in model_name().lower()
    return known or "nvidia,tegra" in file_text(MODEL_FILE.with_name("compatible"))


class BoardSource(SampledSource):
    """A source whose total is the sum of the rails that the table of boards names."""

    kind: Kind = "measured-partial"
    scope = "module"
    parts = _MODULE

    def __init__(self, board: str = "") -> None:
        super().__init__()
        self.board, self.model = identify(board), model_name()
        self.total_rails = ()
        if self.board is not None:
            self.total_rails, self.resolution_w = self.board.total_rails, self.board.resolution_w
            if not (without := self.board.not_included):
                self.kind = "measured"
            self.scope = f"module (without {without})" if without else "module"
            # In steps of 0.4 W a board at rest may well read the same for long.
            self.stale_after_s = 10.0 if self.resolution_w < 0.1 else 120.0
        self._facts = {"board": self.board.name if self.board else "", "model": self.model}

    def availability(self, said: Mapping[str, float]) -> Availability:
        """Whether the rails found, with their present watts, hold a total."""
        shown = ", ".join(f"{rail} {power:.2f} W" for rail, power in said.items())
        if self.board is None:
            found = f"rails {shown} of an unknown board ({self.model or 'no model'}); no total is claimed"
            return Availability(False, found, _APPEND)
        if missing := ", ".join(rail for rail in self.total_rails if rail not in said):
            found = f"{self.board.name} lacks {missing} of its total; there are {shown or 'no rails'}"
            return Availability(False, found, "Check the labels of its power sensors; another carrier may rename them.")
        return Availability(True, f"{self.board.name}: {shown}")


class BoardBandSource(EnergySource):
    """Bounds of the energy of a Jetson board none of whose sensors can be read; there is no best value.

    The lower end is the module's usual power at rest, the upper the highest cap of its power modes, each times the
    duration. Caps are budgets of NVIDIA's clock settings; a mode without one (MAXN) may take more.
    """

    name, kind = "board band", "estimated-uncalibrated"
    parts = _MODULE

    def __init__(self, board: str = "") -> None:
        self._board = identify(board) or Board("", (), ())
        self.scope = f"{self._board.name or 'Jetson'} module"

    def probe(self) -> Availability:
        """Whether idle power and cap of this board are known."""
        board = self._board
        if board.idle_w < board.cap_w:
            return Availability(True, f"{self.scope}, {board.idle_w:g} to {board.cap_w:g} W")
        return Availability(False, f"no band is known for this machine{board.name and f' ({board.name})'}")

    def measure(self, start_s: float, end_s: float) -> Measurement:
        """NaN between idle power and cap, times the duration."""
        low_j, high_j = ((end_s - start_s) * power for power in (self._board.idle_w, self._board.cap_w))
        note = "no sensor: between the board's idle power and its power cap"
        return replace(NOT_MEASURED, low_j=low_j, high_j=high_j, note=note)

    def describe(self) -> dict[str, object]:
        """The board with its idle power and cap in watts."""
        return {"board": self._board.name, "idle_w": self._board.idle_w, "cap_w": self._board.cap_w}

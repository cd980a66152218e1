"""Which rails of each Jetson board add up to its module, and how to tell the boards apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mirolib.energy.sampled import LostReading, SampledSource
from mirolib.energy.source import Availability, Kind

MODEL_FILE = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class Board:
    """What is known of a board's power rails.

    Attributes:
        name: Short name.
        models: Parts of the device tree's model by which it is known; the longest that fits decides between boards.
        total_rails: Rails whose sum is the module's power.
        inner_rails: Rails that lie inside those and must not be added to them.
        not_included: What hangs on the board but not on these rails; empty if nothing.
        resolution_w: Smallest step of a reading.
        idle_w: Usual power at rest; None if not known.
        caps_w: Caps of its power modes.
    """

    name: str
    models: tuple[str, ...]
    total_rails: tuple[str, ...]
    inner_rails: tuple[str, ...] = ()
    not_included: str = ""
    resolution_w: float = 0.04
    idle_w: float | None = None
    caps_w: tuple[float, ...] = ()

    @property
    def kind(self) -> Kind:
        """`measured` where the rails feed all there is, else `measured-partial`."""
        return "measured-partial" if self.not_included else "measured"

    @property
    def scope(self) -> str:
        """What the total covers."""
        return f"module (without {self.not_included})" if self.not_included else "module"


_SODIMM_INNER = ("VDD_CPU_GPU_CV", "VDD_SOC")

BOARDS: list[Board] = [
    Board(
        "TX2",
        ("Jetson TX2", "jetson-tx2", "quill"),
        ("VDD_IN",),
        ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_SYS_CPU", "VDD_SYS_DDR"),
        not_included="carrier, M.2 SSD",
        idle_w=2.9,
        caps_w=(7.5, 15),
    ),
    Board("TX2 NX", ("Jetson TX2 NX",), ("VDD_IN",), not_included="carrier, NVMe"),
    Board("Nano", ("Jetson Nano", "jetson-nano"), ("POM_5V_IN",), ("POM_5V_GPU", "POM_5V_CPU")),
    Board(
        "Xavier NX",
        ("Xavier NX",),
        ("VDD_IN",),
        _SODIMM_INNER,
        not_included="carrier, NVMe",
        idle_w=5.1,
        caps_w=(10, 15, 20),
    ),
    Board(
        "AGX Xavier",
        ("AGX Xavier", "Jetson-AGX", "jetson-xavier"),
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        not_included="carrier",
        resolution_w=0.4,
    ),
    Board(
        "Orin Nano",
        ("Orin Nano",),
        ("VDD_IN",),
        _SODIMM_INNER,
        not_included="carrier, NVMe, fan",
        idle_w=3.5,
        caps_w=(7, 15, 25),
    ),
    Board(
        "Orin NX",
        ("Orin NX",),
        ("VDD_IN",),
        _SODIMM_INNER,
        not_included="carrier, NVMe, fan",
        caps_w=(10, 15, 25),
    ),
    Board(
        "AGX Orin",
        ("AGX Orin", "Jetson-AGX Orin"),
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        ("VDDQ_VDD2_1V8AO",),
        not_included="carrier, NVMe",
        resolution_w=0.4,
        idle_w=11,
        caps_w=(15, 30, 50, 60),
    ),
    # The rail VIN feeds the carrier too: it holds the module's rails, so it is shown beside the total, not added.
    Board(
        "Thor",
        ("Jetson AGX Thor", "Jetson Thor"),
        ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
        not_included="carrier, NVMe",
        resolution_w=0.4,
        idle_w=13,
    ),
]
"""The boards that are known; append one to have a total of its rails.

Source: NVIDIA Jetson Linux developer guides, platform power and performance.
"""


def _text(file: Path) -> str:
    """A device-tree string, or nothing."""
    try:
        return file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def identify(model_file: str | Path = MODEL_FILE) -> Board | None:
    """The board of this machine, or None if it is none of `BOARDS`."""
    model = _text(Path(model_file)).lower()
    fits = [(len(part), board) for board in BOARDS for part in board.models if part.lower() in model]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def is_jetson(model_file: str | Path = MODEL_FILE) -> bool:
    """Whether this machine is a Jetson, be it one of `BOARDS` or another."""
    file = Path(model_file)
    known = identify(file) is not None or "jetson" in _text(file).lower()
    return known or "nvidia,tegra" in _text(file.with_name("compatible"))


class BoardSource(SampledSource):
    """A source whose total is the sum of the rails that the table of boards names.

    Attributes:
        board: The board; None if it is not known, and then there is no total.
        model: The device tree's name of it.
    """

    kind: Kind = "measured-partial"
    scope = "module"
    parts = frozenset({"module", "cpu", "gpu", "dram"})

    def __init__(self, model_file: str | Path = MODEL_FILE, clock: Callable[[], float] = time.monotonic) -> None:
        """A source for the board whose device-tree model stands in a file."""
        super().__init__(clock)
        self.board, self.model = identify(model_file), _text(Path(model_file))
        self._is_jetson = is_jetson(model_file)
        self.total_rails = ()
        if self.board is not None:
            self.total_rails, self.resolution_w = self.board.total_rails, self.board.resolution_w
            self.kind, self.scope = self.board.kind, self.board.scope
            # In steps of 0.4 W a board at rest may well read the same for long.
            self.stale_after_s = 10.0 if self.resolution_w < 0.1 else 120.0

    def add(self, instant_s: float, rails: Mapping[str, float]) -> None:
        """Takes in a reading.

        Raises:
            LostReading: If it is not usable, a rail of the total is missing, or the board has no known total.
        """
        if not self.total_rails:
            raise LostReading(f"no total is known for the board {self.model or 'without a model'}")
        if missing := [rail for rail in self.total_rails if rail not in rails]:
            raise LostReading(f"{', '.join(missing)} missing from the reading")
        super().add(instant_s, rails)

    def judge(self, rails: Mapping[str, float]) -> Availability:
        """Whether the rails found, with their present watts, hold a total."""
        shown = ", ".join(f"{rail} {power:.2f} W" for rail, power in rails.items())
        if self.board is None:
            fix = (
                "Append to mirolib.energy.sensors.boards.BOARDS a Board with this model and the rails that add up to "
                "the module, as the board's design guide gives them, or report this line."
            )
            found = f"rails {shown} of an unknown board ({self.model or 'no model'}); no total is claimed"
            return Availability(False, found, fix)
        if missing := [rail for rail in self.total_rails if rail not in rails]:
            found = f"{self.board.name} lacks {', '.join(missing)} of its total; there are {shown or 'no rails'}"
            return Availability(False, found, "Check the labels of its power sensors; another carrier may rename them.")
        return Availability(True, f"{self.board.name}: {shown}")

    def describe(self) -> dict[str, object]:
        """Board, rails and rates."""
        return {**super().describe(), "board": self.board.name if self.board else "", "model": self.model}

"""The counters of AMD's and Apple's GPUs, read through the optional package zeus, as an energy source."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import MODEL_FILE, is_jetson
from mirolib.energy.sensors.nvml import NvmlSource
from mirolib.energy.source import Availability


class ZeusSource(CounterSource):
    """Running energy counters of AMD's graphics cards, and of the GPU inside Apple's chips.

    The package zeus reads AMD's through amdsmi (ROCm 6.2 and later) and Apple's through IOReport. How often they move
    is not documented; a second is assumed, so windows under five seconds report nothing. It is imported by `probe`
    alone, since that takes seconds, and refused wherever it would report something else: next to an NVIDIA driver, on
    Jetson boards, and where it counts nothing but zeros.
    This has not been run on AMD's or Apple's hardware.
    Source: zeus 0.16, zeus.device.gpu.amd and zeus.device.soc.apple.
    """

    name, kind, scope = "zeus", "measured-partial", "AMD or Apple GPU"
    parts = frozenset({"gpu"})
    update_s, unit_j = 1.0, 1e-3
    wraps: Mapping[str, int] = {}

    def __init__(
        self,
        library: Any = None,
        nvml: NvmlSource | None = None,
        platform: str = sys.platform,
        model_file: str | Path = MODEL_FILE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked for yet.

        Args:
            library: What to use for the module zeus.device.
            nvml: What to ask for an NVIDIA driver; by default a source that is closed afterwards.
            platform: `darwin` for Apple's chips, else AMD's cards are looked for.
            model_file: Where the device tree names the board.
            clock: Monotonic clock in seconds.
        """
        super().__init__(clock)
        self._library, self._nvml, self._apple, self._model_file = library, nvml, platform == "darwin", model_file
        self._counters: dict[str, Callable[[], int | None]] = {}
        self._facts: dict[str, object] = {}

    def probe(self) -> Availability:
        """Whether zeus is installed and counts the energy of a GPU here."""
        package = 'pip install "zeus[apple]"' if self._apple else "pip install zeus"
        if self._library is None and importlib.util.find_spec("zeus") is None:
            return Availability(False, "zeus is not installed", package)
        if is_jetson(self._model_file):
            fix = "Use the board's own sensors: its INA power monitors in sysfs, or jtop."
            return Availability(False, "zeus names joint rails of a Jetson board 'cpu' and has no total of all", fix)
        if not self._apple and self._nvidia():
            return Availability(False, "there is an NVIDIA driver, and zeus then sees nothing else", "Use source nvml.")
        try:
            if not self._counters:
                self._open()
            self.read()
        except OSError as error:
            fix = package if self._apple else "Install ROCm 6.2 or later, and its package amdsmi in the same version."
            return Availability(False, str(error), fix)
        return Availability(True, f"{self.scope}: {len(self._counters)} counters")

    def _nvidia(self) -> bool:
        nvml = self._nvml or NvmlSource()
        answers = nvml.answers
        if self._nvml is None:
            nvml.close()
        return answers

    def _open(self) -> None:
        zeus = self._library or _ask(lambda: importlib.import_module("zeus.device"))
        if self._apple:
            soc = _ask(zeus.get_soc)
            if not isinstance(soc, zeus.soc.AppleSilicon):
                raise OSError(f"zeus sees {type(soc).__name__} here, no Apple chip")
            self._counters = {"GPU": lambda: soc.get_total_energy_consumption().gpu_mj}
            self.scope = "Apple GPU"
            return
        gpus = _ask(zeus.get_gpus)
        if not isinstance(gpus, zeus.gpu.AMDGPUs):
            raise OSError(f"zeus sees {type(gpus).__name__} here, no AMD GPU")
        self._counters = {f"GPU {gpu}": _counter(gpus, gpu) for gpu in range(len(gpus)) if _counts(gpus, gpu)}
        if not self._counters:
            raise OSError(f"zeus sees {len(gpus)} AMD GPUs, none with an energy counter that agrees with its power")
        names = _ask(lambda: {f"GPU {gpu}": gpus.get_name(gpu) for gpu in range(len(gpus))})
        self.scope = "AMD GPU " + ", ".join(names[name] for name in self._counters)
        self._facts = {"gpus": names}

    def read(self) -> Mapping[str, int]:
        """Millijoules of each GPU since some instant in the past.

        Raises:
            OSError: If one can't be read, or says zero, which is how zeus reports that there is no sensor.
        """
        if not self._counters:
            raise OSError("no GPU to read; ask probe() first")
        readings = {}
        for name, counter in self._counters.items():
            value = _ask(counter)
            if not value:
                raise OSError(f"zeus says {value!r} mJ for {name}, which is no counter")
            readings[name] = int(value)
        return readings

    def describe(self) -> dict[str, object]:
        """Counters and rates, and the names of the GPUs; those without a counter are not in the sum."""
        return super().describe() | self._facts


def _ask(question: Callable[[], Any]) -> Any:
    """What zeus answers; the errors of its backends share no base but Exception.

    Raises:
        OSError: If it answers with an error.
    """
    try:
        return question()
    except Exception as error:
        raise OSError(f"zeus can't read the GPU: {error}") from error


def _counts(gpus: Any, gpu: int) -> bool:
    return bool(_ask(lambda: gpus.supports_get_total_energy_consumption(gpu)))


def _counter(gpus: Any, gpu: int) -> Callable[[], int | None]:
    return lambda: gpus.get_total_energy_consumption(gpu)

"""The counters of AMD's and Apple's GPUs, read through the optional package zeus, as an energy source."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import USE_OWN_SENSORS, is_jetson
from mirolib.energy.sensors.nvml import NvmlSource
from mirolib.energy.source import LostReading


class ZeusSource(CounterSource):
    """Running energy counters of AMD's graphics cards, and of the GPU inside Apple's chips.

    The package zeus reads AMD's through amdsmi (ROCm 6.2 and later) and Apple's through IOReport. How often they move
    is not documented; a second is assumed, so windows under five seconds report nothing. It is imported at the first
    reading, since that takes seconds, and refused wherever it would report something else: next to an NVIDIA driver,
    on Jetson boards, and where it counts nothing but zeros.
    This has not been run on AMD's or Apple's hardware.
    Source: zeus 0.16, zeus.device.gpu.amd and zeus.device.soc.apple.
    """

    name, kind, scope = "zeus", "measured-partial", "AMD or Apple GPU"
    parts = frozenset({"gpu"})
    update_s, unit_j = 1.0, 1e-3  # assumed, see above
    _apple = sys.platform == "darwin"

    def __init__(self) -> None:
        super().__init__()
        self._counters: dict[str, Callable[[], int | None]] = {}

    def _open(self) -> None:
        package = 'pip install "zeus[apple]"' if self._apple else "pip install zeus"
        # What rules zeus out is asked first, since importing it takes seconds.
        if importlib.util.find_spec("zeus") is None:
            raise LostReading("zeus is not installed", package)
        if is_jetson():
            raise LostReading("zeus calls a Jetson's joint rails cpu and has no total", USE_OWN_SENSORS)
        if not self._apple:
            with closing(NvmlSource()) as nvml:
                if nvml.answers:
                    raise LostReading("beside an NVIDIA driver zeus sees nothing else", "Use source nvml.")
        rocm = "Install ROCm 6.2 or later, and its package amdsmi in the same version."
        self._fix = package if self._apple else rocm
        zeus = _answer(importlib.import_module, "zeus.device")
        # What it hands out is checked by class: without the chip that was meant it falls back to another backend.
        if self._apple:
            soc = _answer(zeus.get_soc)
            if not isinstance(soc, zeus.soc.AppleSilicon):
                raise OSError(f"zeus sees {type(soc).__name__} here, no Apple chip")
            self._counters = {"GPU": lambda: soc.get_total_energy_consumption().gpu_mj}
            self.scope = "Apple GPU"
            return
        gpus = _answer(zeus.get_gpus)
        if not isinstance(gpus, zeus.gpu.AMDGPUs):
            raise OSError(f"zeus sees {type(gpus).__name__} here, no AMD GPU")
        for gpu in range(len(gpus)):
            if _answer(gpus.supports_get_total_energy_consumption, gpu):
                self._counters[f"GPU {gpu}"] = partial(gpus.get_total_energy_consumption, gpu)
        if not self._counters:
            raise OSError(f"zeus sees {len(gpus)} AMD GPUs, none with an energy counter that agrees with its power")
        names = {f"GPU {gpu}": _answer(gpus.get_name, gpu) for gpu in range(len(gpus))}
        self._facts = {"gpus": names}  # those without a counter are not in the sum
        self.scope = "AMD GPU " + ", ".join(names[name] for name in self._counters)

    def read(self) -> Mapping[str, int]:
        """Millijoules of each GPU since some instant in the past."""
        if not self._counters:
            self._open()
        readings = {}
        for name, counter in self._counters.items():
            value = _answer(counter)
            if not value:  # zero is how zeus reports that there is no sensor
                raise OSError(f"zeus says {value!r} mJ for {name}, which is no counter")
            readings[name] = int(value)
        return readings


def _answer(ask: Callable[..., Any], *arguments: Any) -> Any:
    """What zeus answers; the errors of its backends share no base but Exception, so any becomes an OSError."""
    try:
        return ask(*arguments)
    except Exception as error:
        raise OSError(f"zeus can't read the GPU: {error}") from error

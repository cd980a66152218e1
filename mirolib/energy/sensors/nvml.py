"""NVML, the energy counters of NVIDIA's graphics cards, as an energy source."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import USE_OWN_SENSORS, is_jetson
from mirolib.energy.source import LostReading


class NvmlSource(CounterSource):
    """NVIDIA's running energy counters, one a graphics card, board and memory of the card included.

    They count millijoules since the driver was loaded and move every 20 to 100 ms, so windows of two seconds and more
    are the ones to trust. Cards before Volta, Jetson boards and slices of a card (MIG) have none.
    Needs the optional package nvidia-ml-py.
    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption.

    With a run are kept the driver's version, and of each card its name, UUID and power limit in watts.

    Attributes:
        answers: Whether the driver answered, counters or not.
    """

    name, kind, scope = "nvml", "measured-partial", "NVIDIA GPU"
    parts = frozenset({"gpu"})
    update_s, unit_j = 0.1, 1e-3  # the slowest cards' step

    def __init__(self, devices: Sequence[int] | None = None) -> None:
        """Looks for cards by their indices, as `nvidia-smi` shows them; whatever goes wrong is told by `probe`.

        By default they are those that CUDA_VISIBLE_DEVICES names, or all if it is not set.
        """
        super().__init__()
        self.answers = False
        self._handles: dict[str, Any] = {}
        self._absent = LostReading("closed")
        try:
            self._open(devices)
        except LostReading as absent:
            self._absent = absent

    def _open(self, devices: Sequence[int] | None) -> None:
        try:
            nvml = self._nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            self.answers = True
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            names = [nvml.nvmlDeviceGetName(handle) for handle in handles]
            uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
        except ImportError as error:
            raise LostReading("nvidia-ml-py is not installed", "pip install nvidia-ml-py") from error
        except nvml.NVMLError as error:
            raise self._refusal("NVML", error) from error
        if not handles:
            raise LostReading("the NVIDIA driver sees no GPU", "In a container, start it with --gpus all.")
        chosen = _visible(names, uuids) if devices is None else list(dict.fromkeys(devices))
        if wrong := [index for index in chosen if not 0 <= index < len(handles)]:
            raise LostReading(f"there is no GPU {wrong[0]}", f"Take devices from 0 to {len(handles) - 1}.")
        self._handles = {f"GPU {index}": handles[index] for index in chosen}
        self.scope = "NVIDIA GPU " + ", ".join(names[index].removeprefix("NVIDIA ") for index in chosen)
        self._facts = {"driver": self._fact(nvml.nvmlSystemGetDriverVersion)}
        for index in chosen:
            limit_mw = self._fact(nvml.nvmlDeviceGetEnforcedPowerLimit, handles[index])
            limit_w = None if limit_mw is None else limit_mw / 1000
            self._facts[f"GPU {index}"] = {"name": names[index], "uuid": uuids[index], "power_limit_w": limit_w}

    def _fact(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What the driver says, or None where it says nothing: a card that keeps its limit to itself still counts."""
        with suppress(self._nvml.NVMLError):
            return ask(*arguments)
        return None

    def _refusal(self, name: str, error: Any) -> LostReading:
        nvml, code = self._nvml, error.value
        if code in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            fix = "Install the driver; in a container, start it with --gpus all."
            return LostReading(f"no NVIDIA driver ({error})", fix)
        if code == nvml.NVML_ERROR_NO_PERMISSION:
            return LostReading(f"{name} may not be read by this user", "Let this user open /dev/nvidia*.")
        if code != nvml.NVML_ERROR_NOT_SUPPORTED:
            return LostReading(f"{name} can't be read: {error}")
        if is_jetson():
            return LostReading("the GPU of a Jetson board has no energy counter in NVML", USE_OWN_SENSORS)
        fix = "Leave it out with devices=[...]." if len(self._handles) > 1 else ""
        return LostReading(f"{name} has no energy counter: it is older than Volta, or virtual", fix)

    def read(self) -> Mapping[str, int]:
        """Millijoules of each card since the driver was loaded.

        Raises:
            OSError: If a card can't be read.
        """
        if not self._handles:
            raise self._absent
        readings = {}
        for name, handle in self._handles.items():
            try:
                readings[name] = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            except self._nvml.NVMLError as error:
                raise self._refusal(name, error) from error
        return readings

    def close(self) -> None:
        """Ends the use of NVML."""
        if self.answers:  # NVML counts those who use it: each start wants its end, and no other
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self.answers, self._handles = False, {}


def _visible(names: Sequence[str], uuids: Sequence[str]) -> list[int]:
    """Indices of the cards that CUDA_VISIBLE_DEVICES shows to CUDA; all if it is not set."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(range(len(uuids)))
    entries = [entry.strip() for entry in text.split(",")]
    chosen: list[int] = []
    for entry in entries:
        if entry.startswith("MIG-"):
            raise LostReading("a slice of a GPU (MIG) has no counter", "Name whole GPUs with devices=[...].")
        if entry.isdecimal():
            found = [int(entry)] if int(entry) < len(uuids) else []
        else:
            found = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if len(found) != 1:
            break  # CUDA ignores an entry that is not valid and all that follow
        chosen += found
    if not chosen:
        raise LostReading(f"CUDA_VISIBLE_DEVICES={text!r} shows no GPU", "Unset it, or name GPUs with devices=[...].")
    # CUDA numbers the fastest card first, NVML by slot; that matters only if they differ and some are left out
    differ = len(set(names)) > 1 and set(chosen) < set(range(len(uuids)))
    if differ and any(map(str.isdecimal, entries)) and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        fix = "Set CUDA_DEVICE_ORDER=PCI_BUS_ID before CUDA starts."
        raise LostReading("CUDA may number these GPUs otherwise than NVML", fix)
    return list(dict.fromkeys(chosen))

"""NVML, the energy counters of NVIDIA's graphics cards, as an energy source."""

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mirolib.energy.counter import CounterSource
from mirolib.energy.sensors.boards import USE_OWN_SENSORS, is_jetson
from mirolib.energy.source import LostReading

_NO_DRIVER = "Install the driver; in a container, start it with --gpus all."
_MISMATCH = "Restart the machine, or load the driver anew: it was updated meanwhile; in a container, take the host's."
_SUPERCHIP = re.compile(r"\bG[BH]\d")  # with Arm cores, as GH200: the counter is that of the whole module


class NvmlSource(CounterSource):
    """NVIDIA's running energy counters, one a graphics card, board and memory of the card included.

    They count millijoules since the driver was loaded and move every 20 to 100 ms, so windows of two seconds and more
    are the ones to trust. Cards before Volta and Jetson boards have none. A slice of a card (MIG) has none of its own:
    the whole card's is read, and the scope says so. It `answers` if the driver did, counters or not. Needs the optional
    package nvidia-ml-py.
    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption.
    """

    name, kind, scope = "nvml", "measured-partial", "NVIDIA GPU"
    parts = frozenset({"gpu"})
    update_s, unit_j, most_w = 0.1, 1e-3, 3000.0  # the slowest cards' step; more than any card takes

    def __init__(self, devices: Sequence[int | str] | None = None, device: str = "") -> None:
        """Looks for cards by their indices, as `nvidia-smi` shows them, or UUIDs; `probe` tells whatever goes wrong.

        By default it is the card of PyTorch's `device`, such as `cuda:0`; without one those that CUDA_VISIBLE_DEVICES
        names, or all if it is not set.
        """
        super().__init__()
        self.answers = False
        self._handles: dict[str, Any] = {}
        self._absent = LostReading("closed")
        try:
            self._open(devices, device)
        except LostReading as absent:
            self._absent = absent

    def _open(self, devices: Sequence[int | str] | None, device: str) -> None:
        try:
            nvml = self._nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            self.answers = True
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            names = [_text(nvml.nvmlDeviceGetName(handle)) for handle in handles]
            uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
            if not handles:
                raise LostReading("the NVIDIA driver sees no GPU", "In a container, start it with --gpus all.")
            chosen, scopes = self._chosen(names, uuids, devices, device), []
            self._facts = {"driver": _text(self._fact("nvmlSystemGetDriverVersion"))}
            for index in chosen:
                limit_mw = self._fact("nvmlDeviceGetEnforcedPowerLimit", handles[index])
                limit_w = None if limit_mw is None else limit_mw / 1000
                self._facts[f"GPU {index}"] = {"name": names[index], "uuid": uuids[index], "power_limit_w": limit_w}
                sliced = self._fact("nvmlDeviceGetMigMode", handles[index]) or (0, 0)
                notes = [" (whole card, cut into slices by MIG: others may share it)"] if sliced[0] else []
                if _SUPERCHIP.search(names[index]):
                    notes.append(" (its counter covers the whole module, processor and memory too)")
                    self.parts = frozenset({"gpu", "cpu", "dram"})
                scopes.append(names[index].removeprefix("NVIDIA ") + "".join(notes))
        except ImportError as error:
            raise LostReading("nvidia-ml-py is not installed", "pip install nvidia-ml-py") from error
        except (AttributeError, TypeError, ValueError) as error:  # of years ago, or another package of that name
            fix = "pip uninstall pynvml, then pip install -U nvidia-ml-py"
            raise LostReading(f"this pynvml is not that of nvidia-ml-py ({error})", fix) from error
        except nvml.NVMLError as error:
            raise self._refusal("NVML", error) from error
        self._handles = {f"GPU {index}": handles[index] for index in chosen}
        self.scope = f"NVIDIA GPU {', '.join(scopes)}"

    def _fact(self, function: str, *arguments: Any) -> Any:
        """What the driver says, or None where it says nothing: a card that keeps its limit to itself still counts."""
        with suppress(self._nvml.NVMLError, AttributeError):
            return getattr(self._nvml, function)(*arguments)
        return None

    def _refusal(self, name: str, error: Any) -> LostReading:
        nvml, code = self._nvml, error.value
        if code in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            return LostReading(f"no NVIDIA driver ({error})", _NO_DRIVER)
        if code == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return LostReading(f"the NVIDIA driver and its library differ in version ({error})", _MISMATCH)
        if code == nvml.NVML_ERROR_NO_PERMISSION:
            return LostReading(f"{name} may not be read by this user", "Let this user open /dev/nvidia*.")
        if code != nvml.NVML_ERROR_NOT_SUPPORTED:
            return LostReading(f"{name} can't be read: {error}")
        if is_jetson():
            return LostReading("the GPU of a Jetson board has no energy counter in NVML", USE_OWN_SENSORS)
        fix = "Name others in energy_device." if len(self._handles) > 1 else ""
        return LostReading(f"{name} has no energy counter: it is older than Volta, or virtual", fix)

    def read(self) -> Mapping[str, int]:
        """Millijoules of each card since the driver was loaded."""
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

    def _chosen(
        self, names: Sequence[str], uuids: Sequence[str], devices: Sequence[int | str] | None, device: str
    ) -> list[int]:
        """Indices of the cards that are named, or of the device's, or of all that CUDA sees."""
        if devices is not None:
            found = {entry: self._index(str(entry), uuids) for entry in devices}
            chosen = [index for index in found.values() if index is not None]
            if absent := [entry for entry, index in found.items() if index is None]:
                raise LostReading(f"there is no GPU {absent[0]}", f"Take devices from 0 to {len(uuids) - 1}, or UUIDs.")
            return list(dict.fromkeys(chosen))
        if device:
            import torch

            uuid = ""
            with suppress(AttributeError, RuntimeError, AssertionError, ValueError):  # PyTorch may not know it
                uuid = str(torch.cuda.get_device_properties(device).uuid)
            if (own := self._index(uuid, uuids)) is not None:
                return [own]
        text, chosen = os.environ.get("CUDA_VISIBLE_DEVICES"), list[int]()
        entries = uuids if text is None else [entry.strip() for entry in text.split(",")]
        for entry in entries:
            if (index := self._index(entry, uuids)) is None:
                break  # CUDA ignores an entry that is not valid and all that follow
            chosen.append(index)
        if device:
            chosen = chosen[(number := int(device.partition(":")[2] or 0)) : number + 1]
        if not chosen:
            fix = "Unset it, or name GPUs in energy_device."
            raise LostReading(f"CUDA_VISIBLE_DEVICES={text!r} shows no GPU {device}".rstrip(), fix)
        # CUDA numbers the fastest card first, NVML by slot; that matters only if they differ and some are left out
        differ = len(set(names)) > 1 and set(chosen) < set(range(len(uuids)))
        by_number = text is None or any(map(str.isdecimal, entries))
        if differ and by_number and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            fix = "Set CUDA_DEVICE_ORDER=PCI_BUS_ID before CUDA starts."
            raise LostReading("CUDA may number these GPUs otherwise than NVML", fix)
        return list(dict.fromkeys(chosen))

    def _index(self, entry: str, uuids: Sequence[str]) -> int | None:
        """The card that an index, the beginning of a UUID, or a slice's UUID means; None for none, or more than one."""
        if entry.startswith("MIG-"):
            part = self._nvml.nvmlDeviceGetHandleByUUID(entry)
            entry = _text(self._nvml.nvmlDeviceGetUUID(self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)))
        if entry.isdecimal():
            return int(entry) if int(entry) < len(uuids) else None
        found = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith((entry, f"GPU-{entry}"))]
        return found[0] if len(found) == 1 else None


def _text(said: Any) -> Any:
    """Text of NVML; old bindings give bytes."""
    return said.decode(errors="replace") if isinstance(said, bytes) else said

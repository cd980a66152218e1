"""On what a run was made: machine, versions, process."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import version

import torch

PACKAGES = ("mirolib", "torch", "torchvision", "numpy", "pandas", "lmdb")
"""Packages whose version may change a run's numbers."""


def environment_stamp(device: str) -> dict[str, object]:
    """Versions and machine of a run; the device is named once it is known to work."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **{package: version(package) for package in PACKAGES},
    }

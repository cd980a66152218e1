"""The first line of a notebook: `mirolib.setup()`."""

import platform
import random
from importlib.metadata import version

import numpy as np
import torch

from mirolib.base.display import facts
from mirolib.base.errors import InputError
from mirolib.energy import doctor
from mirolib.viz import figures as plots

_PACKAGES = ("mirolib", "torch", "numpy", "pandas", "plotly", "jupyterlab")


class Setup(dict[str, str]):
    """What a notebook works with: `versions`, `device`, `energy`, `seed` and `plots`, in words."""

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.items())

    def _repr_html_(self) -> str:
        return facts("Miro workbench", self)


def setup(*, theme: str = "auto", seed: int | None = None, threads: int | None = None) -> Setup:
    """Prepares a notebook and says what it works with; an `InputError` if a value is unknown or out of range.

    Plots of theme `auto` read on light and dark pages alike, `light` and `dark` have their own background. The seed is
    that of Python, NumPy and PyTorch for the notebook's own code; the library never draws from them. PyTorch computes
    with so many threads, by default as many as it likes.
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; choose a whole number from 0 to {2**32 - 1}.")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; choose 1 or more.")
    plots.set_theme(theme)
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (for the notebook's own code)
        torch.manual_seed(seed)
    if threads is not None:
        torch.set_num_threads(threads)
    found = doctor().query("available and kind != 'none'")
    versions = {"Python": platform.python_version()} | {package: version(package) for package in _PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    sensors = [f"{name}: {row['kind']}, {row['scope']}" for name, row in found.iterrows()]
    return Setup(
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
        device=f"{device}, threads: {torch.get_num_threads()}",
        energy="; ".join(sensors) or "no sensor: work is counted instead",
        seed="not set" if seed is None else f"{seed} (Python, NumPy, PyTorch); a run has a seed of its own",
        plots=f"{theme} theme",
    )

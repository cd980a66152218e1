"""Import paths of version 0.1, each an alias of where its module lies now."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parents[1]
_RENAMED = {
    "alive": "workbench.folder",
    "atomic": "base.files",
    "budgets": "memory.budget",
    "comparison": "workbench.compare",
    "comparison_plots": "viz.compare",
    "controller.calibration": "controller.expectation",
    "controller.costs": "controller.expectation",
    "datasets": "data",
    "datasets.base": "data.dataset",
    "datasets.download": "data.fetch",
    "energy.badge": "energy.ledger",
    "energy.board_band": "energy.sensors.boards",
    "energy.boards": "energy.sensors.boards",
    "energy.calibration": "energy.calibrate",
    "energy.combined": "energy.doctor",
    "energy.discovery": "energy.doctor",
    "energy.load": "energy.sensors.model",
    "energy.losses": "energy.source",
    "energy.marginal": "energy.compare",
    "energy.power": "energy.sampled",
    "energy.reading": "energy.ledger",
    "exchanger": "memory.swapper",
    "launcher": "workbench.launch",
    "learner": "learning",  # the face, for METHODS lies in a file of its own now
    "limits": "memory.available_memory",
    "locks": "base.files",
    "memory_config": "memory.config",
    "mending": "memory.replace_damaged",
    "plots": "viz.figures",
    "report": "viz.report",
    "reprs": "base.display",
    "start": "viz.setup",
    "store_records": "memory.store_file",
    "swap_cost": "experiment.study",
    "sweeps": "workbench.sweep",
}
_FOLDERS = {"": "*", "datasets": "data", "energy": "energy/sensors"}  # of version 0.1, and where their files went


def place_now(name: str) -> str | None:
    """Where a module of version 0.1 lies now, such as `mirolib.data.stream` for `mirolib.stream`; None if nowhere."""
    package, _, old = name.partition(".")
    if package != "mirolib" or not old:
        return None
    if old in _RENAMED:
        return f"mirolib.{_RENAMED[old]}"
    folder, _, file = old.rpartition(".")
    # what stands where it stood is left to Python; this finder is asked first, since under a moved package's old name
    # Python would find the files of the new one and import each a second time
    here = _ROOT / old.replace(".", "/")
    if folder not in _FOLDERS or here.with_suffix(".py").exists() or (here / "__init__.py").exists():
        return None
    found = sorted(_ROOT.glob(f"{_FOLDERS[folder]}/{file}.py"))
    return ".".join(["mirolib", *found[0].relative_to(_ROOT).with_suffix("").parts]) if found else None


class MovedFinder(MetaPathFinder, Loader):
    """Imports a module by the path it had, with a `DeprecationWarning`; it is the same module, not a copy."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a path of version 0.1; None for any other."""
        return spec_from_loader(name, self) if place_now(name) else None

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module that was asked for in the place of the empty one."""
        now = str(place_now(module.__name__))
        warnings.warn(f"{module.__name__} is {now} now.", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(now)  # import hands back what stands there after this

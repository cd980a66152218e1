"""Import paths of version 0.1, each an alias of where its module lies now."""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parents[1]
_MOVED = {  # what was renamed, by the package that it lies in now
    "base": {"atomic": "files", "locks": "files", "reprs": "display"},
    "controller": {"controller.calibration": "expectation", "controller.costs": "expectation"},
    "data": {"datasets.base": "dataset", "datasets.download": "fetch", "datasets.unpack": "fetch"},
    "energy": {
        "energy.badge": "ledger", "energy.board_band": "sensors.boards", "energy.calibration": "calibrate",
        "energy.combined": "doctor", "energy.discovery": "doctor", "energy.load": "sensors.model",
        "energy.losses": "source", "energy.marginal": "compare", "energy.power": "sampled", "energy.reading": "ledger",
    },
    "experiment": {"swap_cost": "study"},
    "learning": {"augment": "inputs"},
    "memory": {
        "budgets": "budget", "exchanger": "swapper", "limits": "available_memory", "memory_config": "config",
        "mending": "replace_damaged", "store_records": "store_file",
    },
    "viz": {"comparison_plots": "compare", "plots": "figures", "start": "setup"},
    "widgets": {"widgets.pace": "live", "widgets.view": "dashboard"},
    "workbench": {
        "alive": "folder", "comparison": "compare", "launcher": "launch", "run_file": "run", "sweeps": "sweep",
    },
}  # fmt: skip
_RENAMED = {old: f"{package}.{new}" for package, files in _MOVED.items() for old, new in files.items()}
_RENAMED |= {"datasets": "data", "learner": "learning"}  # the face, for METHODS lies in another file
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

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for a path of version 0.1; None for any other."""
        return spec_from_loader(name, self) if place_now(name) else None

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module that was asked for in the place of the empty one."""
        now = str(place_now(module.__name__))
        warnings.warn(f"{module.__name__} is {now} now.", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(now)  # import hands back what stands there after this

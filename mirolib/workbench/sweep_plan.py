"""What a sweep runs: one notebook at every point of a grid, with every seed; each point has a run id of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mirolib.base.errors import InputError
from mirolib.base.files import read_bounded
from mirolib.data import dataset_spec, own
from mirolib.workbench.launch import check_parameters, declared_parameters
from mirolib.workbench.run import plain_name

PLAN_FORMAT = 1
MOST_RUNS = 10_000
_ENTRIES = ("notebook", "name", "grid", "parameters", "seeds")
_SET_BY_THE_SWEEP = {"run_id", "results", "resume"}
Runs = dict[Path, dict[str, Any]]
"""Runs by their folders, which say notebook and run id too, each with its parameters."""


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep, checked, and which parameters are varied between them.

    Members are each run's values, in the types the notebook declares, by the run id that follows from name and values.
    """

    name: str
    notebook: str
    varied: tuple[str, ...]
    members: Mapping[str, dict[str, Any]]

    def energy_names(self) -> set[str]:
        """The energy sources that the runs name and that read a sensor, as a recorded trace does not."""
        # a notebook without such a parameter takes whatever there is, too
        names = {str(parameters.get("energy", "auto")) for parameters in self.members.values()}
        return {name for name in names if not name.endswith(".csv")} - {"none"}

    def runs(self, results: Path) -> Runs:
        """The runs as they lie, or will, in the folder of all results."""
        return {results / self.notebook / run_id: parameters for run_id, parameters in self.members.items()}

    def to_json(self) -> str:
        """The plan as the text of `sweep.json`."""
        members = [{"run_id": run_id, "parameters": parameters} for run_id, parameters in self.members.items()]
        plan = {"format": PLAN_FORMAT, "name": self.name, "notebook": self.notebook, "varied": self.varied}
        return json.dumps(plan | {"members": members}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, file: Path) -> SweepPlan:
        """Reads a file that holds what `to_json` gave; an `InputError` if it is damaged, `OSError` if there is none."""
        try:
            plan = json.loads(read_bounded(file))
            if plan["format"] != PLAN_FORMAT:
                raise InputError(f"its format is {plan['format']!r} and this version reads {PLAN_FORMAT}")
            members = {plain_name(str(m["run_id"])): dict(m["parameters"]) for m in plan["members"]}
            name, notebook = plain_name(str(plan["name"])), plain_name(str(plan["notebook"]))
            return cls(name, notebook, tuple(str(v) for v in plan["varied"]), members)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{file} is damaged ({type(error).__name__}: {error}); delete it and start the sweep again: "
                "finished runs are kept."
            ) from error


def make_plan(
    notebook: str,
    grid: Mapping[str, Iterable[Any]] | None = None,
    seeds: int | Iterable[int] | None = None,
    parameters: Mapping[str, Any] | None = None,
    name: str = "",
) -> SweepPlan:
    """Lays out a sweep, and checks every run of it; see `sweep` for the arguments.

    There is an `InputError` if the notebook or a parameter is unknown, a value has another type or is out of range, a
    run stands there twice, or there are too many.
    """
    for what, given, such in (("grid", grid, "[5, 10]"), ("parameters", parameters, "5")):
        if not isinstance(given, Mapping | None):
            raise InputError(f"{what} is {given!r:.200}; give values by parameter, such as {{epochs: {such}}}.")
    axes = {str(key): _values(str(key), values) for key, values in (grid or {}).items()}
    shared = {str(key): value for key, value in (parameters or {}).items()}
    if seeds is not None:
        if "seed" in axes:
            raise InputError("seed stands in the grid and seeds is given too; keep one of them.")
        if isinstance(seeds, Integral) and not isinstance(seeds, bool):  # which Python counts as a number
            seeds = range(int(seeds))
        axes["seed"] = _values("seeds", seeds)
    if twice := set(axes) & set(shared):
        raise InputError(f"{', '.join(sorted(twice))} stands in the grid and in the parameters; keep one of them.")
    if own := _SET_BY_THE_SWEEP & {*axes, *shared}:
        raise InputError(f"A sweep sets {', '.join(sorted(own))} itself; leave it out.")
    # counted before the product is drawn, which a slip in a range would make fill the memory
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_RUNS:
        raise InputError(f"The grid has more than {MOST_RUNS:,} runs, the most a sweep takes; thin it out.")
    declared = declared_parameters(notebook)
    points = [shared | dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    checked = [check_parameters(notebook, point, declared) for point in points]
    name = plain_name(name or f"{notebook}-{_digest([notebook, shared, axes])[:6]}")
    # of checked values, so that 1, 1.0 and "1" for a float are the same run
    members = {plain_name(f"{name}-{_digest(_resolved(point, declared))[:12]}"): point for point in checked}
    if len(members) < count:
        raise InputError("The grid lists a value twice, so that runs would be the same; leave one out.")
    varied = [key for key, values in axes.items() if len(values) > 1]
    if "dataset" in varied and any("data" in point for point in checked) and "data" not in varied:
        varied.append("data")  # names of own data may be alike
    return SweepPlan(name, notebook, tuple(varied), members)


def _values(name: str, values: object) -> list[Any]:
    """The values of one parameter; those of a set in an order that is always the same."""
    if isinstance(values, np.ndarray):
        values = values.tolist()  # one number where it has no axis, which can't be iterated
    if isinstance(values, Set):
        # a set of texts has another order in each process, and the order decides the sweep's name
        values = sorted(values, key=lambda value: (len(repr(value)), repr(value)))
    listed: list[Any] = []
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping):
        listed = list(itertools.islice(values, MOST_RUNS + 1))  # what it is given may have no end
    if not listed:
        raise InputError(f"The grid gives {values!r} for {name}; give a list of at least one value.")
    # JSON knows no numbers of NumPy
    return [value.item() if isinstance(value, np.generic) else value for value in listed]


def _resolved(point: dict[str, Any], declared: Mapping[str, str]) -> dict[str, Any]:
    """What a run's id follows from: its values, a preset's for epochs of the task, how the user's own data are."""
    if own.is_one(place := str(point.get("data") or point.get("dataset", ""))):
        return point | {"stamp": own.stamp(place)}
    if "epoch_of" not in declared or point.get("controller", "miro") != "fixed" or point.get("epoch_of") == "buffers":
        return point
    preset = dataset_spec(point.get("dataset", "digits")).preset(point.get("preset", ""))
    if "task" not in (point.get("epoch_of"), preset.epoch_of):
        return point
    return {name: getattr(preset, name) for name in ("epoch_of", "replay_ratio", "epochs")} | point


def _digest(content: object) -> str:
    """A digest of JSON content, the same for the same content on every machine."""
    try:
        text = json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"A value can't be written down ({error}); use numbers, texts and lists.") from error
    return hashlib.sha256(text.encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """Refuses what `SafeLoader` takes: a key that stands twice in a mapping, whose first values would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise InputError(f"{key.value!r:.99} stands twice, again in line {key.start_mark.line + 1}; keep one.")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    """A number that means what it shows: YAML takes 010 for 8 and 1:30 for 90."""
    if re.match(r"[+-]?0[0-9_]|.*:", node.value):
        raise InputError(f"{node.value} in line {node.start_mark.line + 1} is no plain number; quote it, or mend it.")
    is_whole = node.tag.endswith("int")
    return loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def read_entries(path: str | Path) -> dict[str, Any]:
    """Reads what `make_plan` takes from a YAML file: `notebook` and, if wanted, `grid`, `name`, `parameters`, `seeds`.

    There is an `InputError` if the file can't be read as one, names no notebook, or has an unknown entry.
    """
    try:
        content = yaml.load(read_bounded(path).decode(), _Loader)
    # a slip in YAML or in its numbers; ValueError stands for InputError too
    except (OSError, yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{path} can't be read as YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict) or "notebook" not in content:
        raise InputError(f"{path} names no notebook; see docs/sweeps.md for an example.")
    if unknown := {str(key) for key in content} - set(_ENTRIES):
        raise InputError(f"{path} has an unknown entry {sorted(unknown)[0]!r}; it takes {', '.join(_ENTRIES)}.")
    return content

"""What a sweep runs: one notebook at every point of a grid, with every seed; each point has a run id of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mirolib.base.errors import InputError
from mirolib.workbench.folder import plain_name
from mirolib.workbench.launch import check_values, declared_parameters

PLAN_FORMAT = 1
MOST_RUNS = 10_000
_MOST_BYTES = 1 << 20
_KEYS = {
    "notebook": (str, "the name of a notebook, such as 10_run"),
    "name": (str, "a text, in quotes if it looks like a number or a date"),
    "grid": (dict, "a list of values by parameter, such as {epochs: [5, 10]}"),
    "parameters": (dict, "a value by parameter, such as {epochs: 5}"),
    "seeds": (int | list | None, "the number of seeds or a list of them, such as [0, 1]"),
}
_OWN = {"run_id", "results", "resume"}  # parameters that the sweep sets itself


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        run_id: Its name, which follows from the sweep's name and its parameters.
        parameters: Values for the notebook, in the types it declares.
    """

    run_id: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep, checked.

    Attributes:
        name: Name of the sweep.
        notebook: The notebook that is run.
        varied: Parameters that differ between the runs.
        members: The runs.
    """

    name: str
    notebook: str
    varied: tuple[str, ...]
    members: tuple[Member, ...]

    def energy_names(self) -> set[str]:
        """The energy sources that the runs name and that read a sensor, as a recorded trace does not."""
        if "energy" not in declared_parameters(self.notebook):
            return {"auto"}
        names = {str(member.parameters.get("energy", "auto")) for member in self.members}
        return {name for name in names if not name.endswith(".csv")} - {"none"}

    def to_json(self) -> str:
        """The plan as the text of `sweep.json`."""
        return json.dumps({"format": PLAN_FORMAT} | asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, file: Path) -> SweepPlan:
        """Reads a file that holds what `to_json` gave.

        Raises:
            InputError: If it is damaged, of another format, or names a run that leads out of the results folder.
            OSError: If there is none.
        """
        try:
            plan = json.loads(file.read_bytes())
            if plan["format"] != PLAN_FORMAT:
                raise InputError(f"its format is {plan['format']!r} and this version reads {PLAN_FORMAT}")
            members = [Member(plain_name(str(m["run_id"])), dict(m["parameters"])) for m in plan["members"]]
            name, notebook = plain_name(str(plan["name"])), plain_name(str(plan["notebook"]))
            return cls(name, notebook, tuple(str(v) for v in plan["varied"]), tuple(members))
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
    """Lays out a sweep, and checks every run of it.

    Args:
        notebook: The notebook to run, such as `10_run`.
        grid: Values by parameter; every combination is run.
        seeds: Seeds of every combination, or their number, counted from 0; None leaves the seed to the notebook.
        parameters: Parameters that all runs share.
        name: Name of the sweep; by default made of the notebook and a digest of all the rest.

    Raises:
        InputError: If the notebook or a parameter is unknown, a value has another type or is out of range, a run
            stands there twice, or there are too many.
    """
    for key, entries in (("grid", grid), ("parameters", parameters)):
        if not isinstance(entries, Mapping | None):
            raise InputError(f"{key} is {entries!r:.200}; give {_KEYS[key][1]}.")
    axes = {str(key): _values(str(key), values) for key, values in (grid or {}).items()}
    shared = dict(parameters or {})
    if seeds is not None:
        axes |= {"seed": _seeds(seeds, {*axes, *shared})}
    if twice := set(axes) & set(shared):
        raise InputError(f"{', '.join(sorted(twice))} stands in the grid and in the parameters; keep one of them.")
    if own := _OWN & {*axes, *shared}:
        raise InputError(f"A sweep sets {', '.join(sorted(own))} itself; leave it out.")
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_RUNS:
        raise InputError(f"The grid has more than {MOST_RUNS:,} runs, the most a sweep takes; thin it out.")
    declared = declared_parameters(notebook)
    points = [shared | dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    checked = [check_values(notebook, declared, point) for point in points]
    name = plain_name(name or f"{notebook}-{_digest([notebook, shared, axes])[:6]}")
    members = {_digest(point): Member(plain_name(f"{name}-{_digest(point)[:12]}"), point) for point in checked}
    if len(members) < count:
        raise InputError("The grid lists a value twice, so that runs would be the same; leave one out.")
    varied = tuple(key for key, values in axes.items() if len(values) > 1)
    return SweepPlan(name, notebook, varied, tuple(members.values()))


def _values(name: str, values: object) -> list[Any]:
    """The values of one parameter; those of a set in an order that is always the same."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, Set):
        values = sorted(values, key=lambda value: (len(repr(value)), repr(value)))
    listed: list[Any] = []
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping):
        listed = list(itertools.islice(values, MOST_RUNS + 1))
    if not listed:
        raise InputError(f"The grid gives {values!r} for {name}; give a list of at least one value.")
    return [value.item() if isinstance(value, np.generic) else value for value in listed]


def _seeds(seeds: object, taken: set[str]) -> list[Any]:
    """The seeds, from their number or a list."""
    if "seed" in taken:
        raise InputError("seed stands in the grid or the parameters and seeds is given too; keep one of them.")
    if isinstance(seeds, Integral) and not isinstance(seeds, bool):
        if not 1 <= int(seeds) <= MOST_RUNS:
            raise InputError(f"seeds is {seeds}; give the number of seeds, 1 to {MOST_RUNS:,}, or a list of them.")
        return list(range(int(seeds)))
    return _values("seeds", seeds)


def _digest(content: object) -> str:
    """A digest of JSON content, the same for the same content on every machine.

    Raises:
        InputError: If it holds what JSON can't, such as a date.
    """
    try:
        text = json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"A value can't be written down ({error}); use numbers, texts and lists.") from error
    return hashlib.sha256(text.encode()).hexdigest()


def read_plan(path: str | Path) -> SweepPlan:
    """Reads a sweep from a YAML file with `notebook`, `grid` and, if wanted, `name`, `parameters` and `seeds`.

    Raises:
        InputError: If the file can't be read as one, or `make_plan` refuses what it says.
    """
    content = _yaml(Path(path))
    if unknown := {str(key) for key in content} - set(_KEYS):
        raise InputError(f"{path} has an unknown entry {sorted(unknown)[0]!r}; it takes {', '.join(_KEYS)}.")
    for key, (kind, wanted) in _KEYS.items():
        if key in content and not isinstance(content[key], kind):
            raise InputError(f"{path} has {content[key]!r:.200} for {key}; give {wanted}.")
    if "notebook" not in content:
        raise InputError(f"{path} names no notebook; add a line such as: notebook: 10_run")
    parameters = {str(key): value for key, value in content.get("parameters", {}).items()}
    return make_plan(
        content["notebook"], content.get("grid", {}), content.get("seeds"), parameters, content.get("name", "")
    )


class _Loader(yaml.SafeLoader):
    """Refuses what `SafeLoader` takes: a key that stands twice in a mapping, whose first values would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise InputError(f"{key.value!r:.200} stands twice, again in line {line}; keep one of them.")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml(path: Path) -> dict[Any, Any]:
    """The mapping that a YAML file holds; only plain values, and no aliases, which a small file can make huge."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"it has more than {_MOST_BYTES:,} bytes, which no sweep needs.")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError("it uses an alias (*name); write the values out.")
        content = yaml.load(text, _Loader)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from error
    except InputError as error:
        raise InputError(f"{path} can't be used: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no entries; see docs/sweeps.md for an example.")
    return content

"""What a run is to be good at, in one string: `knee`, `accuracy=0.9`, `energy_budget=50 kJ`, `rate=0.2 points/kJ`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mirolib.base.errors import InputError

KNEE_POINTS = 0.15
"""Points that another tenth of work must bring, one a doubling; benchmarks/controller.py says how it was set."""

_UNITS: dict[str, tuple[float, Literal["J", "visits"]]] = {
    "J": (1.0, "J"), "kJ": (1e3, "J"), "MJ": (1e6, "J"), "Wh": (3600.0, "J"),
    "visit": (1.0, "visits"), "visits": (1.0, "visits"),
}  # fmt: skip
_SHAPE = re.compile(r"(knee|accuracy|energy_budget|rate)(?:\s*=\s*([0-9.eE+-]+)\s*(.*))?")
_EXAMPLES = {
    "knee": "knee, or knee=0.2 points for another tenth of work",
    "accuracy": "accuracy=0.9, or accuracy=90 %",
    "energy_budget": "energy_budget=50 kJ, or =100000 visits where there is no sensor",
    "rate": "rate=0.2 points/kJ, or =0.2 points/1000 visits where there is no sensor",
}


@dataclass(frozen=True)
class Objective:
    """A goal for the work of each task.

    Attributes:
        kind: `knee`: go on until another tenth of work is expected to bring less than `value` points; `accuracy`: the
            least work for the accuracy `value` in [0, 1] on all classes so far; `energy_budget`: the most accuracy for
            `value` of `unit` over the whole stream; `rate`: go on until work is expected to bring less than `value`
            points for one more of `unit`.
        value: In points, as a share, in `unit`, or in points a `unit`.
        unit: Of cost: `J`, or `visits` (of samples, a forward pass alone counting as a third); "" where none is given.
    """

    kind: Literal["knee", "accuracy", "energy_budget", "rate"]
    value: float
    unit: Literal["J", "visits", ""] = ""


def parse_objective(text: str) -> Objective:
    """Reads an objective.

    Raises:
        InputError: If it is none, or its number is out of range.
    """
    found = _SHAPE.fullmatch(text.strip())
    if not found:
        raise InputError(f"The objective {text!r:.99} can't be read; write one of: {'; '.join(_EXAMPLES.values())}.")
    kind, number, unit = found[1], found[2], (found[3] or "").strip()
    if kind == "knee" and number is None:
        return Objective("knee", KNEE_POINTS)
    try:
        value = float(number)
        if kind == "knee" and unit in ("points", "point", ""):
            objective = Objective("knee", value)
        elif kind == "accuracy" and unit in ("", "%"):
            objective = Objective("accuracy", value / 100 if unit else value)
        elif kind == "energy_budget":
            factor, name = _cost(unit)
            objective = Objective("energy_budget", value * factor, name)
        elif kind == "rate" and (per := re.fullmatch(r"points?\s*/\s*(.+)", unit)):
            factor, name = _cost(per[1])
            objective = Objective("rate", value / factor, name)
        else:
            raise ValueError(unit)
    except (ValueError, TypeError, KeyError, ZeroDivisionError):
        raise InputError(f"The objective {text!r:.99} can't be read; write {_EXAMPLES[kind]}.") from None
    if not 0 < objective.value < (1 if kind == "accuracy" else float("inf")):
        raise InputError(f"The objective {text!r:.99} is out of range; write {_EXAMPLES[kind]}.")
    return objective


def _cost(text: str) -> tuple[float, Literal["J", "visits"]]:
    """Factor and unit of a cost such as `kJ` or `1000 visits`."""
    number, _, name = text.strip().rpartition(" ")
    factor, unit = _UNITS[name]
    return factor * float(number or 1), unit

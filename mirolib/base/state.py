"""State of a run's parts as plain values: numbers, texts, lists and dicts, and arrays and tensors among them.

Nothing of it is code: what was read back is checked against the types that are declared here and in the parts.
"""

from functools import cache
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from mirolib.base.errors import InputError

State = dict[str, Any]
"""What a part gives in `state()` and takes back in `restore(state)`."""

_DTYPES = ("int64", "float64", "bool", "object", "str")
_Cell = bool | int | float | str | None  # said to pydantic, or infinities would become None


def _table_out(table: pd.DataFrame) -> dict[str, int | dict[str, tuple[str, list[_Cell]]]]:
    columns = {str(name): (str(column.dtype), column.tolist()) for name, column in table.items()}
    return {"rows": len(table), "columns": columns}


def _table_in(value: Any) -> pd.DataFrame:
    if isinstance(value, pd.DataFrame):
        return value
    try:
        if wrong := [dtype for dtype, _ in value["columns"].values() if dtype not in _DTYPES]:
            raise ValueError(f"no column of type {wrong[0]!r}")
        columns = {name: pd.Series(entries, dtype=dtype) for name, (dtype, entries) in value["columns"].items()}
        if any(len(column) != value["rows"] for column in columns.values()):
            raise ValueError("columns of different lengths")
        return pd.DataFrame(columns)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"no table ({error})") from error


Table = Annotated[pd.DataFrame, PlainValidator(_table_in), PlainSerializer(_table_out)]
"""A DataFrame of numbers and texts that can be part of a state."""


def _array_of(dtype: str) -> PlainValidator:
    def check(value: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 1:
            raise ValueError(f"no array of {dtype}")
        return value

    return PlainValidator(check)


Ids = Annotated[np.ndarray, _array_of("int64")]
"""An array `(n,) int64` in a state."""
Floats = Annotated[np.ndarray, _array_of("float64")]
"""An array `(n,) float64` in a state."""
Flags = Annotated[np.ndarray, _array_of("bool")]
"""An array `(n,) bool` in a state."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dumped(kind: Any, value: object) -> Any:
    """A value of a dataclass or of a type such as `list[Reading]` as plain values."""
    return _adapter(kind).dump_python(value)


def loaded(kind: Any, value: object) -> Any:
    """The inverse of `dumped`; an `InputError` names the first difference where the value does not have the type."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        what = " ".join(first["msg"].split())
        raise InputError(f"The state of {kind} can't be used: {place}: {what}.") from error


def generator_of(state: Any) -> np.random.Generator:
    """A NumPy generator in a state that `rng.bit_generator.state` gave; an `InputError` if it is none."""
    rng = np.random.default_rng(0)
    try:
        rng.bit_generator.state = state
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"This is no state of a random generator: {error}.") from error
    return rng

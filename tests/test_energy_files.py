import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirolib import InputError, TraceSource
from mirolib.energy.calibration import _TERMS, FORMAT, PowerModel

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def trace_inputs() -> st.SearchStrategy[bytes]:
    """Power traces: random bytes, and the right columns over anything."""
    cells = st.sampled_from(["0", "1.5", "2", "3", "", "nan", "inf", "-1", "1e999", "x", '"', "total", "9" * 30])
    rows = st.lists(st.lists(cells, min_size=2, max_size=4), max_size=6)
    heads = st.sampled_from(["time_s,power_w", "time_s,rail,power_w", "power_w,time_s,power_w"])
    near = st.builds(lambda head, rows: "\n".join([head, *(",".join(row) for row in rows)]).encode(), heads, rows)
    return st.binary(max_size=60) | near


def calibration_inputs() -> st.SearchStrategy[bytes]:
    """Calibrations: random bytes, and near misses."""
    near = st.fixed_dictionaries(
        {"format": st.just(FORMAT)},
        optional={name: st.floats() | VALUES for name in (*_TERMS, "error")}
        | {name: VALUES for name in ("parts", "machine", "scope", "kind", "other")},
    )
    return st.binary(max_size=60) | (near | VALUES).map(lambda content: json.dumps(content).encode())


def read_or_refused(path: Path, content: bytes) -> None:
    """Reads a file of any content by its name."""
    path.write_bytes(content)
    try:
        if path.suffix == ".csv":
            TraceSource.from_csv(path).measure(0.0, 1.0)
        else:
            PowerModel.load(path)
    except InputError as error:
        assert "\n" not in str(error) and path.name in str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=trace_inputs())
def test_any_power_trace_is_read_or_refused(tmp_path, content):
    read_or_refused(tmp_path / "any.csv", content)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=calibration_inputs())
def test_any_calibration_is_read_or_refused(tmp_path, content):
    read_or_refused(tmp_path / "any.json", content)

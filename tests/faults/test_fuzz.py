import json
import string
import warnings
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mirolib import InputError, TraceSource, comparison_plots as plots
from mirolib.energy.sensors.model import FORMAT, PowerModel
from mirolib.workbench import compare as comparison
from mirolib.workbench.compare import MixedEnergyWarning, over_seeds, select
from mirolib.workbench.run import _NUMBERS, _TEXTS as _TEXT_COLUMNS, Run, load_run, open_run
from mirolib.workbench.sweep_plan import make_plan, read_entries

NUMBERS = st.recursive(
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
        optional={field.name: st.floats() | NUMBERS for field in fields(PowerModel)} | {"other": NUMBERS},
    )
    return st.binary(max_size=60) | (near | NUMBERS).map(lambda content: json.dumps(content).encode())


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


_WORDS = st.sampled_from(["notebook", "10_run", "grid", "seeds", "name", "parameters", "epochs", "lr", "seed", "model"])
_TEXTS = _WORDS | st.text(string.printable, max_size=12) | st.text(max_size=8)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=8
)
"""Whatever JSON or YAML can hold, near to what is meant to stand there."""


def refused_or_read(path: Path, content: bytes) -> None:
    """The one thing a reader of sweeps may do with what it does not like."""
    path.write_bytes(content)
    try:
        assert len(make_plan(**read_entries(path)).members) >= 1
    except InputError as error:
        assert str(error)


def yaml_inputs() -> st.SearchStrategy[bytes]:
    """Sweep files: random bytes, random lines, and near misses."""
    near = st.fixed_dictionaries(
        {"notebook": st.just("10_run") | VALUES},
        optional={"grid": st.dictionaries(_TEXTS, VALUES, max_size=2) | VALUES, "seeds": VALUES, "name": VALUES},
    )
    lines = st.lists(st.tuples(_TEXTS, _TEXTS), max_size=5).map(lambda rows: "\n".join(f"{a}: {b}" for a, b in rows))
    return st.binary(max_size=60) | lines.map(lambda t: t.encode(errors="replace")) | near.map(
        lambda content: json.dumps(content).encode()
    )  # fmt: skip


def read_whatever(path: Path, content: tuple[bytes, bytes]) -> tuple[pd.DataFrame, Run]:
    """The readers of a run's folder, on files of any content."""
    run, table = content
    path.mkdir(exist_ok=True)
    (path / "run.json").write_bytes(run)
    for name in _NUMBERS:
        (path / f"{name}.csv").write_bytes(table)
    row, opened = load_run(path / "run.json"), open_run(path)
    assert row["run_id"] == path.name and isinstance(row["status"], str) and row["path"] == str(path)
    assert row["status"] != "unreadable" or row["error"]
    runs = pd.DataFrame([row, {"status": "finished", "run_id": "a", "final_accuracy": 0.5, "path": str(path)}])
    select(runs, {"status": "finished"})
    over_seeds(runs)
    return runs, opened


def run_inputs() -> st.SearchStrategy[bytes]:
    """Contents of `run.json`: random bytes and near misses."""
    near = st.fixed_dictionaries(
        {
            "format": st.just(1),
            "status": st.sampled_from(["finished", "running"]) | VALUES,
            "started": VALUES,
            "duration_s": st.floats() | VALUES,
            "parameters": st.dictionaries(st.sampled_from(["seed", "dataset", "path", "status"]), VALUES) | VALUES,
            "summary": st.dictionaries(st.sampled_from([*comparison.MEASURES, "energy_kind"]), VALUES) | VALUES,
        },
        optional={"error": VALUES, "environment": st.dictionaries(st.sampled_from(["host", "pid"]), VALUES)},
    )
    return st.binary(max_size=40) | (near | VALUES).map(lambda content: json.dumps(content).encode())


def table_inputs() -> st.SearchStrategy[bytes]:
    """Contents of a table: random bytes, and the right columns over anything."""
    columns = sorted({*sum(_NUMBERS.values(), ()), *sum(_TEXT_COLUMNS.values(), ()), "accuracy_0"})
    cells = st.sampled_from(["0", "1.5", "", "nan", "inf", "-1", "1e999", "x", '"', "train", "9" * 30, "measured"])
    lines = st.lists(st.lists(cells, min_size=len(columns) - 1, max_size=len(columns) + 1), max_size=3)
    return st.binary(max_size=40) | lines.map(
        lambda rows: "\n".join([",".join(columns), *(",".join(row) for row in rows)]).encode()
    )


def read_and_drawn(path: Path, content: tuple[bytes, bytes]) -> None:
    """The readers of a run's folder and the plots of what they find."""
    runs, opened = read_whatever(path, content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedEnergyWarning)
        plots.accuracy_over_energy(runs)
    for draw in (plots.configurations, plots.accuracy_matrices, plots.energy_of_phases):
        draw({"a": opened})


RUNS = st.tuples(run_inputs(), table_inputs())
READERS = {  # what is read, from where, and what may stand there
    "power traces": (read_or_refused, "any.csv", trace_inputs()),
    "calibrations": (read_or_refused, "any.json", calibration_inputs()),
    "sweep files": (refused_or_read, "any.yml", yaml_inputs()),
    "run folders (run.json and five tables)": (read_whatever, "10_run", RUNS),
    "run folders, drawn": (read_and_drawn, "10_run", RUNS),
}


def fuzz(what: str, inputs: int, folder: Path) -> None:
    """Tries so many contents; one that is neither read nor refused with a sentence ends it."""
    read, name, contents = READERS[what]

    @settings(max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(content=contents)
    def tried(content) -> None:
        read(folder / name, content)

    tried()


@pytest.mark.parametrize(
    ("what", "inputs"),
    [("power traces", 100), ("calibrations", 100), ("sweep files", 60), ("run folders, drawn", 20)],
)
def test_whatever_is_handed_in_is_read_or_refused(tmp_path, what, inputs):
    fuzz(what, inputs, tmp_path)

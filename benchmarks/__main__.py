"""`python -m benchmarks [NAME ...] [--write]`: runs all or some of the benchmarks and prints one table."""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

import pandas as pd

from benchmarks.common import machine

NAMES = (
    "data_path", "step_overhead", "storage_reads", "peak_ram", "energy_sampling", "scale", "jpeg_path", "run_index",
    "dashboard",
)  # fmt: skip
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
INTRODUCTION = (
    "Written by `python -m benchmarks --write`. A row with a bar says whether the bar is met; the others show what "
    "it is made of. For the peer, install the extra `bench`, or name an interpreter that has it in the environment "
    "variable `MIRO_BENCH_PYTHON`."
)


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures what the library costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(NAMES)}; default all")
    parser.add_argument("--write", action="store_true", help=f"write the result to docs/{PAGE.name} too")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    line, start = machine(), time.monotonic()
    tables = {name: import_module(f"benchmarks.{name}").run() for name in names}
    joined = pd.concat([table.assign(benchmark=name) for name, table in tables.items()])
    joined["value"] = joined["value"].map(_figure)
    print(joined.set_index("benchmark").to_string())  # noqa: T201
    print(f"\n{line}\n{time.monotonic() - start:.0f} s")  # noqa: T201
    if arguments.write:
        found = PAGE.read_text(encoding="utf-8").split("\n## ")[1:] if PAGE.exists() else []
        old = {section.partition("\n")[0]: section.partition("\n")[2].strip() for section in found}
        new = {name: _section(name, table, line) for name, table in tables.items()}
        sections = [f"## {name}\n\n{(old | new)[name]}" for name in NAMES if name in old | new]
        PAGE.write_text("\n\n".join(["# Benchmarks", INTRODUCTION, *sections]) + "\n", encoding="utf-8")


def _figure(value: float) -> str:
    """A value to four figures."""
    return "" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _section(name: str, table: pd.DataFrame, line: str) -> str:
    """A benchmark's part of the page: its method, which is its module's docstring, the machine, and its table."""
    title, _, method = (import_module(f"benchmarks.{name}").__doc__ or "").strip().partition("\n\n")
    shown = table.assign(value=table["value"].map(_figure))
    rows = [table.columns.tolist(), ["---"] * len(table.columns), *shown.to_numpy().tolist()]
    grid = "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows)
    return "\n\n".join([title, " ".join(method.split()), f"Machine: {line}", grid])


if __name__ == "__main__":
    main()

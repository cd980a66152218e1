"""Reading 500 runs, as the comparison of runs begins.

Copies of one finished run on the digits, with seeds and sizes of their own, read by `load_runs`; then their averages
over seeds. Medians of five.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.common import row, seconds, table
from mirolib import RunSettings, load_runs, over_seeds, run_experiment
from mirolib.workbench.run import SUMS

RUNS = 500


def run() -> pd.DataFrame:
    """Times the reading."""
    with TemporaryDirectory(prefix="miro-bench-") as results:
        settings = RunSettings(controller="fixed", tasks=2, epochs=1, energy="none")
        _copy(run_experiment(settings, results=results, progress=False).path)
        load_s = median(seconds(lambda: load_runs(results)) for _ in range(5))
        runs = load_runs(results)
        average_s = median(seconds(lambda: over_seeds(runs)) for _ in range(5))
    return table(
        [
            row(f"load_runs, {len(runs)} runs", load_s, "s", at_most=2.0),
            row("over_seeds of them", average_s, "s"),
        ]
    )


def _copy(run: Path) -> None:
    """Makes it `RUNS` runs, with seeds and sizes of their own."""
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / SUMS).unlink()
    for number in range(1, RUNS):
        other = shutil.copytree(run, run.with_name(f"copy{number}"))
        content["parameters"] |= {"seed": number % 5, "episodic_size": number // 5}
        (other / "run.json").write_text(json.dumps(content), encoding="utf-8")

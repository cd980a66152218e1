"""Adaptation on CIFAR-shaped data: `python -m benchmarks.adaptation`, a few minutes.

Runs of the Miro controller on the data set of `benchmarks.controller` (cifar100, three seeds): undisturbed; under a
memory budget that falls to a quarter in the middle of a task and comes back two tasks later; with reads from storage
throttled for two tasks; and with a cold page cache and two real competitors that write, sync and read the same disk
meanwhile. Reported are the epochs in which the buffers' bytes were over the budget, the last of the thirty
disturbed epochs in which training waited longer than the threshold (a higher ratio is tried again at ever longer
intervals, so that single later epochs do), and the final accuracy against the undisturbed run. With fixed sizes and
full swapping for comparison. Energy isn't measured.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import machine
from benchmarks.controller import load
from mirolib import RunResult, RunSettings, run_experiment
from mirolib.controller import CongestionPolicy
from mirolib.experiment.injectors import competing, throttling

SEEDS = (20, 21, 22)
PAGE = Path(__file__).parents[1] / "docs" / "adaptation.md"
THRESHOLD = CongestionPolicy().threshold


def main() -> None:
    """Runs all of it and writes docs/adaptation.md."""
    dataset, options = load("cifar100")
    epochs, rows = int(options["epochs"]), []  # type: ignore[call-overload]
    first, last = 2 * epochs, 4 * epochs
    budget = f"0: 1200 samples, {first + 5}: 300 samples, {last + 5}: 1200 samples"
    for seed in SEEDS:
        base = RunSettings(
            seed=seed, energy="none", memory_budget="1200 samples", selector="highest-accuracy", **options
        )  # type: ignore[arg-type]
        fixed = replace(
            base, controller="fixed", swap_ratio=1.0, stream_size=450, episodic_size=750,
            memory_budget="",
        )  # fmt: skip
        cases = {
            "undisturbed": (base, None),
            "budget falls to a quarter": (replace(base, memory_budget=budget), None),
            "throttle, adapting": (base, throttling(first, last, 5e5)),
            "throttle, fixed": (fixed, throttling(first, last, 5e5)),
            "competitors, adapting": (base, competing(first, last, 2)),
            "competitors, fixed": (fixed, competing(first, last, 2)),
            "undisturbed, fixed": (fixed, None),
        }
        for name, (settings, disturb) in cases.items():
            with tempfile.TemporaryDirectory(dir=PAGE.parents[1] / "results") as results:
                result = run_experiment(settings, dataset=dataset, results=results, disturb=disturb, progress=False)
            rows.append({"seed": seed, "case": name, **_facts(result, first, last)})
    table = pd.DataFrame(rows)
    means = table.drop(columns="seed").groupby("case", sort=False).mean().round(3)
    text = [
        "# Adapting to resources",
        " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        f"Machine: {machine()}",
        "Means over seeds:",
        means.to_markdown(),
        "By seed:",
        table.round(3).to_markdown(index=False),
    ]
    PAGE.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(means.to_string())  # noqa: T201


def _facts(result: RunResult, first: int, last: int) -> dict[str, float]:
    """What is reported of a run."""
    epochs, events = result.epochs, result.events
    disturbed = epochs["stall_share"].to_numpy()[first:last]
    above = np.flatnonzero(disturbed > THRESHOLD)
    over = events["memory_bytes"] > events["memory_budget_bytes"] if len(events) else pd.Series(dtype=bool)
    return {
        "final accuracy, %": 100 * float(result.summary["final_accuracy"]),  # type: ignore[arg-type]
        "epochs over the budget": float(over.sum()),
        "largest wait, % of an epoch": 100 * disturbed.max(),
        "last disturbed epoch with a wait above the threshold": float(above.max() + 1) if len(above) else 0.0,
        "waited, s": float(result.summary["stall_s"]),  # type: ignore[arg-type]
        "lowest swap ratio": epochs["swap_ratio"].min(),
        "swap ratio at the end": epochs["swap_ratio"].iloc[-1],
    }


if __name__ == "__main__":
    main()

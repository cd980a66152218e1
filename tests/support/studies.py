"""Runs of the paper's studies, as their notebooks leave them."""

import pandas as pd

from mirolib import RunFolder

ENERGY = {"learning_work": [100.0, 50.0], "learning_energy_j": [None, None], "energy_kind": ["none", "none"]}
TABLES = {
    "swapping-er-digits": ("runs", {
        "episodic_size": [20, 20, 20, 20, 100, 100], "swap_ratio": [0.0, 0.2, 1.0, 1.0, 0.0, 1.0],
        "final_accuracy": [0.5, 0.68, 0.69, 0.71, 0.8, 0.85], "method": ["er"] * 6,
    }),
    "allocation-digits": ("runs", {
        "stream_size": [10, 20, 10, 20], "episodic_size": [10, 10, 10, 10], "tasks_done": [1, 1, 2, 2],
        "final_accuracy": [0.9, 0.8, 0.5, 0.7], "learning_work": [10.0, 20.0, 20.0, 60.0],
        "learning_energy_j": [None] * 4, "energy_kind": ["none"] * 4,
    }),
    "over-time-digits": ("table", {
        "seed": [0, 0, 0], "task": [0, 1, 2], "stream_size": [5, 5, 9], "episodic_size": [1, 5, 9],
        "chosen": [True, True, True], "accuracy": [1.0, 0.9, 0.9], "cost": [1.0, 2.0, 3.0],
    }),
    "baselines-digits": ("table", {
        "setting": ["whole memory", "miro, gain-per-joule"], "final_accuracy": [0.80, 0.82], **ENERGY,
    }),
    "generality-digits": ("table", {
        "dataset": ["digits"] * 4, "setting": ["single-level", "tiered, full swapping (CarM)", "whole memory", "Miro"],
        "final_accuracy": [0.6, 0.7, 0.9, 0.8], "learning_work": [1.0, 1.0, 4.0, 1.0],
    }),
    "scalability": ("tasks", {
        "task": range(10), "stored": range(100, 1100, 100), "train_visits": [10] * 10,
        "train_s": [1.0] * 5 + [2.0] * 5,
    }),
    "adaptation-digits": ("table", {
        "run": ["calm", "budget falls and rises", "throttled", "throttled, fixed"],
        "final_accuracy": [0.9, 0.8, 0.85, 0.9], "stall_s": [0.0, 0.0, 1.0, 5.0], "train_s": [1.0] * 4,
        "lowest_swap_ratio": [1.0, 1.0, 0.25, 1.0],
    }),
}  # fmt: skip


def leave(results, study, status="finished", change=lambda table: table, run_id=""):
    """A run of a study as its notebook leaves it; the file of its table."""
    name, columns = TABLES[study.name]
    folder = RunFolder(study.notebook, dict(study.parameters), results=results, run_id=run_id or study.run_id)
    file = folder.write_table(name, change(pd.DataFrame(columns)))
    folder.end(status, None if status == "finished" else "RunError: <b>no luck</b>")
    return file

"""Fifty tasks in one process: resident memory, open files and threads after each.

Random images of 100 classes, two new ones a task, learnt by a linear model with swapping. The data set and the buffers
are as large at the first task as at the last. What may grow: the marks of what is stored, a byte a sample, the head of
the model, and the records of the run; growth is counted from the fifth task on, when the libraries have settled.
"""

from __future__ import annotations

import gc
import threading
from tempfile import TemporaryDirectory

import pandas as pd
import psutil

from benchmarks.common import random_images, row, table
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.settings import RunSettings

TASKS, PER_CLASS, SETTLED = 50, 40, 5


def run() -> pd.DataFrame:
    """Learns the tasks."""
    process, found = psutil.Process(), []
    with TemporaryDirectory(prefix="miro-bench-") as store:
        experiment = Experiment.build(_settings(), store, random_images(PER_CLASS, classes=2 * TASKS))
        for _ in experiment.run(progress=False):
            gc.collect()
            memory = process.memory_info()
            found.append((memory.rss - memory.shared, process.num_fds(), threading.active_count()))
    first, last = found[SETTLED - 1], found[-1]
    return table(
        [
            row("tasks", len(found), "tasks", at_least=TASKS),
            row(f"private resident memory after task {SETTLED}", first[0] / 1e6, "MB"),
            row(f"private resident memory after task {TASKS}", last[0] / 1e6, "MB"),
            row("growth a task", (last[0] - first[0]) / 1e3 / (TASKS - SETTLED), "kB"),
            row("open files more", last[1] - first[1], "files", at_most=0),
            row("threads more", last[2] - first[2], "threads", at_most=0),
        ]
    )


def _settings() -> RunSettings:
    return RunSettings(
        controller="fixed",
        model="linear",
        tasks=TASKS,
        stream_size=50,
        episodic_size=200,
        swap_ratio=1.0,
        epochs=2,
        batch_size=32,
        lr=0.01,
        device="cpu",
        energy="none",
    )


if __name__ == "__main__":
    print(run().to_string())  # noqa: T201

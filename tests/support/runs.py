"""Runs to compare."""

import pandas as pd

from mirolib import RunSettings

TIMES = ["stall_s", "stall_share", "duration_s", "train_s"]


def facts(result):
    """Everything of a run but its times and energies."""
    tables = (result.tasks, result.epochs, result.events, result.trials)
    return [table.drop(columns=[c for c in table if c in TIMES or "energy" in c]) for table in tables]


def assert_same(one, other):
    for mine, theirs in zip(facts(one), facts(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


QUICK = RunSettings(epochs=2, tasks=3, controller="miro-2023")  # two records of epochs at each task, and a table

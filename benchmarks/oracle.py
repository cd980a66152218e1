"""Miro's choices against an oracle's: `python -m benchmarks.oracle DATASET SEED [TASKS]`, then `generality_report`.

At each task of a data set's preset `small` (the first TASKS of them; all by default) every candidate of a grid of eight
is trained in full, twice with other draws, from a copy of the live model and memory, and scored on the test set, for
this report only. Utility is the default selector's, accuracy gained per sample visit of the task's training. The oracle
takes the candidate of highest utility among those that its cutline leaves; Miro has taken its own before, by its probe.
Where Miro's has more utility than the oracle's, which the cutline allows, the ratio counts as 1, and where it gains
nothing as 0; what it loses in accuracy and costs more stands beside, since a cheap candidate below the cutline can have
any utility. The ceiling is what the same oracle reaches when it chooses by one training and is judged by the other: no
choice that is made before training can be expected to do better.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.miro_2023 import Measured
from mirolib import RunSettings
from mirolib.controller import SELECTORS, Miro2023Controller, SelectionContext
from mirolib.experiment.experiment import Experiment

FOLDER = Path(__file__).parents[1] / "results" / "oracle"
CANDIDATES = 8
"""As few as the probe's smoothing still works with."""
RERUNS = 2
"""How often each is trained."""


def measure(name: str, seed: int, tasks: int | None = None) -> None:
    """The candidates of one seed's tasks, as a table, unless there is one already."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}-{seed}.csv"
    if file.exists():
        return
    with tempfile.TemporaryDirectory() as store:
        experiment = Experiment.build(RunSettings(name, seed=seed, energy="none", controller="miro-2023"), store)
        inner = Miro2023Controller(num_tasks=len(experiment.stream), seed=seed, grid_limit=CANDIDATES)
        measured = Measured(inner, experiment.stream, seed, others={}, reruns=RERUNS)
        list(islice(replace(experiment, controller=measured).run(progress=False), tasks))
    pd.DataFrame(measured.rows).to_csv(file, index=False)


def ratios(task: pd.DataFrame) -> tuple[float, float]:
    """Utility over that of the oracle's candidate, for the candidates of one task, the mean over judging trainings.

    Returns:
        That of what Miro took, and that of what the oracle takes by another training.
    """
    judged = [_judged(task, rerun) for rerun in range(RERUNS)]
    ours = task.index[task["chosen"]][0]
    others = [judged[rerun - 1][0] for rerun in range(RERUNS)]
    return (
        float(np.mean([_share(utility, ours, best) for best, utility in judged])),
        float(np.mean([_share(utility, other, best) for (best, utility), other in zip(judged, others, strict=True)])),
    )


def differences(task: pd.DataFrame) -> tuple[float, float]:
    """What Miro's choice at a task loses against the oracle's, and what it costs more; means over choosing trainings.

    Returns:
        Points of accuracy, by both trainings, and the logarithm of cost over cost.
    """
    accuracy = task[[f"full_{rerun}" for rerun in range(RERUNS)]].mean(axis=1)
    ours = task.index[task["chosen"]][0]
    theirs = [_judged(task, rerun)[0] for rerun in range(RERUNS)]
    lost = 100 * (accuracy[theirs] - accuracy[ours]).mean()
    return float(lost), float(np.log(task["cost"][ours] / task["cost"][theirs]).mean())


def _judged(task: pd.DataFrame, rerun: int) -> tuple[object, pd.Series]:
    """The oracle's candidate by one training, and the utility of all."""
    true = task.assign(accuracy=task[f"full_{rerun}"])
    ranked = SELECTORS["gain-per-joule"].rank(true, SelectionContext(accuracy_now=float(task["now"].iloc[0])))
    return ranked.index[0], ranked["utility"]


def _share(utility: pd.Series, ours: object, best: object) -> float:
    """One utility over another, from 0 to 1; unknown where nothing gains."""
    return min(1.0, max(0.0, float(utility[ours] / utility[best]))) if utility[best] > 0 else float("nan")


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:4]))

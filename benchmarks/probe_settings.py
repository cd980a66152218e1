"""How the probe was set: `python -m benchmarks.probe_settings DATASET SEED`, on training samples alone.

A fifth of the training samples is held out and takes the test set's place; the test samples are not looked at. In a run
of `miro-2023` (preset `small`, the first four tasks) each of eight candidates is trained in full, twice, from copies of
the live model and memory, and every setting of the probe ranks them. `benchmarks.miro_2023_report` puts the rank
correlations on its page. Seeds are others than those that any page reports.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.miro_2023 import Measured
from benchmarks.oracle import CANDIDATES
from benchmarks.presets import HELD_OUT
from mirolib import Dataset, RunSettings, load_dataset
from mirolib.controller import Miro2023Controller, ProbeProfiler
from mirolib.experiment.experiment import Experiment

FOLDER = Path(__file__).parents[1] / "results" / "probe_settings"
TASKS = 4
SETTINGS = {
    f"swapping {'taken into account' if swapping else 'left out'}, penalty {penalty}, size weight {weight}": (
        ProbeProfiler(swapping=swapping, penalty=penalty, size_weight=weight)
    )
    for swapping, penalty, weight in product((False, True), (0.01, 0.1), (0.5, 1.0))
}


def held_out(dataset: Dataset, seed: int) -> Dataset:
    """The data set with a fifth of each class's training samples, drawn by the seed, for its test set."""
    rng, labels = np.random.default_rng(seed), dataset.train.labels
    of_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    cuts = [round(HELD_OUT * len(positions)) for positions in of_class]
    test = np.sort(np.concatenate([positions[:cut] for positions, cut in zip(of_class, cuts, strict=True)]))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return replace(
        dataset, train=dataset.train.select(train, labels[train]), test=dataset.train.select(test, labels[test])
    )


def measure(name: str, seed: int) -> None:
    """The candidates of one seed's tasks under every setting, as a table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    dataset = held_out(load_dataset(name), seed)
    with tempfile.TemporaryDirectory() as store:
        experiment = Experiment.build(
            RunSettings(name, seed=seed, energy="none", controller="miro-2023"), store, dataset
        )
        inner = Miro2023Controller(num_tasks=len(experiment.stream), seed=seed, grid_limit=CANDIDATES)
        measured = Measured(inner, experiment.stream, seed, others=SETTINGS)
        list(islice(replace(experiment, controller=measured).run(progress=False), TASKS))
    rows = pd.DataFrame(measured.rows).join(pd.DataFrame(measured.profile).T, on="task")
    rows.to_csv(FOLDER / f"candidates-{name}-{seed}.csv", index=False)


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))

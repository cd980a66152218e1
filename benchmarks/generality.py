"""Miro against baselines on every data set: `python -m benchmarks.generality measure DATASET SEED`, then `report`.

Each data set is read from the folder that MIRO_DATA names, in its preset `small`. Settings: an episodic memory without
storage below it and one with swapping, at the preset's sizes and, called small, at a quarter of its episodic memory;
whole memory; sizes drawn from Miro's grid; and Miro with its default selector. A further word takes only settings whose
name holds it; what results/generality has already is not measured anew. `report` writes docs/generality.md. Cost is
work, in sample visits, a forward pass alone counting as a third, profiling included and evaluation left out.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mirolib import Dataset, RunSettings, load_dataset, summarise
from mirolib.experiment.experiment import Experiment

FOLDER = Path(__file__).parents[1] / "results" / "generality"
SETS = ("cifar100", "tiny-imagenet", "dsads", "urbansound8k", "imagenet1k")
SINGLE_LEVEL, TIERED = "single-level", "tiered, full swapping (CarM)"


def small_episodic(dataset: Dataset) -> int:
    """The size that the small episodic memory has."""
    return max(dataset.spec.preset().episodic_size // 4, 10)


def settings(dataset: Dataset, seed: int) -> dict[str, RunSettings]:
    """The runs of one data set by the name they get in the table."""
    base = {"dataset": dataset.spec.name, "seed": seed, "energy": "none"}
    found = {}
    for which, size in (("small", small_episodic(dataset)), ("the preset's", None)):
        fixed = base | {"controller": "fixed", "episodic_size": size}
        found[f"{which} memory, {SINGLE_LEVEL}"] = RunSettings(**fixed, memory="single-level")
        found[f"{which} memory, {TIERED}"] = RunSettings(**fixed, swap_ratio=1.0)
    return found | {
        "whole memory": RunSettings(**base, controller="whole-budget"),
        "random sizes": RunSettings(**base, controller="random"),
        "Miro": RunSettings(**base, controller="miro-2023"),
    }


def measure(name: str, seed: int, word: str = "") -> None:
    """The runs of one data set and seed that results/generality does not have yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}-{seed}.csv"
    dataset, rows = load_dataset(name), pd.read_csv(file).to_dict("records") if file.exists() else []
    for label, chosen in settings(dataset, seed).items():
        if word not in label or any(row["setting"] == label for row in rows):
            continue
        with tempfile.TemporaryDirectory() as store:
            experiment = Experiment.build(chosen, store, dataset)
            found = asdict(experiment.settings) | summarise(list(experiment.run(progress=False)))
        rows.append({"setting": label, **found})
        pd.DataFrame(rows).to_csv(file, index=False)


if __name__ == "__main__":
    _, command, *words = sys.argv
    if command != "measure":
        sys.exit(f"{command} is no command; write measure, or python -m benchmarks.generality_report for the page")
    measure(words[0], int(words[1]), *words[2:3])

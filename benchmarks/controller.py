"""How well the controller spends work: `python -m benchmarks.controller measure DATASET SEED`.

`python -m benchmarks.controller_report` makes the page of it.

Every row is a whole run. *Front*: six works, the same for each task, times three mixes of old and new samples, with few
slots and full swapping; what is cheapest at an accuracy among their means is the hindsight front, known to nobody who
has to choose. *Miro* under each objective, the paper's controller and the simple rules, one word each. *Splits*: the
work of an energy budget shared out over the tasks in four ways that do not look. Cost is work, in sample visits, all
that learning took, profiling and looks included (a forward pass alone counts as a third).

Settings of the controller are chosen by runs with seeds below 300 on digits, DSADS and CIFAR-100 (preset small), which
never see the test samples: a fifth of the training samples stands in for them. Reported are seeds of 310 and up.
Tiny-ImageNet was not looked at. Data sets are read from the folder that MIRO_DATA names; what
benchmarks/measured/controller has is kept. `ram` measures shares of a memory budget for the stream buffer, at low swap
ratios, on digits, seeds 200 to 204.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mirolib import Dataset, Decision, FixedController, Preset, RunSettings, load_dataset, run_all, summarise
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task
from mirolib.experiment.experiment import Experiment
from mirolib.learning.learner import Learner
from mirolib.memory.rotation import least_slots
from mirolib.memory.tiered import TieredMemory

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "measured" / "controller"
RAM = FOLDER.with_name("controller_ram.csv")
SETS = {"digits": "small", "dsads": "small", "cifar100": "medium", "tiny-imagenet": "small"}
"""Data sets and their presets."""
WORKS = (1 / 16, 1 / 9.2, 1 / 5.3, 1 / 3, 1 / 1.74, 1)
MIXES = (1, "sqrt", "classes")
TARGETS = {"digits": (0.95, 0.98), "dsads": (0.9, 0.97), "cifar100": (0.3, 0.4), "tiny-imagenet": (0.15, 0.25)}
BUDGETS = (1 / 8, 1 / 3)
"""Energy budgets, as shares of the preset's work."""
RULES = ("share", "everything", "tuned", "random", "whole-budget", "carm", "miro-2023")


@dataclass(frozen=True)
class Planned(FixedController):
    """Fixed sizes, and epochs for each task that were set beforehand."""

    plan: tuple[float, ...] = ()

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """The fixed sizes and the task's epochs."""
        return replace(super().choose(task, learner, memory, resources), epochs=self.plan[task.index])


def splits(tasks: int) -> dict[str, np.ndarray]:
    """Epochs of each task in four ways, in proportion; an epoch of a later task has more replayed samples."""
    growth = np.geomspace(0.5, 2, tasks)
    return {"uniform": np.ones(tasks), "late": growth, "early": growth[::-1], "equal visits": 1 / epoch_visits(tasks)}


def epoch_visits(tasks: int) -> np.ndarray:
    """Sample visits in an epoch of each task, for each of its samples."""
    return 1 + np.sqrt(np.arange(tasks))


def chosen_on(name: str, seed: int) -> tuple[Dataset, str]:
    """A data set and its preset: small and with held-out samples in the place of the test's, for seeds of choosing."""
    choosing = seed < 300
    preset = "small" if choosing else SETS[name]
    dataset = load_dataset(name, preset=preset)
    if choosing:
        order = np.random.default_rng(seed).permutation(len(dataset.train))
        held = order[: len(order) // 5]
        train, test = dataset.train.select(np.setdiff1d(order, held)), dataset.train.select(held)
        dataset = replace(dataset, train=train, test=test, fingerprint=f"{dataset.fingerprint}/held-out {seed}")
    return dataset, preset


def rows(name: str, dataset: Dataset, preset: Preset) -> dict[str, tuple[dict[str, object], np.ndarray | None]]:
    """Settings of every row of a data set by its label, and its epochs by task where they are planned."""
    slots = least_slots(preset.batch_size, 1.0)
    fixed = {"controller": "fixed", "swap_ratio": 1.0, "stream_size": slots,
             "episodic_size": max(slots, 2 * len(dataset.class_names))}  # fmt: skip
    found: dict[str, tuple[dict[str, object], np.ndarray | None]] = {}
    for work in WORKS:
        for mix in MIXES:
            options = fixed | {"epochs": round(preset.epochs * work, 4), "replay_ratio": mix}
            found[f"front {work:.3f} {mix}"] = options, None
    found["miro knee"] = {"controller": "miro"}, None
    for target in TARGETS[name]:
        found[f"miro accuracy={target}"] = {"controller": "miro", "objective": f"accuracy={target}"}, None
    samples, each = round(0.9 * len(dataset.train) / preset.tasks), epoch_visits(preset.tasks)
    for share in BUDGETS:
        visits = share * preset.epochs * samples * each.sum()
        objective = f"energy_budget={visits:.0f} visits"
        found[f"miro energy_budget {share:.3f}"] = {"controller": "miro", "objective": objective}, None
        for split, proportions in splits(preset.tasks).items():
            plan = proportions * visits / samples / (proportions * each).sum()
            found[f"split {split} {share:.3f}"] = fixed, plan
    return found | {rule: ({"controller": rule}, None) for rule in RULES}


def measure(name: str, seed: int, word: str = "") -> None:
    """Every row of a data set, or those with a word in their labels, with one seed, as far as they are not there."""
    (dataset, preset), file = chosen_on(name, seed), FOLDER / f"{name}-{seed}.csv"
    FOLDER.mkdir(parents=True, exist_ok=True)
    done = pd.read_csv(file).to_dict("records") if file.exists() else []
    for label, (options, plan) in rows(name, dataset, dataset.spec.preset(preset)).items():
        if word not in label or label in {row["row"] for row in done}:
            continue
        settings = RunSettings(name, preset=preset, seed=seed, energy="none", **options)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as store:
            experiment, start = Experiment.build(settings, store, dataset), time.monotonic()
            if plan is not None:
                controller = Planned(experiment.memory.config, tuple(plan.tolist()))
                experiment = replace(experiment, controller=controller)
            records = list(experiment.run(progress=False))
        found = summarise(records)
        forecasts = [
            [*record.trials.loc[record.trials["chosen"], ["accuracy", "low", "high"]].iloc[0], record.average_accuracy]
            for record in records
            if "low" in record.trials
        ]
        looks = float(found["profile_visits"]) + float(found["profile_forward_visits"]) / 3  # type: ignore[arg-type]
        done.append({
            "data": name, "seed": seed, "row": label, "final": found["final_accuracy"],
            "incremental": found["average_incremental_accuracy"], "cost": found["learning_work"], "deciding": looks,
            "train_visits": found["train_visits"], "memory_bytes": records[-1].memory_bytes,
            "epochs": " ".join(f"{record.epochs[-1].epochs_done:.4g}" for record in records),
            "forecasts": json.dumps(np.round(forecasts, 4).tolist()), "s": round(time.monotonic() - start, 1),
        })  # fmt: skip
        pd.DataFrame(done).to_csv(file, index=False)


def ram() -> None:
    """Accuracy by swap ratio, slots and the stream buffer's share of them, at a quarter of the preset's work."""
    plan = {
        (ratio, slots, share): {"swap_ratio": ratio, "stream_size": max(int(slots * share), 26)}
        for ratio in (0.0, 0.1, 0.3) for slots in (64, 128) for share in (0.25, 0.5, 0.75)
    }  # fmt: skip
    runs = [
        RunSettings(seed=seed, energy="none", controller="fixed", epochs=2.25, **one,  # type: ignore[arg-type]
                    episodic_size=slots - one["stream_size"])  # type: ignore[call-overload]
        for seed in range(200, 205) for (_, slots, _), one in plan.items()
    ]  # fmt: skip
    table = run_all(runs, progress=False)[["seed", "swap_ratio", "final_accuracy", "average_incremental_accuracy"]]
    table[["slots", "share"]] = [key[1:] for key in plan] * 5
    table.to_csv(RAM, index=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _, command, *words = sys.argv
    if command == "ram":
        ram()
        sys.exit()
    if command != "measure":
        sys.exit(
            f"{command} is no command; write measure or ram; python -m benchmarks.controller_report makes the page"
        )
    measure(words[0], int(words[1]), *words[2:])

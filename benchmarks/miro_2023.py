"""How well the paper's controller chooses: `python -m benchmarks.miro_2023 measure DATASET SEED`, then `report`.

`measure` has two parts, each a table under results/miro_2023/.

*Candidates*: a run of the miro-2023 controller in which, at every task, each candidate of its grid is also trained in
full, twice, with other draws, from copies of the live model and memory, and scored on the test set (for this report
only; the controller never sees it). The profilers' scores stand beside: the probe's and those of other ways to profile,
`OTHERS`.

*Streams*: whole runs of the miro-2023 controller under each selector and of every fixed pair of the last task's grid.

`report` writes docs/miro_2023.md. Data sets: `digits` (the preset as it is), `cifar100` (the first 30 classes of a
subset of 100 training images a class, 6 tasks, the small CNN, 15 epochs, batches of 32) and `dsads` (a subset of 12
training segments a person and activity, 6 tasks, two hidden layers, 10 epochs, batches of 16); the last two are read
from archives in the folder that MIRO_SHARED_DATA names, their learning rates were chosen on validation samples. The
probe's penalty, its weight of size and its account of swapping were set on training samples held out for that, with
seeds 40 to 42 (`benchmarks.probe_settings`). The priors of the calibration and the default selector were set on other
seeds (0, 1, 10 to 12, 20 to 22) than the page shows, but by these same tables: class order, held-out samples and
weights differ between seeds, the test samples do not, so that the page is no test on data never looked at.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.other_profilers import ExtrapolatingProfiler, HalvingProfiler
from benchmarks.shared_data import cifar100_subset, dsads_subset
from mirolib import Dataset, MemoryConfig, load_dataset, summarise
from mirolib.controller import (
    SELECTORS,
    Controller,
    Decision,
    Miro2023Controller,
    ProbeProfiler,
    Profiler,
    TrialProfiler,
)
from mirolib.controller.resources import Resources
from mirolib.data.stream import Task, TaskStream
from mirolib.energy import Work, in_windows
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.settings import RunSettings
from mirolib.learning.learner import Learner, train_epoch
from mirolib.memory.tiered import TieredMemory
from mirolib.records import TaskRecord

FOLDER = Path(__file__).parents[1] / "results" / "miro_2023"
CIFAR = {"tasks": 6, "model": "small-cnn", "epochs": 15, "batch_size": 32, "lr": 0.1}
DSADS = {"tasks": 6, "model": "mlp", "epochs": 10, "batch_size": 16, "lr": 0.1}
GRID_LIMIT = {"digits": 20, "cifar100": 12, "dsads": 12}

OTHERS: dict[str, Profiler] = {
    "trials, 5 % of the data, 10 + 5 epochs (the paper's)": TrialProfiler(),
    "trials, 25 % of the data, 5 epochs": TrialProfiler(0.25, 0, 5),
    "trials, all data, 1 epoch": TrialProfiler(1.0, 0, 1),
    "trials, all data, successive halving from 1 epoch": HalvingProfiler(),
    "trials, all data, 4 epochs, learning curve extrapolated": ExtrapolatingProfiler(),
    "probe on all samples": ProbeProfiler(work_share=1e6),
    "probe on a quarter of the samples": ProbeProfiler(work_share=1e-6),
    "probe, old samples that swapping brings in left out": ProbeProfiler(swapping=False),
    "probe, smoothed, size not weighed in": ProbeProfiler(size_weight=0),
    "probe, not smoothed": ProbeProfiler(smooth=False),
}
"""Ways to profile that stand beside the controller's own."""


def load(name: str) -> tuple[Dataset, dict[str, object]]:
    """A data set and the settings it is trained with."""
    if name == "cifar100":
        return cifar100_subset(30), CIFAR
    return (dsads_subset(), DSADS) if name == "dsads" else (load_dataset(name), {})


@dataclass
class Measured(Controller):
    """A Miro controller beside which every candidate is trained in full.

    Attributes:
        inner: The miro-2023 controller.
        stream: The tasks.
        seed: Seed of the copies' draws.
        others: Ways to profile that score the candidates as well, by name.
        reruns: How often each candidate is trained.
        rows: A row a candidate: its row of the table, test accuracy `now`, before training, and `full_0`, … after it.
        profile: What profiling and training took, by task.
    """

    inner: Miro2023Controller
    stream: TaskStream
    seed: int
    others: Mapping[str, Profiler] = field(default_factory=lambda: OTHERS)
    reruns: int = 2
    rows: list[dict[str, object]] = field(default_factory=list)
    profile: dict[int, dict[str, float]] = field(default_factory=dict)

    def choose(self, task: Task, learner: Learner, memory: TieredMemory, resources: Resources) -> Decision:
        """What the miro-2023 controller chooses, after measuring what each candidate would have reached."""
        decision, seconds, work = _timed(learner, lambda: self.inner.choose(task, learner, memory, resources))
        table = decision.trials
        candidates = [
            MemoryConfig(s, e, 1.0) for s, e in zip(table["stream_size"], table["episodic_size"], strict=True)
        ]
        scores, now = {}, self._accuracy(task, learner)
        self.profile[task.index] = {"profile_s": seconds, "profile_work": work}
        for name, profiler in self.others.items():
            looked_at = profiler.request(task, learner, memory, candidates, self.seed)
            scores[name], _, extra = _timed(learner, partial(profiler.scores, looked_at))
            self.profile[task.index][f"{name}_work"] = extra
        for number, (row, config) in enumerate(zip(table.to_dict("records"), candidates, strict=True)):
            found = {name: scores[name][number] for name in scores}
            self.rows.append({"seed": self.seed, "now": now, **row, **found})
            for rerun in range(self.reruns):
                draws = int(np.random.SeedSequence([self.seed, 7, rerun, task.index]).generate_state(1)[0])
                accuracy, duration = self._train(task, learner, memory, config, draws)
                self.rows[-1] |= {f"full_{rerun}": accuracy, f"full_{rerun}_s": duration}
        return decision

    def _train(
        self, task: Task, learner: Learner, live: TieredMemory, config: MemoryConfig, draws: int
    ) -> tuple[float, float]:
        """Test accuracy of a copy that was trained with a candidate in full, and the seconds that took."""
        clone, memory = learner.clone(draws), live.fork(draws + 1)
        memory.resize(config)
        start = time.perf_counter()
        for _ in range(clone.epochs):
            train_epoch(clone, memory)
        memory.settle()
        clone.method.finish(clone, task, memory)
        seconds = time.perf_counter() - start
        memory.close()
        return self._accuracy(task, clone), seconds

    def _accuracy(self, task: Task, learner: Learner) -> float:
        """Test accuracy over the tasks so far."""
        return float(np.mean([learner.accuracy(test) for test in self.stream.tests(task.index)]))

    def adapt(self, config: MemoryConfig, resources: Resources) -> Decision:
        """The configuration in force."""
        return Decision(config)

    def observe(self, record: TaskRecord) -> None:
        """Tells the miro-2023 controller; notes what training really took."""
        self.inner.observe(record)
        (train,) = in_windows(record.readings, "train")
        self.profile[record.task] |= {"train_s": train.duration_s, "train_work": train.work.visits}
        self.profile[record.task]["cost_error"] = summarise([record])["cost_error"]


def _timed(learner: Learner, action):  # type: ignore[no-untyped-def]
    """What an action returns, its seconds, and its work in sample visits."""
    before, start = replace(learner.tally), time.perf_counter()
    result = action()
    seconds, after = time.perf_counter() - start, learner.tally
    work = Work(after.visits, after.forward_visits) - Work(before.visits, before.forward_visits)
    return result, seconds, work.visit_equivalents


def measure(name: str, seed: int) -> None:
    """Both parts for one seed."""
    dataset, options = load(name)
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.linalg.solve(torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))  # loads LAPACK
    with tempfile.TemporaryDirectory() as store:
        experiment = Experiment.build(
            RunSettings(seed=seed, energy="none", controller="miro-2023", **options), store, dataset
        )  # type: ignore[arg-type]
        inner = Miro2023Controller(num_tasks=len(experiment.stream), seed=seed, grid_limit=GRID_LIMIT[name])
        measured = Measured(inner, experiment.stream, seed)
        records = list(replace(experiment, controller=measured).run())
    rows = pd.DataFrame(measured.rows)
    rows = rows.join(pd.DataFrame(measured.profile).T, on="task")
    rows.to_csv(FOLDER / f"candidates-{name}-{seed}.csv", index=False)
    pairs = sorted({(row["stream_size"], row["episodic_size"]) for row in records[-1].trials.to_dict("records")})
    runs = []
    for selector in SELECTORS:
        if selector != "within-budget":
            runs.append(
                _stream(
                    name, RunSettings(seed=seed, energy="none", controller="miro-2023", selector=selector, **options)
                )
            )  # type: ignore[arg-type]
    for controller in ("random", "whole-budget"):
        runs.append(_stream(name, RunSettings(seed=seed, energy="none", controller=controller, **options)))  # type: ignore[arg-type]
    for stream_size, episodic_size in pairs:
        settings = RunSettings(
            seed=seed, energy="none", controller="fixed", swap_ratio=1.0,
            stream_size=stream_size, episodic_size=episodic_size, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        runs.append(_stream(name, settings))
    pd.DataFrame(runs).to_csv(FOLDER / f"streams-{name}-{seed}.csv", index=False)


def _stream(name: str, settings: RunSettings) -> dict[str, object]:
    """One whole run as a row."""
    dataset, _ = load(name)
    with tempfile.TemporaryDirectory() as store:
        experiment = Experiment.build(settings, store, dataset)
        if isinstance(experiment.controller, Miro2023Controller):
            experiment.controller._grid_limit = GRID_LIMIT[name]
        return asdict(experiment.settings) | summarise(list(experiment.run(progress=False)))


if __name__ == "__main__":
    _, command, *words = sys.argv
    if command != "measure":
        sys.exit(f"{command} is no command; write measure, or python -m benchmarks.miro_2023_report for the page")
    measure(words[0], int(words[1]))

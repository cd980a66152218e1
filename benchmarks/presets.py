"""How presets are set, and what they are worth: `python -m benchmarks.presets measure DATASET SEED`.

`measure` trains each candidate for a preset `small` with the preset's own sizes and holds a fifth of the training
samples out, on which accuracy is taken: the test samples are not looked at, and seeds are others than those any page
reports. `compare` runs the preset that was chosen and the one before it, one after the other, and takes accuracy on the
test samples. `report` alone writes docs/presets.md from what both left in benchmarks/measured/presets.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mirolib import Dataset, RunSettings, load_dataset
from mirolib.data import LOADERS, Preset
from mirolib.data.files import data_folder
from mirolib.experiment.experiment import Experiment

ROOT = Path(__file__).parents[1]
FOLDER, PAGE = ROOT / "benchmarks" / "measured" / "presets", ROOT / "docs" / "presets.md"
HELD_OUT = 0.2
_OLD = {"loss": "bce", "schedule": "constant", "epoch_of": "buffers"}
BEFORE: dict[str, dict[str, object]] = {
    "digits": {"model": "small-cnn", "lr": 0.05, "epochs": 20, **_OLD},
    "cifar100": {"model": "small-cnn", "lr": 0.1, "epochs": 60, **_OLD},
    "tiny-imagenet": {"model": "small-cnn", "lr": 0.1, "epochs": 60, **_OLD},
    "dsads": {"model": "cnn1d", "lr": 0.1, "epochs": 20, **_OLD},
    "urbansound8k": {"model": "small-cnn", "lr": 0.05, "epochs": 20, **_OLD},
    "imagenet1k": {"model": "small-cnn", "lr": 0.03, "epochs": 120, **_OLD},
}
"""What the presets `small` of version 0.1 said otherwise."""
RATES = (0.1, 0.05, 0.03)


def candidates(name: str) -> dict[str, dict[str, object]]:
    """Changes to the preset by the name they get in the table."""
    new = {"model": "cnn1d" if name == "dsads" else "cnn", "loss": "ce", "schedule": "falling", "epoch_of": "buffers"}
    epochs = BEFORE[name]["epochs"]
    return {"as in 0.1": BEFORE[name]} | {f"lr {rate}": new | {"lr": rate, "epochs": epochs} for rate in RATES}


def load(name: str, preset: Preset) -> Dataset:
    """A data set as `load_dataset` gives it, if its preset `small` were this one."""
    spec, load_files = LOADERS[name]
    dataset = load_files(data_folder(None)).subset(preset.per_class, preset.test_per_class, preset.classes)
    side = preset.image_size
    shape = (spec.sample_shape[0], side, side) if side else spec.sample_shape
    return replace(dataset, spec=replace(dataset.spec, sample_shape=shape, presets={"small": preset}))


def score(settings: RunSettings, dataset: Dataset) -> dict[str, float]:
    """Held-out accuracy of a run, after the last task and mean over the tasks, its sample visits and its seconds."""
    with tempfile.TemporaryDirectory() as store:
        experiment = Experiment.build(settings, store, dataset)
        learner, tasks, found, start = experiment.learner, list(experiment.stream), [], time.monotonic()
        for record in experiment.run(progress=False):
            found.append(float(np.mean([learner.accuracy(task.validation) for task in tasks[: record.task + 1]])))
    seconds = time.monotonic() - start
    return {"final": found[-1], "incremental": float(np.mean(found)), "visits": learner.tally.visits, "s": seconds}


def measure(name: str, seed: int, word: str = "") -> None:
    """Every candidate with one seed, beside what was measured before."""
    for label, changes in candidates(name).items():
        if word in label:
            dataset = load(name, replace(load_dataset(name).spec.preset(), **changes))  # type: ignore[arg-type]
            settings = RunSettings(
                name, seed=seed, energy="none", controller="fixed", validation_share=HELD_OUT, swap_ratio=1.0
            )
            _keep("measure", name, seed, {"candidate": label} | score(settings, dataset))


def compare(name: str, seed: int) -> None:
    """The preset, the same in epochs of the buffers, and that of version 0.1 on the test samples, what is missing."""
    preset, file = load_dataset(name).spec.preset(), FOLDER / f"compare-{name}-{seed}.csv"
    done = set(pd.read_csv(file)["candidate"]) if file.exists() else set()
    ways = {"as in 0.1": (replace(preset, **BEFORE[name]), None), "now, epochs of the buffers": (preset, "buffers")}  # type: ignore[arg-type]
    for label, (chosen, epoch_of) in (ways | {"now": (preset, None)}).items():
        if label in done:
            continue
        settings = RunSettings(name, seed=seed, energy="none", controller="fixed", epoch_of=epoch_of)
        with tempfile.TemporaryDirectory() as store:
            experiment, start = Experiment.build(settings, store, load(name, chosen)), time.monotonic()
            last = list(experiment.run(progress=False))[-1]
        found = {"final": last.average_accuracy, "incremental": last.average_incremental_accuracy}
        visits = experiment.learner.tally.visits
        row = {"candidate": label} | found | {"visits": visits, "s": time.monotonic() - start}
        _keep("compare", name, seed, row)


def medium(name: str, seed: int) -> None:
    """The preset `medium` on the test samples, on as many threads as PyTorch takes."""
    with tempfile.TemporaryDirectory() as store:
        settings = RunSettings(name, preset="medium", seed=seed, energy="none", controller="fixed")
        experiment, start = Experiment.build(settings, store), time.monotonic()
        last = list(experiment.run(progress=False))[-1]
    found = {"final": last.average_accuracy, "incremental": last.average_incremental_accuracy}
    row = found | {"visits": experiment.learner.tally.visits, "s": time.monotonic() - start}
    _keep("medium", name, seed, {"candidate": "medium"} | row)


def _keep(what: str, name: str, seed: int, row: dict[str, object]) -> None:
    """Adds a row to a table, in the place of the one measured before."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{what}-{name}-{seed}.csv"
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    rows = [other for other in rows if other["candidate"] != row["candidate"]]
    pd.DataFrame([*rows, row | {"seed": seed}]).to_csv(file, index=False)


def read(folder: Path, name: str, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The tables of a data set for some seeds, joined; without rows where there are none."""
    files = [folder / f"{name}-{seed}.csv" for seed in seeds]
    found = [pd.read_csv(file) for file in files if file.exists()]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def percent(grouped: pd.api.typing.SeriesGroupBy) -> pd.Series:
    """Mean ± standard deviation in percent; the mean alone for one run."""
    mean, deviation = 100 * grouped.mean(), 100 * grouped.std()
    return mean.map("{:.1f}".format) + deviation.map(lambda value: "" if pd.isna(value) else f" ± {value:.1f}")


def table(what: str, name: str) -> pd.DataFrame:
    """Candidates by accuracy; without rows where nothing was measured."""
    files = sorted(FOLDER.glob(f"{what}-{name}-*.csv"))
    if not files:
        return pd.DataFrame()
    runs = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    groups = runs.groupby("candidate", sort=False)
    seconds = groups["s"].mean()
    spent = {"time, s": seconds} if what == "medium" else {"time, of that of 0.1": seconds / seconds["as in 0.1"]}
    return pd.DataFrame({
        "final accuracy, %": percent(groups["final"]), "average incremental, %": percent(groups["incremental"]),
        "sample visits": groups["visits"].mean().astype(int), **spent,
        "seeds": groups["seed"].nunique(),
    }).round(2)  # fmt: skip


def presets() -> pd.DataFrame:
    """What the presets are, a row each."""
    columns = ("classes", "per_class", "image_size", "tasks", "model", "loss", "schedule", "epoch_of", "epochs",
               "batch_size", "lr", "stream_size", "episodic_size")  # fmt: skip
    rows = {f"{name}, {word}": asdict(preset) for name in BEFORE for word, preset in LOADERS[name][0].presets.items()}
    chosen = pd.DataFrame(rows).T.loc[:, list(columns)]
    return chosen.replace({"image_size": {0: "as it is"}}).replace(0, "all").rename_axis("preset")


def report() -> None:
    """Writes the page."""
    parts = [_INTRODUCTION.replace("@TABLE@", presets().to_markdown())]
    for what, heading in (("compare", _COMPARED), ("medium", _MEDIUM), ("measure", _MEASURED)):
        parts.append(heading)
        parts += [f"**{name}**\n\n{rows.to_markdown()}" for name in BEFORE if len(rows := table(what, name))]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_INTRODUCTION = """# The presets, and how they were set

Written by `python -m benchmarks.presets report`. `small` is the default: a small model and few samples, minutes on
two cores. `medium`, where there is one, is large enough to tell methods apart, five minutes at most on two cores.
`paper` is the paper's. `per_class` is training samples, before some are held out; sizes are samples.

@TABLE@"""
_COMPARED = """## Before and after

`python -m benchmarks.presets compare DATASET SEED`: the preset `small` of version 0.1 and today's, the sizes of the
buffers alike, on the test samples; today's also in epochs of the buffers, as the paper's way and `miro-2023`
have them, with as many visits. The first two were run one after the other, `now` later, on a machine that did other
things too: its time is no comparison."""
_MEDIUM = """## What `medium` comes to

`python -m benchmarks.presets medium DATASET SEED`, on the test samples, on two cores (CIFAR-100 of 300 training and 100
test images a class). Sizes and rate are those that `small` was given; nothing was chosen on these."""
_MEASURED = """## What they were chosen from

`python -m benchmarks.presets measure DATASET SEED`: accuracy on a fifth of the training samples, which is held out,
with seeds that no other page reports. One rate was taken for all sets, 0.05: the best in final accuracy on digits,
Tiny-ImageNet, DSADS and UrbanSound8K, in average accuracy on CIFAR-100, and by analogy on ImageNet; most sets have one
seed. Times are those of a machine that did other things too."""


if __name__ == "__main__":
    if sys.argv[1] == "report":
        report()
    else:
        {"measure": measure, "compare": compare, "medium": medium}[sys.argv[1]](
            sys.argv[2], int(sys.argv[3]), *sys.argv[4:5]
        )

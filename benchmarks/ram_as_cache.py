"""What RAM is worth once work and mix are choices: `python -m benchmarks.ram_as_cache measure DATASET SEED`.

An epoch passes over the task, with a fixed mix of replayed and new samples, so that every row of a data set has the
same work and the same mix; only the slots in RAM differ, half of them the stream buffer's, down to a sixty-fourth of
the training samples where batches leave room for that. Beside them stand the same slots without swapping of the stream
buffer (the control), and the paper's coupling, an epoch of the buffers, with as many slots and about as much work.
Accuracy is that on the test samples; seeds are those of no other page. `report` writes docs/ram_as_cache.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

from benchmarks.presets import HELD_OUT, load, score
from mirolib import Dataset, RunSettings, load_dataset
from mirolib.experiment.experiment import Disturbance, Experiment
from mirolib.experiment.injectors import During, cold_cache
from mirolib.memory.rotation import LAG, least_slots
from mirolib.memory.store_file import DATA
from mirolib.viz.figures import OKABE_ITO, SYMBOLS

ROOT = Path(__file__).parents[1]
FOLDER, PAGE, TABLE = (
    ROOT / "benchmarks" / "measured" / "ram_as_cache", ROOT / "docs" / "ram_as_cache.md",
    ROOT / "docs" / "tables" / "ram_as_cache.csv",
)  # fmt: skip
SETS: dict[str, tuple[str, int, int, tuple[int, ...]]] = {
    "digits": ("small", 10, 8, (16,)), "dsads": ("small", 10, 8, (16,)), "cifar100": ("medium", 4, 32, (16, 32, 64)),
}  # fmt: skip
"""Preset, epochs of the task, batch size, and parts of the training samples that are in RAM."""
_RATIO = "sqrt"
MIXES = (0.5, 1, 2, "sqrt", "classes")
"""Replay ratios among which the default was chosen."""


def trained(dataset: Dataset, seed: int, disturb: Disturbance | None = None, **changes: object) -> dict[str, float]:
    """A run with the preset changed: accuracies, visits, samples read, RAM, page cache and seconds."""
    preset = replace(dataset.spec.preset(), **changes)  # type: ignore[arg-type]
    dataset = replace(dataset, spec=replace(dataset.spec, presets={"one": preset}))
    with tempfile.TemporaryDirectory() as store:
        settings = RunSettings(dataset.spec.name, preset="one", seed=seed, energy="none", controller="fixed")
        experiment, start = Experiment.build(settings, store, dataset, disturb), time.monotonic()
        memory, cached = experiment.memory, 0
        for record in experiment.run(progress=False):
            last, cached = record, max(cached, _cached_bytes(Path(store) / DATA))
    counts = memory.counts
    return {"final": last.average_accuracy, "incremental": last.average_incremental_accuracy,
            "staged": memory.staged, "visits": experiment.learner.tally.visits,
            "fetched": counts.swapped + counts.streamed, "stall_s": counts.stall_s,
            "memory_bytes": last.memory_bytes, "cached_bytes": cached, "s": time.monotonic() - start}  # fmt: skip


def _cached_bytes(file: Path) -> int:
    """Bytes of a file that the page cache holds."""
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(file)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(name: str, seed: int) -> None:
    """Every row of a data set with one seed that is not there yet."""
    chosen, epochs, batch_size, parts = SETS[name]
    dataset = load_dataset(name, preset=chosen)
    dataset = replace(dataset, spec=replace(dataset.spec, presets={"one": dataset.spec.preset(chosen)}))
    tasks, total = dataset.spec.preset().tasks, round(0.9 * len(dataset.train))
    apart = {"epoch_of": "task", "replay_ratio": _RATIO, "epochs": epochs, "batch_size": batch_size, "swap_ratio": 1.0}
    whole = {"stream_size": total // tasks, "episodic_size": total}
    rows: dict[str, dict[str, object]] = {"all in RAM": apart | whole}
    for part in parts:
        room = total // part - LAG * batch_size  # for slots: what is under way is in RAM too
        half = max(room // 2, least_slots(batch_size, 1.0))
        slots = {"stream_size": min(half, total // tasks), "episodic_size": max(2, room - half)}
        rows[f"1/{part}"] = apart | slots
        if part == parts[0]:
            rows[f"1/{part}, no swapping of the stream buffer"] = apart | slots | {"swap_ratio": 0.0}
            visits = epochs * total / tasks * (1 + np.mean([k**0.5 for k in range(tasks)]))
            coupled = max(1, round(visits / (slots["stream_size"] + slots["episodic_size"])))
            rows[f"1/{part}, coupled as in the paper"] = slots | {
                "epoch_of": "buffers", "epochs": coupled, "batch_size": batch_size, "swap_ratio": 1.0
            }  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}-{seed}.csv"
    done = pd.read_csv(file).to_dict("records") if file.exists() else []
    for label, changes in rows.items():
        if label not in {row["RAM"] for row in done}:
            slots = int(changes["stream_size"]) + int(changes["episodic_size"])  # type: ignore[call-overload]
            found = trained(dataset, seed, **changes)
            done.append({"RAM": label, "slots": min(slots, total), "seed": seed} | found)
            pd.DataFrame(done).to_csv(file, index=False)


def cache(name: str, seed: int) -> None:
    """A sixteenth in RAM, with the page cache left alone and with the store's pages dropped behind the reader."""
    dataset = load_dataset(name)
    preset, total = dataset.spec.preset(), round(0.9 * len(dataset.train))
    half = max(total // 32, least_slots(preset.batch_size, 1.0))
    rows = []
    for label, disturb in (
        ("left alone", None), ("dropped behind the reader", lambda storage: During(0, 10**6, cold_cache(storage))),
    ):  # fmt: skip
        found = trained(dataset, seed, disturb, stream_size=half, episodic_size=half, swap_ratio=1.0)
        rows.append({"page cache": label, "samples": total, "slots": 2 * half} | found)
    pd.DataFrame(rows).to_csv(FOLDER / f"cache-{name}-{seed}.csv", index=False)


def mix(name: str, seed: int) -> None:
    """Replay ratios at equal work and the preset's sizes, by accuracy on a fifth of the training samples, held out."""
    preset = replace(load_dataset(name).spec.preset(), swap_ratio=1.0, epoch_of="task")
    file, old = FOLDER / f"mix-{name}-{seed}.csv", np.arange(preset.tasks)
    done = pd.read_csv(file).to_dict("records") if file.exists() else []
    for ratio in MIXES:
        if str(ratio) not in {str(row["replay_ratio"]) for row in done}:
            of_task = np.sqrt(old) if ratio == "sqrt" else old if ratio == "classes" else np.where(old, ratio, 0)
            epochs = preset.epochs * (1 + np.sqrt(old).mean()) / (1 + of_task.mean())
            settings = RunSettings(
                name, seed=seed, energy="none", controller="fixed", validation_share=HELD_OUT,
                replay_ratio=ratio, epochs=epochs,
            )  # fmt: skip
            done.append({"replay_ratio": ratio, "seed": seed} | score(settings, load(name, preset)))
            FOLDER.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(done).to_csv(file, index=False)


def report() -> None:
    """Writes the page and the table."""
    runs = pd.concat([_read(f"{name}-*") for name in SETS], ignore_index=True)
    TABLE.parent.mkdir(exist_ok=True)
    runs.to_csv(TABLE, index=False)
    parts = [_INTRODUCTION]
    for name in (name for name in SETS if (runs["data"] == name).any()):
        of_set = runs[runs["data"] == name]
        whole = of_set[of_set["RAM"] == "all in RAM"].set_index("seed")["final"]
        rows = []
        for label, group in sorted(of_set.groupby("RAM"), key=lambda one: ("," in one[0], -one[1]["slots"].mean())):
            less = 100 * (group.set_index("seed")["final"] - whole).dropna()
            error = stats.t.ppf(0.975, len(less) - 1) * less.std() / len(less) ** 0.5 if len(less) > 1 else np.nan
            final, mean = 100 * group["final"], 100 * group["incremental"]
            rows.append({
                "RAM": label, "slots": int(group["slots"].mean()), "on their way": int(group["staged"].max()),
                "visits": f"{group['visits'].mean():,.0f}",
                "final accuracy, %": _spread(final.mean(), final.std()),
                "average incremental, %": _spread(mean.mean(), mean.std()),
                "against all in RAM, points (95 %)": _spread(less.mean(), error, "+"),
                "fetched": f"{group['fetched'].mean():,.0f}", "seeds": len(group),
            })  # fmt: skip
        parts += [f"## {name}, preset `{SETS[name][0]}`", pd.DataFrame(rows).to_markdown(index=False)]
    _picture(runs).write_image(PAGE.with_name("ram_as_cache.png"), scale=1.5)
    mixes = _read("mix-*")
    mixes["replay_ratio"] = mixes["replay_ratio"].astype(str).str.removesuffix(".0")
    means = 100 * mixes.groupby(["data", "replay_ratio"])[["final", "incremental"]].mean()
    cells = means["final"].map("{:.1f}, ".format) + means["incremental"].map("{:.1f}".format)
    cells = cells.unstack().loc[:, list(map(str, MIXES))].assign(seeds=mixes.groupby("data")["seed"].nunique())
    parts += [_MIX, cells.rename(index=lambda name: name.removeprefix("mix-")).to_markdown()]
    cached = _read("cache-*")
    cached["data"] = cached["data"].str.removeprefix("cache-")
    for column in ("memory_bytes", "cached_bytes"):
        cached[column] = (cached[column] / 1024).map("{:,.0f} KiB".format)
    cached["waiting, %"] = (100 * cached["stall_s"] / cached["s"]).round(1)
    columns = ["data", "page cache", "samples", "slots", "memory_bytes", "cached_bytes", "fetched", "waiting, %", "s"]
    parts += [_CACHE, cached[columns].round(1).to_markdown(index=False)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _read(pattern: str) -> pd.DataFrame:
    """The rows of some files, with the data set that their names begin with."""
    files = sorted(FOLDER.glob(f"{pattern}.csv"))
    return pd.concat([pd.read_csv(file).assign(data=file.stem.rpartition("-")[0]) for file in files], ignore_index=True)


def _picture(runs: pd.DataFrame) -> go.Figure:
    """Final accuracy over RAM of every data set, a panel each."""
    names = [name for name in SETS if (runs["data"] == name).any()]
    titles = [f"{name}, {SETS[name][0]}" for name in names]
    plot = make_subplots(cols=len(names), subplot_titles=titles, horizontal_spacing=0.07)
    ways = {
        "work and mix apart, both buffers swapped": "",
        "coupled, as in the paper": ", coupled",
        "apart, not swapped": "no ",
    }
    for column, name in enumerate(names, start=1):
        of_set = runs[runs["data"] == name]
        part = of_set["RAM"].str.extract(r"1/(\d+)")[0].fillna("1").astype(int)
        for number, (way, word) in enumerate(ways.items()):
            those = (
                of_set["RAM"].str.contains(", ") & of_set["RAM"].str.contains(word)
                if word
                else ~of_set["RAM"].str.contains(",")
            )
            of_way = 100 * of_set[those].groupby(1 / part[those])["final"].agg(["mean", "std"])
            plot.add_scatter(x=100 * of_way.index, y=of_way["mean"], error_y={"array": of_way["std"].fillna(0)},
                             name=way, mode="lines+markers", legendgroup=way, showlegend=column == 1,
                             marker={"size": 9, "symbol": SYMBOLS[number], "color": OKABE_ITO[number]},
                             line={"color": OKABE_ITO[number]}, row=1, col=column)  # fmt: skip
    plot.update_xaxes(type="log", title_text="samples in RAM, % of all", tickvals=[1.5, 3, 6, 12, 25, 50, 100])
    plot.update_yaxes(title_text="accuracy after the last task, %", col=1)
    return plot.update_layout(
        template="plotly_white", width=1000, height=340, margin={"t": 40}, legend={"orientation": "h", "y": -0.25}
    )


def _spread(mean: float, deviation: float, sign: str = "") -> str:
    """A mean and its spread, if more than one seed tells it."""
    return f"{mean:{sign}.1f}" + ("" if np.isnan(deviation) else f" ± {deviation:.1f}")


_MIX = """## The mix

Accuracy in % on a fifth of the training samples, held out: after the last task, and the average incremental accuracy,
by replayed samples for each new one, at equal work and the sizes of the presets `small`:
`python -m benchmarks.ram_as_cache mix DATASET SEED`. `sqrt` is the default: it has the best average over the tasks on
digits, DSADS and UrbanSound8K and is within a point of the best on the others. `classes`, which replays every old
sample as often as a new one, ends higher on CIFAR-100 and UrbanSound8K (20 held-out samples there). One seed tells
accuracies apart that differ by some four points on CIFAR-100."""

_CACHE = """## What the page cache adds

The system keeps what was read of the store in memory that it gives back when others want it. A sixteenth of the
training samples in slots, with the page cache left alone, and with the store's pages dropped every 20 ms, as a small
board would: `python -m benchmarks.ram_as_cache cache DATASET SEED`. `memory_bytes` is slots, samples on their
way, and index; `cached_bytes` the most of the store that the page cache held after a task."""

_INTRODUCTION = """# RAM is a cache

Written by `python -m benchmarks.ram_as_cache report` ([every run](tables/ram_as_cache.csv)). An epoch passes once over
the task's samples, with √(old ÷ new classes) replayed samples for each new one (`epoch_of="task"`,
`replay_ratio="sqrt"`), so that work and mix are the same in every row but the last two; only the slots in RAM differ,
half of them the stream buffer's. "No swapping of the stream buffer" trains as long on the few samples it holds, and
leaves the episodic memory as it is. "Coupled as in the paper" is an epoch of the buffers, for so many epochs that the
work is about as much. RAM is slots and the samples on their way to them, two steps of batches at most. ± is the
standard deviation over seeds; differences are paired by seed, with Student's interval.
The last two rows of DSADS and CIFAR-100 were measured before what is on its way was taken off the slots.

![accuracy over RAM: apart, coupled, and without swapping](ram_as_cache.png)"""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "report":
        report()
    else:
        {"measure": measure, "mix": mix, "cache": cache}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))

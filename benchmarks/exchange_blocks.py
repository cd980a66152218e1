"""Exchanging blocks of neighbours on storage: `python -m benchmarks.exchange_blocks measure DATASET SEED`.

Where random reads are dear, as on an SD card, samples that lie side by side cost about one of them together. What
blocks do to accuracy is measured at the same work and mix, with a sixteenth of the training samples in RAM, on digits,
DSADS, CIFAR-100 in a few passes, and a part of it whose classes fall from 100 to 10 images (`tail`), at half of its
epochs. `speed DATASET` trains on a card that gives so many bytes and so many random reads a second, where records that
lie side by side and are asked for together count as one read, and fetches without training. Accuracy is that on the
test samples; nothing was chosen on it. `report` writes docs/exchange_blocks.md.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from mirolib import Dataset, RunSettings, TieredMemory, load_dataset
from mirolib.controller.resources import ResourceMonitor
from mirolib.experiment.experiment import Experiment
from mirolib.memory import store_file

ROOT = Path(__file__).parents[1]
FOLDER, PAGE, TABLE = (
    ROOT / "benchmarks" / "measured" / "exchange_blocks", ROOT / "docs" / "exchange_blocks.md",
    ROOT / "docs" / "tables" / "exchange_blocks.csv",
)  # fmt: skip
SETS = {"digits": (10, 16), "dsads": (11, 16), "tail": (16, 16), "cifar100": (4, 32)}
"""Epochs of the task and batch size; `cifar100` passes over few samples few times."""
BLOCKS = {"1": (1, 1), "16, stream buffer only": (16, 1), "4": (4, 4), "16": (16, 16)}
"""Neighbours that are exchanged together, in the stream buffer and in the episodic memory."""
PART, CARD = 16, (80e6, 2000.0)
"""Of the training samples one in so many is in RAM; bytes and random reads a second of a card."""


@dataclass
class Card:
    """What was read: records, and runs of neighbours."""

    records: int = 0
    reads: int = 0


@contextmanager
def card(rate_bytes_s: float = np.inf, reads_s: float = np.inf) -> Iterator[Card]:
    """Counts what all stores read until the block ends, and makes them wait as for such a card."""
    counts, read, lock = Card(), store_file.read_records, threading.Lock()

    def slowly(data: int, offsets: np.ndarray, lengths: np.ndarray, *, encoded: bool) -> tuple[np.ndarray, ...]:
        with lock:  # a card does one thing after another
            runs = sum(1 for _ in store_file._runs(offsets, lengths))
            counts.records, counts.reads = counts.records + len(offsets), counts.reads + runs
            time.sleep(runs / reads_s + float(lengths.sum()) / rate_bytes_s)
        return read(data, offsets, lengths, encoded=encoded)

    store_file.read_records = slowly  # type: ignore[assignment]
    try:
        yield counts
    finally:
        store_file.read_records = read


def load(name: str) -> Dataset:
    """A data set with the preset `small`; of `tail`, the classes fall exponentially to a tenth."""
    dataset = load_dataset("cifar100" if name == "tail" else name, preset="small")
    if name == "tail":
        train, classes = dataset.train, len(dataset.class_names)
        counts = (100 * 10 ** (-np.arange(classes) / (classes - 1))).round().astype(int)
        kept = np.sort(np.concatenate([np.flatnonzero(train.labels == k)[:n] for k, n in enumerate(counts)]))
        part = train.select(kept, train.labels[kept])
        dataset = replace(dataset, train=part, fingerprint=f"{dataset.fingerprint}/tail")
    return replace(dataset, spec=replace(dataset.spec, presets={"one": dataset.spec.preset("small")}))


def built(dataset: Dataset, name: str, blocks: tuple[int, int], seed: int, store: str) -> Experiment:
    """A run with the sizes of this page, of which the memory exchanges blocks."""
    epochs, batch_size = SETS[name]
    total, tasks = round(0.9 * len(dataset.train)), dataset.spec.preset().tasks
    half = max(total // PART // 2, 3 * batch_size)  # what is under way takes slots too
    settings = RunSettings(
        dataset.spec.name, preset="one", seed=seed, energy="none", controller="fixed", epoch_of="task",
        replay_ratio="sqrt", epochs=epochs, batch_size=batch_size, swap_ratio=1.0,
        stream_size=min(half, total // tasks), episodic_size=max(2, total // PART - half),
    )  # fmt: skip
    one = Experiment.build(settings, store, dataset)
    memory = TieredMemory(one.memory.storage, one.memory.config, one.stream.num_classes, seed=seed, block=blocks[0])
    memory._replayed.block = blocks[1]
    return replace(one, memory=memory, resources=ResourceMonitor(memory))


def trained(dataset: Dataset, name: str, blocks: tuple[int, int], seed: int, *limits: float) -> dict[str, float]:
    """A run on a card: accuracies, that of the rarest third of the classes, reads, and what waiting took."""
    with tempfile.TemporaryDirectory() as store, card(*limits) as counts:
        one = built(dataset, name, blocks, seed, store)
        records = list(one.run(progress=False))
    of_class = np.bincount(dataset.train.labels)[list(one.stream.class_order)]
    rare = np.argsort(of_class, kind="stable")[: len(of_class) // 3]
    test = one.stream._of(dataset.test, tuple(rare.tolist()))
    done, swaps = [epoch for record in records for epoch in record.epochs], one.memory.counts
    duration_s = sum(epoch.duration_s for epoch in done)
    return {"final": records[-1].average_accuracy, "incremental": records[-1].average_incremental_accuracy,
            "rare": one.learner.accuracy(test), "visits": one.learner.tally.visits,
            "fetched": swaps.swapped + swaps.streamed, "records": counts.records, "reads": counts.reads,
            "stall_s": swaps.stall_s, "s": duration_s, "index": one.memory.index_bytes}  # fmt: skip


def fetched(dataset: Dataset, name: str, blocks: tuple[int, int]) -> dict[str, float]:
    """Passes of the last task on a card, without training: samples a second, and a random read."""
    with tempfile.TemporaryDirectory() as store:
        one = built(dataset, name, blocks, 0, store)
        with one.memory as memory:
            for task in one.stream:
                memory.receive(task)
                if task.index < len(one.stream) - 1:
                    memory.retain(task)
            start = time.monotonic()
            with card(*CARD) as counts:
                for _ in range(3):
                    for batch in memory.passes(SETS[name][1], "sqrt"):
                        memory.swap(batch)
                memory.settle()
            return {"samples_s": counts.records / (time.monotonic() - start), "each": counts.records / counts.reads}


def measure(name: str, seed: int) -> None:
    """Every block with one seed that is not there yet."""
    dataset = load(name)
    for label, blocks in BLOCKS.items():
        _keep(f"{name}-{seed}", label, lambda blocks=blocks: {"seed": seed} | trained(dataset, name, blocks, seed))


def speed(name: str) -> None:
    """Training on a card, two epochs long, and fetching alone."""
    dataset = load(name)
    SETS[name] = 2, SETS[name][1]
    for label, blocks in BLOCKS.items():
        _keep(
            f"speed-{name}", label,
            lambda blocks=blocks: trained(dataset, name, blocks, 0, *CARD) | fetched(dataset, name, blocks),
        )  # fmt: skip


def _keep(table: str, block: str, found: object) -> None:
    """Adds a row to a table unless it is there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{table}.csv"
    done = pd.read_csv(file, dtype={"block": str}).to_dict("records") if file.exists() else []
    if block not in {row["block"] for row in done}:
        pd.DataFrame([*done, {"block": block} | found()]).to_csv(file, index=False)  # type: ignore[operator]


def report() -> None:
    """Writes the page and the table."""
    tables = [
        pd.read_csv(file, dtype={"block": str}).assign(data=file.stem.rpartition("-")[0])
        for file in sorted(FOLDER.glob("*-[0-9]*.csv"))
    ]
    runs = pd.concat(tables, ignore_index=True)
    runs.to_csv(TABLE, index=False)
    parts = [_INTRODUCTION]
    for name, of_set in runs.groupby("data"):
        singly, rows = of_set[of_set["block"] == "1"].set_index("seed"), []
        for label, group in of_set.groupby("block", sort=False):
            row: dict[str, object] = {"block": label}
            for column, heading in _COLUMNS.items():
                if column == "rare" and name != "tail":
                    continue
                less = 100 * (group.set_index("seed")[column] - singly[column]).dropna()
                row[heading] = _spread(100 * group[column].mean(), 100 * group[column].std())
                row[f"against 1{'' if column == 'final' else ', ' + column}"] = _spread(
                    less.mean(), student.ppf(0.975, len(less) - 1) * less.sem(), "+"
                )
            row |= {"samples a random read": f"{(group['records'] / group['reads']).mean():.2f}", "seeds": len(group)}
            rows.append(row)
        parts += [f"## {name}", pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)]
    parts.append(_SPEED)
    for file in sorted(FOLDER.glob("speed-*.csv")):
        rows = [
            {"block": row.block, "training waits, %": f"{100 * row.stall_s / row.s:.0f}", "training, s": f"{row.s:.1f}",
             "random reads a sample": f"{1 / row.each:.2f}", "fetching alone, samples/s": f"{row.samples_s:,.0f}",
             "index, bytes": f"{row.index:,}"}
            for row in pd.read_csv(file, dtype={"block": str}).itertuples()
        ]  # fmt: skip
        name = file.stem.removeprefix("speed-")
        parts += [f"**{name}**", pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _spread(mean: float, deviation: float, sign: str = "") -> str:
    """A mean and its spread."""
    return f"{mean:{sign}.1f} ± {deviation:.1f}"


_COLUMNS = {
    "final": "final accuracy, %", "incremental": "average incremental, %", "rare": "rarest third of the classes, %",
}  # fmt: skip

_INTRODUCTION = """# Exchanging blocks of neighbours

Written by `python -m benchmarks.exchange_blocks report` ([every run](tables/exchange_blocks.csv)). `block` samples that
lie side by side on storage come into RAM together (`RunSettings.block`); work and mix are the same in every row,
and a sixteenth of the training samples is in RAM. `tail` is 30 classes of CIFAR-100 of 100 to 10 images, at half the
epochs of the preset; `cifar100` is the preset `small` at an eighth of its epochs, where each sample is seen a few
times only. Accuracy is that on the test samples; ± is the standard deviation over seeds, differences are in points,
paired by seed, with 95 % (Student's t). Three seeds see no difference below some two to eight points on CIFAR-100.

The default stays 1, the simplest: where reads are fast, nothing is gained by more. `block=4` is for cards: a third of
the random reads at no loss that these seeds can tell, though slots then follow the classes as they lie on storage,
which is uneven where classes are."""
_SPEED = """## Speed on a slow card

Two epochs of each task while storage gives 80 MB and 2,000 random reads a second; neighbours that are asked for
together count as one read. Small models on one core of a machine that did other things too, so that a free one waits
more. A step asks for some ten samples of either kind: longer blocks are cut where it ends."""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "report":
        report()
    elif sys.argv[1] == "speed":
        speed(sys.argv[2])
    else:
        measure(sys.argv[2], int(sys.argv[3]))

"""Does the cost of a step stay flat as the store grows?

Stores of 10,000, 100,000 and 1,280,000 records (ImageNet's number; 48 bytes each, 1,000 classes, 50 tasks) are written
through `TieredMemory.receive`, the buffers being the same (episodic memory 2,000, stream buffer 1,000). Then each store
is read through once, so that the page cache holds it, and steps of 128 samples are gathered with every replayed one
exchanged; the stores take turns, and a value is the median over steps. The index is what the process keeps in RAM for
each stored sample: four bytes that say where it lies, and one that says whether it is held. Then 5 GB of records of
3,088 bytes are written, and each of them swapped in once, in a random order, in batches of 128; where the machine has
the RAM for it, out of the page cache.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.common import row, seconds, table
from mirolib import Fingerprint, MemoryConfig, Storage, TieredMemory
from mirolib.data import Samples
from mirolib.data.stream import Task, make_ids

SIZES, CLASSES, TASKS, BATCH, ROUNDS = (10_000, 100_000, 1_280_000), 1000, 50, 128, 12
SHAPE = (1, 6, 8)
LARGE = 5 * 10**9  # bytes of records
_FINGERPRINT = Fingerprint("random", "", tuple(range(CLASSES)), 0, 0.0, SHAPE, "uint8")
_CONFIG = MemoryConfig(1000, 2000, 1.0)


def run() -> pd.DataFrame:
    """Writes the stores, then measures them in turns."""
    rows = []
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        memories, opened = {}, {}
        for size in SIZES:
            path = Path(folder) / str(size)
            memory = TieredMemory(Storage(path, _FINGERPRINT), _CONFIG, CLASSES)
            written = seconds(lambda: _receive(memory, size))  # noqa: B023
            for start in range(0, size // CLASSES * CLASSES, 4096):
                position = np.arange(start, min(start + 4096, size // CLASSES * CLASSES))
                memory.storage.read(make_ids(position // (size // CLASSES), position % (size // CLASSES)))
            memories[size] = memory
            rows.append(row(f"{size:,} records written", size / written, "records/s"))
        steps: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(ROUNDS):
            for size, memory in memories.items():
                steps[size] += _steps(memory)
        for size, memory in memories.items():
            index = memory.index_bytes / memory.stored
            memory.close()
            times = [seconds(lambda: Storage(Path(folder) / str(size), _FINGERPRINT).close()) for _ in range(5)]  # noqa: B023
            opened[size] = float(np.median(times))
            rows += [
                row(f"{size:,}: opened", opened[size], "s", at_most=2),
                row(f"{size:,}: a step's gathering and swapping", 1e3 * float(np.median(steps[size])), "ms"),
                row(f"{size:,}: index in RAM", index, "bytes/record", at_most=64),
            ]
    base = float(np.median(steps[SIZES[0]]))
    for size in SIZES[1:]:
        rows.append(
            row(f"a step with {size:,} / with {SIZES[0]:,}", float(np.median(steps[size])) / base, "ratio", at_most=1.1)
        )
    return table(rows + _large())


def _receive(memory: TieredMemory, size: int) -> None:
    """The whole stream but the last task's training; the last task stays in the stream buffer."""
    per_class = size // CLASSES
    for index, classes in enumerate(np.array_split(np.arange(CLASSES), TASKS)):
        labels = np.repeat(classes, per_class)
        ids = make_ids(labels, np.tile(np.arange(per_class), len(classes)))
        data = np.random.default_rng(index).integers(0, 256, (len(ids), *SHAPE), dtype=np.uint8)
        train = Samples(data, labels, np.arange(len(ids)))
        nothing = Samples(data, labels[:0], np.arange(0))
        task = Task(index, tuple(classes.tolist()), train, ids, nothing, ids[:0])
        memory.receive(task)
        if index < TASKS - 1:
            memory.retain(task)


def _steps(memory: TieredMemory) -> list[float]:
    """Seconds of each step of an epoch, its exchange included."""
    times, start = [], time.perf_counter()
    for batch in memory.batches(BATCH):
        memory.swap(batch)
        now = time.perf_counter()
        times.append(now - start)
        start = now
    return times[1:]


def _large() -> list[dict[str, object]]:
    """5 GB written, and read once in a random order."""
    shape, count = (3, 32, 32), LARGE // 3088
    rng, print_ = np.random.default_rng(0), Fingerprint("random", "", tuple(range(10)), 0, 0.0, (3, 32, 32), "uint8")
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        storage = Storage(Path(folder), print_)
        samples = rng.integers(0, 256, (256, *shape), dtype=np.uint8)
        start = time.perf_counter()
        for first in range(0, count, len(samples)):
            position = np.arange(first, first + len(samples))
            storage.put(make_ids(position % 10, position // 10), samples)
        written, stored = time.perf_counter() - start, int(storage.counts(10).sum())
        order, start = rng.permutation(stored), time.perf_counter()
        for first in range(0, stored, BATCH):
            position = order[first : first + BATCH]
            storage.read(make_ids(position % 10, position // 10))
        read = time.perf_counter() - start
        storage.close()
    return [
        row("5 GB written, durably", stored * 3072 / 1e6 / written, "MB/s"),
        row("5 GB swapped in once", stored / read, "records/s"),
    ]

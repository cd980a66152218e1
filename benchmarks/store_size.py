"""`python -m benchmarks.store_size`: the file of a store with a budget, against that budget, for several records.

Ten classes in five tasks bring three times what the budget holds, in chunks of 256 as `TieredMemory.store` does; every
chunk beyond the budget evicts. The size is what `du` says of data and index when all is stored; it never falls. The
encoded samples are of 0.2 to 1.8 times the size named.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

BUDGETS = (2 << 20, 16 << 20)
CLASSES, TASKS, CHUNK = 10, 5, 256
SAMPLES = (64, 784, 2000, 3072, 12_288, 49_152)


def run() -> pd.DataFrame:
    """Fills a store for each budget and size of a sample."""
    from benchmarks.common import row, table

    return table(
        [
            row(
                f"files / budget of {budget >> 20} MiB, {kind} of {size:,} bytes", fill(size, budget, kind), "ratio",
                at_most=1.1,
            )
            for kind in ("samples", "encoded samples")
            for budget in BUDGETS
            for size in SAMPLES
        ]
    )  # fmt: skip


def fill(sample_bytes: int, budget: int, kind: str) -> float:
    """Files against budget once three times as many samples came as the budget holds."""
    from mirolib import Fingerprint, Storage
    from mirolib.data.stream import make_ids
    from mirolib.memory.store_file import HEADER, ROW

    per_class = 3 * budget // (HEADER.itemsize + sample_bytes + ROW.itemsize) // CLASSES
    rng = np.random.default_rng(0)
    about = ((sample_bytes,), "uint8") if kind == "samples" else ((), "object", sample_bytes)
    print_ = Fingerprint("random", "", tuple(range(CLASSES)), 0, 0.0, *about)
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        storage = Storage(Path(folder), print_, size_budget=budget)
        for labels in np.arange(CLASSES).reshape(TASKS, -1):
            ids = make_ids(np.tile(labels, per_class), np.repeat(np.arange(per_class), len(labels)))
            for start in range(0, len(ids), CHUNK):
                chunk = ids[start : start + CHUNK]
                samples = rng.integers(0, 256, (len(chunk), sample_bytes), dtype=np.uint8)
                if kind != "samples":
                    sizes = rng.integers(sample_bytes // 5, 9 * sample_bytes // 5, len(chunk))
                    samples = np.empty(len(chunk), dtype=object)
                    samples[:] = [bytes(size) for size in sizes.tolist()]
                storage.put(chunk, samples)
        size_bytes = storage.size_bytes
        storage.close()
    return size_bytes / budget


if __name__ == "__main__":
    print(run().to_string())  # noqa: T201

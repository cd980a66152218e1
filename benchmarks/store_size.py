"""`python -m benchmarks.store_size`: the file of a store with a budget, against that budget, for several records.

Ten classes in five tasks bring three times what the budget holds, in chunks of 256 as `TieredMemory.store` does; every
chunk beyond the budget evicts. The size is what `du` says of `data.mdb` when all is stored; it never falls.
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
            row(f"file / budget of {budget >> 20} MiB, samples of {size:,} bytes", fill(size, budget), "ratio")
            for budget in BUDGETS
            for size in SAMPLES
        ]
    )


def fill(sample_bytes: int, budget: int) -> float:
    """File against budget once three times as many samples came as the budget holds."""
    from mirolib import Fingerprint, Storage
    from mirolib.data.stream import make_ids
    from mirolib.memory.store_file import CHECKSUM_BYTES, footprint

    per_class = 3 * budget // footprint(CHECKSUM_BYTES + sample_bytes, 4096) // CLASSES
    rng = np.random.default_rng(0)
    print_ = Fingerprint("random", "", tuple(range(CLASSES)), 0, 0.0, (sample_bytes,), "uint8")
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        storage = Storage(Path(folder), print_, size_budget=budget)
        for labels in np.arange(CLASSES).reshape(TASKS, -1):
            ids = make_ids(np.tile(labels, per_class), np.repeat(np.arange(per_class), len(labels)))
            for start in range(0, len(ids), CHUNK):
                chunk = ids[start : start + CHUNK]
                storage.put(chunk, rng.integers(0, 256, (len(chunk), sample_bytes), dtype=np.uint8))
        size_bytes = storage.size_bytes
        storage.close()
    return size_bytes / budget


if __name__ == "__main__":
    print(run().to_string())  # noqa: T201

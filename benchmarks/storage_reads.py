"""Storage against raw files: 40,000 records of 3,072 bytes, random batches of 128.

A read of the store looks 128 records up in LMDB, verifies their checksums and returns one array; the raw read is
`os.pread` of the same records from a flat file, joined into one array, without checksums; the checked read verifies a
checksum of each of its records too, as any store that promises no damaged record has to. Warm: all in the page cache.
Cold: the store is reopened and the system's page cache dropped before each round. Rounds of the three take turns; a
value is the ratio of the medians of the batches. A write is `Storage.put` of 1,024 records, durable when it returns,
against `write` and `fsync` of as many bytes; both alternate, chunk by chunk. The last rows let a second thread read
the store cold while the main thread counts in pure Python.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.common import row, seconds, table
from mirolib import Fingerprint, Storage
from mirolib.data.stream import make_ids
from mirolib.memory.store_file import checksums

RECORDS, SAMPLE, CLASSES, BATCH, CHUNK = 40_000, 3072, 10, 128, 1024
ROUNDS, WARM_BATCHES, COLD_BATCHES, COUNTING_S = 8, 100, 40, 0.5
_DROP = Path("/proc/sys/vm/drop_caches")
_FINGERPRINT = Fingerprint("random", "", tuple(range(CLASSES)), 0, 0.0, (3, 32, 32), "uint8")


def run() -> pd.DataFrame:
    """Measures writes, warm and cold reads, and what a cold read leaves the main thread."""
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        store, flat = Path(folder) / "store", Path(folder) / "flat"
        rows = _write(store, flat)
        with flat.open("rb") as file:
            rows += _read(store, file.fileno(), "warm", WARM_BATCHES, lambda: None)
            if os.access(_DROP, os.W_OK):
                rows += _read(store, file.fileno(), "cold", COLD_BATCHES, _drop_caches)
                rows += _progress(store)
            else:
                rows.append(row("cold reads (not measured: dropping the page cache takes root)", np.nan, "ratio"))
    return table(rows)


def _drop_caches() -> None:
    os.sync()
    _DROP.write_text("3")


def _ids(positions: np.ndarray) -> np.ndarray:
    """Ids of records by their place in the flat file."""
    return make_ids(positions % CLASSES, positions // CLASSES)


def _write(store: Path, flat: Path) -> list[dict[str, object]]:
    """Writes the same records both ways."""
    rng, storage = np.random.default_rng(0), Storage(store, _FINGERPRINT)
    put_s, raw_s = [], []
    with flat.open("wb", buffering=0) as file:
        for start in range(0, RECORDS, CHUNK):
            positions = np.arange(start, min(start + CHUNK, RECORDS))
            samples = rng.integers(0, 256, (len(positions), 3, 32, 32), dtype=np.uint8)

            def raw(data: bytes = samples.tobytes()) -> None:
                file.write(data)
                os.fsync(file.fileno())

            raw_s.append(seconds(raw))
            put_s.append(seconds(lambda: storage.put(_ids(positions), samples)))  # noqa: B023
    storage.close()
    put, plain = (CHUNK * SAMPLE / 1e6 / float(np.median(times)) for times in (put_s, raw_s))
    return [
        row("Storage.put", put, "MB/s"),
        row("raw write + fsync", plain, "MB/s"),
        row("put / raw write", put / plain, "ratio"),
    ]


def _read(
    store: Path, descriptor: int, state: str, batches: int, prepare: Callable[[], None]
) -> list[dict[str, object]]:
    """Random reads both ways, each round after `prepare`."""
    rng = np.random.default_rng(1)
    times: dict[str, list[float]] = {"store": [], "raw": [], "checked": []}

    def raw(positions: list[int]) -> np.ndarray:
        parts = [os.pread(descriptor, SAMPLE, position * SAMPLE) for position in positions]
        return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, 3, 32, 32)

    def checked(positions: list[int]) -> np.ndarray:
        records = raw(positions)
        assert len(checksums(records.reshape(len(records), -1), np.array(positions), "train")) == BATCH
        return records

    for index in range(3 * ROUNDS):
        turn = [*times, *reversed(times)][index % 6]
        storage = Storage(store, _FINGERPRINT)
        prepare()  # now, for opening reads of each page
        try:
            if state == "warm":  # the new map has to be faulted in
                storage.read(_ids(np.arange(RECORDS)))
            for positions in rng.integers(0, RECORDS, (batches, BATCH)):
                ids, places = _ids(positions), positions.tolist()
                readers = {
                    "store": lambda: storage.read(ids),  # noqa: B023
                    "raw": lambda: raw(places),  # noqa: B023
                    "checked": lambda: checked(places),  # noqa: B023
                }
                times[turn].append(seconds(readers[turn]))
        finally:
            storage.close()
    ours_s, raw_s, checked_s = (float(np.median(times[key])) for key in ("store", "raw", "checked"))
    return [
        row(f"Storage.read, {state}", BATCH / ours_s, "records/s"),
        row(f"raw pread, {state}", BATCH / raw_s, "records/s"),
        row(f"read / raw pread, {state}", raw_s / ours_s, "ratio", at_least=0.75),
        row(f"checked pread / raw pread, {state}", raw_s / checked_s, "ratio"),
    ]


def _progress(store: Path) -> list[dict[str, object]]:
    """How far the main thread gets in pure Python while another reads cold, and how fast that one reads."""
    rng, shares, speeds = np.random.default_rng(2), [], []
    for _ in range(ROUNDS // 2):
        alone = _count()
        _drop_caches()
        storage, done, read = Storage(store, _FINGERPRINT), threading.Event(), 0

        def reader() -> None:
            nonlocal read
            while not done.is_set():  # noqa: B023
                storage.read(_ids(rng.integers(0, RECORDS, BATCH)))  # noqa: B023
                read += BATCH

        thread = threading.Thread(target=reader)
        thread.start()
        start = time.perf_counter()
        beside = _count()
        done.set()
        thread.join()
        speeds.append(read / (time.perf_counter() - start))
        storage.close()
        shares.append(beside / alone)
    return [
        row("main thread's progress beside a cold read / alone", float(np.median(shares)), "ratio"),
        row("records read cold meanwhile", float(np.median(speeds)), "records/s"),
    ]


def _count() -> int:
    """Turns of a pure Python loop in a fixed time."""
    turns, end = 0, time.perf_counter() + COUNTING_S
    while time.perf_counter() < end:
        turns += 1
    return turns

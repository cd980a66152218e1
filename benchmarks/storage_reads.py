"""Storage against an LMDB store and raw files: 40,000 records of 3,072 bytes, random batches of 128.

A read of the store finds 128 records, verifies their checksums and returns one array, singly or as blocks of neighbours
of which as many make a batch. The LMDB store is that of former versions (one transaction a batch, records with
checksums; extra `bench`); the raw read is `os.pread` of the same records from a flat file, joined into one array,
without checksums. Warm: all in the page cache. Cold: the page cache is dropped before each round. Rounds take turns; a
value is the ratio of the medians of the batches. A write is a `put` of 256 records, durable when it returns, against
`write` and `fsync` of as many bytes; the three alternate, chunk by chunk. The last rows let a second thread read the
store cold while the main thread counts in pure Python.
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
import xxhash

from benchmarks.common import row, seconds, table
from mirolib import Fingerprint, Storage
from mirolib.data.stream import make_ids

RECORDS, SAMPLE, CLASSES, BATCH, CHUNK = 40_000, 3072, 10, 128, 256
ROUNDS, WARM_BATCHES, COLD_BATCHES, COUNTING_S = 6, 100, 20, 0.5
BLOCKS = (16, 64)
_DROP = Path("/proc/sys/vm/drop_caches")
_FINGERPRINT = Fingerprint("random", "", tuple(range(CLASSES)), 0, 0.0, (3, 32, 32), "uint8")


class LmdbStore:
    """Records by id in LMDB, as versions up to 0.2 kept them, without their checks of pages and budgets."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it."""
        import lmdb

        self._env = lmdb.open(str(path), map_size=1 << 32, max_dbs=2, readahead=False)
        self._part = self._env.open_db(b"train")

    def put(self, ids: np.ndarray, samples: np.ndarray) -> None:
        """Stores samples in one transaction."""
        items = []
        for id_, sample in zip(ids.tolist(), samples.reshape(len(ids), -1), strict=True):
            digest = xxhash.xxh3_64_intdigest(sample, seed=id_).to_bytes(8, "little")
            items.append((id_.to_bytes(8, "big"), digest + sample.tobytes()))
        with self._env.begin(write=True) as transaction:
            transaction.cursor(self._part).putmulti(items)

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Samples of ids, their checksums verified."""
        with self._env.begin(self._part, buffers=True) as transaction:
            joined = b"".join([transaction.get(id_.to_bytes(8, "big")) for id_ in ids.tolist()])
        records = np.frombuffer(joined, dtype=np.uint8).reshape(len(ids), -1)
        found = [xxhash.xxh3_64_intdigest(one, seed=id_) for one, id_ in zip(records[:, 8:], ids.tolist(), strict=True)]
        assert np.array_equal(records[:, :8].copy().view("<u8")[:, 0], np.array(found, dtype="<u8"))
        return records[:, 8:].reshape(-1, 3, 32, 32)

    def close(self) -> None:
        """Closes it."""
        self._env.close()


def run() -> pd.DataFrame:
    """Measures writes, warm and cold reads, and what a cold read leaves the main thread."""
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        store, former, flat = (Path(folder) / name for name in ("store", "lmdb", "flat"))
        rows = _write(store, former, flat)
        rows += _read(store, former, flat, "warm", WARM_BATCHES)
        if os.access(_DROP, os.W_OK):
            rows += _read(store, former, flat, "cold", COLD_BATCHES)
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


def _write(store: Path, former: Path, flat: Path) -> list[dict[str, object]]:
    """Writes the same records each way."""
    rng, storage, lmdb = np.random.default_rng(0), Storage(store, _FINGERPRINT), LmdbStore(former)
    times: dict[str, list[float]] = {"Storage.put": [], "LMDB": [], "raw write + fsync": []}
    with flat.open("wb", buffering=0) as file:
        for start in range(0, RECORDS, CHUNK):
            positions = np.arange(start, min(start + CHUNK, RECORDS))
            samples = rng.integers(0, 256, (len(positions), 3, 32, 32), dtype=np.uint8)

            def raw(data: bytes = samples.tobytes()) -> None:
                file.write(data)
                os.fsync(file.fileno())

            times["raw write + fsync"].append(seconds(raw))
            times["Storage.put"].append(seconds(lambda: storage.put(_ids(positions), samples)))  # noqa: B023
            times["LMDB"].append(seconds(lambda: lmdb.put(_ids(positions), samples)))  # noqa: B023
    storage.close()
    lmdb.close()
    speeds = {what: CHUNK * SAMPLE / 1e6 / float(np.median(each)) for what, each in times.items()}
    return [row(what, speed, "MB/s") for what, speed in speeds.items()] + [
        row("put / LMDB", speeds["Storage.put"] / speeds["LMDB"], "ratio", at_least=2),
        row("put / raw write", speeds["Storage.put"] / speeds["raw write + fsync"], "ratio"),
    ]


def _read(store: Path, former: Path, flat: Path, state: str, batches: int) -> list[dict[str, object]]:
    """Random reads each way, in rounds."""
    rng, speeds = np.random.default_rng(1), {}

    def raw(positions: np.ndarray) -> np.ndarray:
        parts = [os.pread(descriptor, SAMPLE, position * SAMPLE) for position in positions.tolist()]
        return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, 3, 32, 32)

    for _ in range(ROUNDS):
        storage, lmdb, descriptor = Storage(store, _FINGERPRINT), LmdbStore(former), os.open(flat, os.O_RDONLY)
        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "singly": lambda positions: storage.read(_ids(positions)),  # noqa: B023
            "LMDB": lambda positions: lmdb.read(_ids(positions)),  # noqa: B023
            "raw pread": raw,
        }
        for size in BLOCKS:
            ways[f"blocks of {size}"] = (
                lambda positions, size=size, storage=storage: storage.read(  # type: ignore[misc]
                    storage.neighbours(_ids(positions[: BATCH // size]), size)
                )
            )
        for way, reader in ways.items():
            if state == "cold":
                _drop_caches()
            else:
                for chunk in np.array_split(np.arange(RECORDS), 100):
                    reader(chunk)
                    storage.read(_ids(chunk))
            for positions in rng.integers(0, RECORDS - max(BLOCKS), (batches, BATCH)):
                start = time.perf_counter()
                read = len(reader(positions))
                speeds.setdefault(way, []).append(read / (time.perf_counter() - start))
        storage.close()
        lmdb.close()
        os.close(descriptor)
    found = {way: float(np.median(each)) for way, each in speeds.items()}
    singly, blocks = (4, 10) if state == "cold" else (1.5, 1.5)
    return [row(f"{way}, {state}", speed, "records/s") for way, speed in found.items()] + [
        row(f"singly / LMDB, {state}", found["singly"] / found["LMDB"], "ratio", at_least=singly),
        *(
            row(
                f"blocks of {size} / LMDB, {state}",
                found[f"blocks of {size}"] / found["LMDB"],
                "ratio",
                at_least=blocks,
            )
            for size in BLOCKS
        ),
        row(f"singly / raw pread, {state}", found["singly"] / found["raw pread"], "ratio"),
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

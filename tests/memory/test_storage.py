import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import SHAPE, tagged
from stores import PRINT, alter, assert_holds, ids_of, opened, put

from mirolib import CorruptRecordError, InputError, StorageError


@pytest.fixture
def storage(tmp_path):
    """A new store."""
    storage = opened(tmp_path)
    yield storage
    storage.close()


def test_what_is_put_is_read_in_any_order(storage):
    ids = np.concatenate([ids_of(1, 0, 30), ids_of(0, 0, 10)])
    assert put(storage, ids) == 40
    assert_holds(storage, np.random.default_rng(0).permutation(ids))
    assert storage.counts(3).tolist() == [10, 30, 0]
    assert storage.bytes_written == storage.bytes_read == 40 * (16 + 8)
    assert len(storage.read(ids[:0])) == 0


def test_parts_are_apart(storage):
    put(storage, ids_of(0, 0, 4))
    storage.put(ids_of(0, 0, 2), 255 - tagged(ids_of(0, 0, 2)), "validation")
    assert (storage.count(0), storage.count(0, "validation")) == (4, 2)
    np.testing.assert_array_equal(storage.read(ids_of(0, 0, 2), "validation"), 255 - tagged(ids_of(0, 0, 2)))


def test_float_samples_come_back_as_they_were(tmp_path):
    storage = opened(tmp_path, replace(PRINT, sample_shape=(5,), sample_dtype="float32"))
    samples = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    storage.put(ids_of(2, 0, 7), samples)
    np.testing.assert_array_equal(storage.read(ids_of(2, 0, 7)), samples)
    storage.close()


def test_putting_again_changes_and_counts_nothing(storage):
    put(storage, ids_of(0, 0, 5))
    assert storage.put(ids_of(0, 0, 8), np.zeros((8, *SHAPE), np.uint8)) == 3
    assert_holds(storage, ids_of(0, 0, 5))
    assert storage.bytes_written == 8 * 24


def test_gaps_and_other_shapes_are_refused(storage):
    for start, shape, dtype, sentence in (
        (1, SHAPE, "uint8", "continue at ordinal 0"),
        (0, (4, 4), "uint8", r"holds samples \(1, 4, 4\) uint8"),
        (0, SHAPE, "float32", "float32"),
    ):
        with pytest.raises(InputError, match=sentence):
            storage.put(ids_of(0, start, start + 1), np.zeros((1, *shape), dtype))
    assert storage.count(0) == 0


def test_a_store_reopens_only_for_what_it_was_written_for(tmp_path):
    storage = opened(tmp_path)
    put(storage, ids_of(0, 0, 5))
    storage.close()
    again = opened(tmp_path)
    assert again.count(0) == 5
    again.close()
    for other, name in (
        (replace(PRINT, dataset="digits"), "dataset"),
        (replace(PRINT, content="abd"), "content"),
        (replace(PRINT, class_order=(0, 1, 2)), "class_order"),
        (replace(PRINT, seed=1), "seed"),
        (replace(PRINT, format_version=1), "format_version"),
    ):
        with pytest.raises(StorageError, match=f"another {name} .*delete this one"):
            opened(tmp_path, other)


@pytest.mark.parametrize("offset", [-8, -1, 0, 7, 15])
def test_a_flipped_bit_is_named(tmp_path, offset):
    storage = opened(tmp_path)
    put(storage, ids_of(1, 0, 5))
    storage.close()
    content, needle = bytearray((tmp_path / "data.mdb").read_bytes()), tagged(ids_of(1, 3, 4)).tobytes()
    assert content.count(needle) == 1
    content[content.index(needle) + offset] ^= 1 << 2
    (tmp_path / "data.mdb").write_bytes(content)
    storage = opened(tmp_path)
    storage.read(ids_of(1, 0, 3))
    with pytest.raises(CorruptRecordError, match=r"Record 3 of label 1 \(train\).*checksum"):
        storage.read(ids_of(1, 0, 5))
    with pytest.raises(CorruptRecordError, match="Record 9 of label 1 .* missing"):
        storage.read(ids_of(1, 9, 10))
    storage.close()


@pytest.mark.parametrize(
    ("record", "sentence"),
    [(lambda found: found((1).to_bytes(8, "big")), "checksum"), (lambda found: found(b"\0" * 8)[:-1], "cut short")],
    ids=["under another key", "cut short"],
)
def test_a_record_that_is_not_what_was_put_is_named(storage, record, sentence):
    put(storage, ids_of(0, 0, 2))
    alter(storage, lambda transaction: transaction.put(b"\0" * 8, record(transaction.get)))
    with pytest.raises(CorruptRecordError, match=f"Record 0 of label 0 .*{sentence}"):
        storage.read(ids_of(0, 0, 2))


def test_what_is_no_store_and_can_be_none_is_refused_with_a_sentence(tmp_path):
    other = tmp_path / "other" / "data.mdb"
    other.parent.mkdir()
    other.write_bytes(b"no database" * 1000)
    (tmp_path / "file").write_text("a file, not a folder")
    for name in ("other", "file", "file/store"):
        with pytest.raises(StorageError, match="can't be opened"):
            opened(tmp_path / name)
    assert other.read_bytes() == b"no database" * 1000


def test_a_full_disk_leaves_the_store_as_it_was(disk):
    disk.fill(2 << 20)
    storage = opened(disk.path / "store", replace(PRINT, sample_shape=(3072,)))
    put(storage, ids_of(0, 0, 100))
    written = storage.bytes_written
    with pytest.raises(StorageError, match="Free space .*nothing already stored is lost"):
        put(storage, ids_of(0, 100, 1100))
    assert storage.count(0) == 100 and storage.bytes_written == written
    assert_holds(storage, ids_of(0, 0, 100))
    put(storage, ids_of(0, 100, 150))  # a smaller piece still fits
    assert storage.count(0) == 150
    storage.close()


def write_until_killed(path: Path, confirmed) -> None:
    storage = opened(path)
    for start in range(storage.count(0), 1_000_000, 40):
        put(storage, ids_of(0, start, start + 40))
        confirmed.value = start + 40


def test_kill_9_fifty_times_keeps_every_committed_record(tmp_path):
    """A writer is killed at random instants and started again on the same store; nothing it confirmed may be lost."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mirolib", "pytest"])
    rng = np.random.default_rng(0)
    confirmed = context.Value("q", 0, lock=False)
    for _ in range(50):
        before = confirmed.value
        writer = context.Process(target=write_until_killed, args=(tmp_path, confirmed), daemon=True)
        writer.start()
        while confirmed.value == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        storage = opened(tmp_path)
        count = storage.count(0)
        assert confirmed.value <= count <= confirmed.value + 40 and count % 40 == 0
        assert_holds(storage, ids_of(0, 0, count))
        storage.close()
        confirmed.value = count


def test_reading_while_another_thread_writes_and_the_map_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("mirolib.memory.storage._FIRST_MAP", 1 << 17)
    storage = opened(tmp_path, replace(PRINT, sample_shape=(3072,)))
    ids = ids_of(0, 0, 200)
    samples = tagged(ids, (3072,))  # made before: readers that do little else are often in the way of a growing map
    put(storage, ids)
    stop, reads, failed = threading.Event(), [], []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                some = rng.integers(0, 200, 8)
                assert (storage.read(ids[some]) == samples[some]).all()
                reads.append(seed)
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 2000, 50):
        put(storage, ids_of(1, start, start + 50))
    stop.set()
    for reader in readers:
        reader.join()
    assert not failed and storage.count(1) == 2000 and storage.bytes_read == len(reads) * 8 * (3072 + 8)
    assert 2200 * 3080 < storage.size_bytes < 2300 * 4096, "a record a page"
    storage.close()
    with pytest.raises(StorageError, match="can't be read"):
        storage.read(ids_of(0, 0, 1))


def test_fingerprint_is_kept_as_json(tmp_path):
    storage = opened(tmp_path)
    with storage._env.begin() as transaction:
        assert json.loads(transaction.get(b"fingerprint"))["class_order"] == [1, 0, 2]
    with storage._env.begin(write=True) as transaction:
        transaction.put(b"fingerprint", b"\xff not json")
    storage.close()
    with pytest.raises(StorageError, match="unreadable fingerprint"):
        opened(tmp_path)

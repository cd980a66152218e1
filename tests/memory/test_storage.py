import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import SHAPE, tagged
from stores import PRINT, ids_of, opened

from mirolib import CorruptRecordError, InputError, StorageError


def test_what_is_put_is_read_in_any_order(tmp_path):
    storage = opened(tmp_path)
    ids = np.concatenate([ids_of(1, 0, 30), ids_of(0, 0, 10)])
    assert storage.put(ids, tagged(ids)) == 40
    wanted = np.random.default_rng(0).permutation(ids)
    np.testing.assert_array_equal(storage.read(wanted), tagged(wanted))
    assert storage.counts(3).tolist() == [10, 30, 0]
    assert storage.bytes_written == storage.bytes_read == 40 * (16 + 8)
    assert len(storage.read(ids[:0])) == 0
    storage.close()


def test_parts_are_apart(tmp_path):
    storage = opened(tmp_path)
    storage.put(ids_of(0, 0, 4), tagged(ids_of(0, 0, 4)), "train")
    storage.put(ids_of(0, 0, 2), 255 - tagged(ids_of(0, 0, 2)), "validation")
    assert (storage.count(0), storage.count(0, "validation")) == (4, 2)
    np.testing.assert_array_equal(storage.read(ids_of(0, 0, 2), "validation"), 255 - tagged(ids_of(0, 0, 2)))
    storage.close()


def test_float_samples_come_back_as_they_were(tmp_path):
    storage = opened(tmp_path, replace(PRINT, sample_shape=(5,), sample_dtype="float32"))
    samples = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    storage.put(ids_of(2, 0, 7), samples)
    np.testing.assert_array_equal(storage.read(ids_of(2, 0, 7)), samples)
    storage.close()


def test_putting_again_changes_and_counts_nothing(tmp_path):
    storage = opened(tmp_path)
    storage.put(ids_of(0, 0, 5), tagged(ids_of(0, 0, 5)))
    assert storage.put(ids_of(0, 0, 8), np.zeros((8, *SHAPE), np.uint8)) == 3
    np.testing.assert_array_equal(storage.read(ids_of(0, 0, 5)), tagged(ids_of(0, 0, 5)))
    assert storage.bytes_written == 8 * 24
    storage.close()


def test_gaps_and_other_shapes_are_refused(tmp_path):
    storage = opened(tmp_path)
    with pytest.raises(InputError, match="continue at ordinal 0"):
        storage.put(ids_of(0, 1, 3), tagged(ids_of(0, 1, 3)))
    with pytest.raises(InputError, match=r"holds samples \(1, 4, 4\) uint8"):
        storage.put(ids_of(0, 0, 1), np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(InputError, match="float32"):
        storage.put(ids_of(0, 0, 1), np.zeros((1, *SHAPE), np.float32))
    assert storage.count(0) == 0
    storage.close()


def test_a_store_reopens_only_for_what_it_was_written_for(tmp_path):
    storage = opened(tmp_path)
    storage.put(ids_of(0, 0, 5), tagged(ids_of(0, 0, 5)))
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


def test_a_store_grows_beyond_its_first_map(tmp_path):
    storage = opened(tmp_path, replace(PRINT, sample_shape=(3, 512, 512)))
    samples = np.random.default_rng(0).integers(0, 256, (100, 3, 512, 512), dtype=np.uint8)
    storage.put(ids_of(0, 0, 100), samples)
    np.testing.assert_array_equal(storage.read(ids_of(0, 99, 100))[0], samples[99])
    assert 78e6 < storage.size_bytes < 90e6
    storage.close()


def flip(path: Path, needle: bytes, offset: int, bit: int) -> None:
    """Flips one bit of the only place in the file where `needle` stands."""
    content = bytearray(path.read_bytes())
    at = content.index(needle)
    assert content.find(needle, at + 1) < 0
    content[at + offset] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("offset", [-8, -1, 0, 7, 15])
def test_a_flipped_bit_is_named(tmp_path, offset):
    storage = opened(tmp_path)
    storage.put(ids_of(1, 0, 5), tagged(ids_of(1, 0, 5)))
    storage.close()
    flip(tmp_path / "data.mdb", tagged(ids_of(1, 3, 4)).tobytes(), offset, bit=2)
    storage = opened(tmp_path)
    storage.read(ids_of(1, 0, 3))
    with pytest.raises(CorruptRecordError, match=r"Record 3 of label 1 \(train\).*checksum"):
        storage.read(ids_of(1, 0, 5))
    with pytest.raises(CorruptRecordError, match="Record 9 of label 1 .* missing"):
        storage.read(ids_of(1, 9, 10))
    storage.close()


def test_a_record_under_another_key_is_found_out(tmp_path):
    storage = opened(tmp_path)
    storage.put(ids_of(0, 0, 2), tagged(ids_of(0, 0, 2)))
    with storage._env.begin(storage._databases["train"], write=True) as transaction:
        transaction.put(b"\0" * 8, transaction.get((1).to_bytes(8, "big")))
    with pytest.raises(CorruptRecordError, match="Record 0 of label 0"):
        storage.read(ids_of(0, 0, 1))
    storage.close()


def test_a_record_cut_short_is_named(tmp_path):
    storage = opened(tmp_path)
    storage.put(ids_of(0, 0, 2), tagged(ids_of(0, 0, 2)))
    with storage._env.begin(storage._databases["train"], write=True) as transaction:
        transaction.put(b"\0" * 8, transaction.get(b"\0" * 8)[:-1])
    with pytest.raises(CorruptRecordError, match="Record 0 of label 0 .* cut short"):
        storage.read(ids_of(0, 0, 2))
    storage.close()


def test_what_is_no_store_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="can't be opened"):
        opened(tmp_path / "other")
    assert (tmp_path / "other" / "data.mdb").read_bytes() == b"no database" * 1000
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="can't be opened"):
        opened(tmp_path / "file")


def test_two_in_one_process_are_refused(tmp_path):
    storage = opened(tmp_path)
    with pytest.raises(StorageError, match="already open"):
        opened(tmp_path)
    storage.close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_the_store_as_it_was(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"tmpfs can't be mounted here: {mounted.stderr.decode().strip()}")
    try:
        storage = opened(tmp_path / "store", replace(PRINT, sample_shape=(3072,)))
        first = ids_of(0, 0, 100)
        storage.put(first, tagged(first, (3072,)))
        written = storage.bytes_written
        with pytest.raises(StorageError, match="Free space .*nothing already stored is lost"):
            storage.put(ids_of(0, 100, 1100), tagged(ids_of(0, 100, 1100), (3072,)))
        assert storage.count(0) == 100 and storage.bytes_written == written
        np.testing.assert_array_equal(storage.read(first), tagged(first, (3072,)))
        more = ids_of(0, 100, 150)  # a smaller piece still fits
        storage.put(more, tagged(more, (3072,)))
        assert storage.count(0) == 150
        storage.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "blocker").write_text("")
    with pytest.raises(StorageError, match="can't be opened"):
        opened(tmp_path / "blocker" / "store")


def write_until_killed(path: Path, confirmed) -> None:
    storage = opened(path)
    for start in range(storage.count(0), 1_000_000, 40):
        ids = ids_of(0, start, start + 40)
        storage.put(ids, tagged(ids))
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
        np.testing.assert_array_equal(storage.read(ids_of(0, 0, count)), tagged(ids_of(0, 0, count)))
        storage.close()
        confirmed.value = count


def test_reading_while_another_thread_writes(tmp_path):
    storage = opened(tmp_path)
    storage.put(ids_of(0, 0, 200), tagged(ids_of(0, 0, 200)))
    wrong: list[int] = []

    def read() -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            ids = ids_of(0, 0, 200)[rng.integers(0, 200, 16)]
            wrong.extend(np.flatnonzero((storage.read(ids) != tagged(ids)).any(axis=(1, 2, 3))).tolist())

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(20):
        ids = ids_of(1, 50 * k, 50 * k + 50)
        storage.put(ids, tagged(ids))
    reader.join()
    assert not wrong and storage.count(1) == 1000 and storage.bytes_read == 200 * 16 * 24
    storage.close()


def test_a_map_that_grows_under_readers(tmp_path, monkeypatch):
    monkeypatch.setattr("mirolib.memory.storage._FIRST_MAP", 1 << 17)
    storage = opened(tmp_path, replace(PRINT, sample_shape=(3072,)))
    storage.put(ids_of(0, 0, 8), tagged(ids_of(0, 0, 8), (3072,)))
    stop, failed = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                storage.read(ids_of(0, 0, 8))
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for k in range(40):
        ids = ids_of(1, 50 * k, 50 * k + 50)
        storage.put(ids, tagged(ids, (3072,)))
    stop.set()
    for reader in readers:
        reader.join()
    assert not failed and storage.count(1) == 2000
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

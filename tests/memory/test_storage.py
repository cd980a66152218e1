import errno
import gc
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
from stores import PRINT, assert_holds, drop, flip, ids_of, opened, put

from mirolib import CorruptRecordError, InputError, MemoryConfig, Storage, StorageError, TieredMemory
from mirolib.memory.store_check import verify
from mirolib.memory.store_file import ROW


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
    assert (storage.bytes_written, storage.bytes_read) == (40 * (16 + 16 + 32), 40 * (16 + 16))
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
    assert storage.bytes_written == 8 * 64


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


@pytest.mark.parametrize("offset", [-16, -1, 0, 7, 15])
def test_a_flipped_bit_is_named_and_costs_one_record(tmp_path, offset):
    storage = opened(tmp_path)
    put(storage, ids_of(1, 0, 5))
    storage.close()
    flip(tmp_path, ids_of(1, 3, 4)[0], offset)
    storage = opened(tmp_path)
    for sound in (ids_of(1, 0, 3), ids_of(1, 4, 5)):
        assert_holds(storage, sound)
    with pytest.raises(CorruptRecordError, match=r"Record 3 of label 1 \(train\).*missing or damaged"):
        storage.read(ids_of(1, 0, 5))
    with pytest.raises(CorruptRecordError, match="Record 9 of label 1 .* missing"):
        storage.read(ids_of(1, 9, 10))
    assert storage.damaged["train"] == set(ids_of(1, 3, 4).tolist() + ids_of(1, 9, 10).tolist())
    storage.close()


def test_a_record_in_the_place_of_another_is_named(tmp_path):
    storage = opened(tmp_path)
    put(storage, ids_of(0, 0, 3))
    storage.close()
    data = (tmp_path / "data.bin").read_bytes()
    (tmp_path / "data.bin").write_bytes(data[32:64] + data[32:])
    storage = opened(tmp_path)
    assert storage.read_sound(ids_of(0, 0, 3))[1].tolist() == [False, True, True]
    storage.close()


@pytest.mark.parametrize("byte", range(32))
def test_a_flipped_bit_of_a_row_costs_one_record_which_is_written_anew(tmp_path, byte, caplog):
    storage = opened(tmp_path)
    put(storage, np.concatenate([ids_of(0, 0, 4), ids_of(1, 0, 4)]))
    storage.close()
    index = bytearray((tmp_path / "index.bin").read_bytes())
    index[3 * 32 + byte] ^= 1 << byte % 8
    (tmp_path / "index.bin").write_bytes(index)
    storage = opened(tmp_path)
    assert "has lost 1 records" in caplog.text
    ids = np.concatenate([ids_of(0, 0, 4), ids_of(1, 0, 4)])
    assert storage.holds(ids).sum() == 7
    assert storage.read_sound(ids)[1].sum() == 7
    assert put(storage, ids) == 1
    assert_holds(storage, ids)
    storage.close()
    again = opened(tmp_path)
    assert again.holds(ids).all() and again.counts(2).tolist() == [4, 4]
    again.close()


def test_blocks_are_neighbours_in_the_order_of_writing(tmp_path):
    storage = opened(tmp_path)
    ids = np.concatenate([ids_of(label, 0, 6) for label in range(3)])
    put(storage, np.random.default_rng(0).permutation(ids))
    put(storage, ids_of(0, 0, 2), "validation")
    first = np.fromfile(tmp_path / "index.bin", dtype=ROW)["key"][:1].astype(np.int64)
    whole = storage.neighbours(first, 100)
    assert sorted(whole) == sorted(ids), "none of the other part"
    for prefix in range(1, 18):
        counts = np.bincount(whole[:prefix] >> 32, minlength=3)
        assert counts.max() - counts.min() <= 1, "classes take turns"
    found = storage.neighbours(whole[[2, 9]], 4)
    assert found.tolist() == [*whole[2:6], *whole[9:13]]
    np.testing.assert_array_equal(storage.read(found), tagged(found))
    storage.close()
    flip(tmp_path, whole[4])
    drop(tmp_path, whole[11])
    storage = opened(tmp_path)
    found = storage.neighbours(whole[[2, 9]], 4)
    assert found.tolist() == [*whole[2:6], *whole[[9, 10, 12]]]
    assert storage.read_sound(found)[1].tolist() == [True, True, False, *[True] * 4]
    assert storage.neighbours(ids_of(2, 50, 51), 4).tolist() == []
    storage.close()


def test_what_was_not_written_to_its_end_is_cut_off(tmp_path):
    storage = opened(tmp_path)
    put(storage, ids_of(0, 0, 10))
    storage.close()
    sizes = {name: (tmp_path / name).stat().st_size for name in ("data.bin", "index.bin")}
    for name, torn in (("data.bin", b"half a record"), ("index.bin", bytes(range(1, 50)))):
        with (tmp_path / name).open("ab") as file:
            file.write(torn)
        opened(tmp_path).close()
        assert (tmp_path / name).stat().st_size == sizes[name]
    storage = opened(tmp_path)
    assert_holds(storage, ids_of(0, 0, 10))
    put(storage, ids_of(0, 10, 12))
    assert_holds(storage, ids_of(0, 0, 12))
    storage.close()


def test_a_file_that_shrinks_while_it_is_open_loses_what_it_lost(tmp_path):
    storage = opened(tmp_path)
    put(storage, ids_of(0, 0, 10))
    os.truncate(tmp_path / "data.bin", 5 * 32 + 7)
    samples, sound = storage.read_sound(ids_of(0, 0, 10))
    assert sound.tolist() == [True] * 5 + [False] * 5
    np.testing.assert_array_equal(samples, tagged(ids_of(0, 0, 5)))
    storage.close()


def test_a_medium_that_refuses_to_read_a_place_costs_the_records_that_lie_there(storage, monkeypatch):
    put(storage, ids_of(0, 0, 10))
    read = os.preadv

    def refusing(file, buffers, offset, flags=0):
        wanted = len(buffers[0])
        if flags or offset <= 100 < offset + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(file, [buffers[0][: min(wanted, 100 - offset)] if offset < 100 else buffers[0]], offset)

    monkeypatch.setattr(os, "preadv", refusing)
    samples, sound = storage.read_sound(ids_of(0, 0, 10))
    assert sound.tolist() == [place != 3 for place in range(10)]
    np.testing.assert_array_equal(samples, tagged(ids_of(0, 0, 10)[sound]))


def test_a_system_that_can_not_say_what_is_in_ram_reads_the_same(storage, monkeypatch):
    put(storage, ids_of(0, 0, 30))
    read, asked = os.preadv, []

    def refusing(file, buffers, offset, flags=0):
        if flags:
            asked.append(offset)
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return read(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    for nowait in (os.RWF_NOWAIT, None):
        monkeypatch.setattr("mirolib.memory.store_file._NOWAIT", nowait)
        assert_holds(storage, ids_of(0, 0, 30)[::-2])
    assert len(asked) == 15


@pytest.mark.parametrize("encoded", [False, True])
def test_a_store_with_a_budget_gives_places_on_and_keeps_to_it(tmp_path, encoded):
    """Beside an independent rule: of all that came, those of the lowest ordinals and, among equals, labels."""
    rng = np.random.default_rng(0)
    fingerprint = replace(PRINT, sample_shape=(), sample_dtype="object", mean_bytes=90) if encoded else PRINT
    budget, came = 6000, []
    storage = Storage(tmp_path, fingerprint, size_budget=budget)
    for label, count in ((0, 90), (1, 7), (2, 60)):
        ids = ids_of(label, 0, count)
        samples = tagged(ids)
        if encoded:
            samples = np.empty(count, dtype=object)
            samples[:] = [bytes([label]) * int(rng.integers(20, 160)) for _ in ids]
        came += [(ordinal, label, sample) for ordinal, sample in enumerate(samples)]
        for start in range(0, count, 9):
            storage.put(ids[start : start + 9], samples[start : start + 9])
            size = sum((tmp_path / name).stat().st_size for name in ("data.bin", "index.bin"))
            assert size <= 1.1 * budget
    for label in range(3):
        kept = storage.count(label)
        for sample, want in zip(
            storage.read(ids_of(label, 0, kept)), [s for _, at, s in came if at == label], strict=False
        ):
            np.testing.assert_array_equal(sample, want)
    counts = storage.counts(3)
    sizes = [len(s) if encoded else s.nbytes for o, label, s in came if o < counts[label]]
    assert sum(sizes) + 48 * len(sizes) <= budget and counts[1] == 7 and 0 <= counts[0] - counts[2] <= 1
    following = next(s for o, label, s in came if (o, label) == (counts[2], 2 if counts[0] > counts[2] else 0))
    following = len(following) if encoded else following.nbytes
    assert sum(sizes) + 48 * len(sizes) + following + 48 > budget or encoded, "not one more would fit"
    storage.close()
    again = Storage(tmp_path, fingerprint, size_budget=budget)
    assert again.counts(3).tolist() == counts.tolist()
    again.close()


def test_a_store_that_nobody_closes_is_let_go_of(tmp_path):
    storage = opened(tmp_path)
    with pytest.raises(StorageError, match="already open in this process"):
        opened(tmp_path)
    del storage
    gc.collect()
    opened(tmp_path).close()
    with pytest.raises(InputError, match="single-level") as refused:
        TieredMemory(opened(tmp_path), MemoryConfig(5, 5, 0.5), 3, hierarchical=False)
    opened(tmp_path).close()
    del refused


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", without)
    with pytest.raises(StorageError, match="file system .* has no locks .*on another"):
        opened(tmp_path)


def test_a_store_of_a_former_format_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"of version 0.2")
    with pytest.raises(StorageError, match="data.mdb .*former versions .*delete the folder: it is written again"):
        opened(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes() == b"of version 0.2" and not (tmp_path / "store.json").exists()


def test_the_users_folder_may_be_named_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    opened("~/store").close()
    assert verify("~/store", progress=False).sound and (tmp_path / "store" / "data.bin").exists()


def test_what_is_no_store_and_can_be_none_is_refused_with_a_sentence(tmp_path):
    other = tmp_path / "other" / "store.json"
    other.parent.mkdir()
    other.write_bytes(b"no fingerprint" * 1000)
    (tmp_path / "file").write_text("a file, not a folder")
    for name, sentence in (("other", "unreadable"), ("file", "can't be opened"), ("file/store", "can't be opened")):
        with pytest.raises(StorageError, match=sentence):
            opened(tmp_path / name)
    assert other.read_bytes() == b"no fingerprint" * 1000


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
        assert confirmed.value <= count <= confirmed.value + 40, "of what was not confirmed, some or all may be there"
        assert_holds(storage, ids_of(0, 0, count))
        storage.close()
        confirmed.value = count


def test_reading_while_another_thread_writes(tmp_path):
    storage = opened(tmp_path, replace(PRINT, sample_shape=(3072,)))
    ids = ids_of(0, 0, 200)
    samples = tagged(ids, (3072,))
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
    assert not failed and storage.count(1) == 2000 and storage.bytes_read == len(reads) * 8 * (3072 + 16)
    assert 0 <= storage.size_bytes - 2200 * 3120 < 3 * 4096
    storage.close()
    with pytest.raises(StorageError, match="can't be read: it is closed"):
        storage.read(ids_of(0, 0, 1))


def test_fingerprint_is_kept_as_json(tmp_path):
    opened(tmp_path).close()
    assert json.loads((tmp_path / "store.json").read_text())["class_order"] == [1, 0, 2]
    (tmp_path / "store.json").write_bytes(b"\xff not json")
    with pytest.raises(StorageError, match="unreadable fingerprint"):
        opened(tmp_path)

"""Damaged, cut and occupied stores: what opens, what is left, and what is said."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import tagged
from stores import PRINT, assert_holds, drop, filled, flip, ids_of, opened, put

from benchmarks.faults import flip_bits
from mirolib import StorageError
from mirolib.__main__ import main
from mirolib.memory.storage import Storage
from mirolib.memory.store_check import repair, verify

LONG = replace(PRINT, sample_shape=(3, 32, 32))


def sound_ids(storage: Storage, part: str = "train", count: int = 200) -> np.ndarray:
    """Ids of what can still be read, of which every byte must be right."""
    ids = np.concatenate([ids_of(0, 0, count), ids_of(1, 0, count)])
    samples, sound = storage.read_sound(ids, part)
    np.testing.assert_array_equal(samples, tagged(ids[sound], storage.fingerprint.sample_shape))
    return ids[sound]


def test_a_sound_store_is_reported_as_such(tmp_path):
    filled(tmp_path)
    report = verify(tmp_path, progress=False)
    assert report.sound and not report.problems and not report.damaged
    assert report.classes[["part", "label", "records", "size_bytes"]].to_numpy().tolist() == [
        ["train", 0, 200, 200 * 32],
        ["train", 1, 200, 200 * 32],
        ["validation", 0, 20, 20 * 32],
        ["validation", 1, 20, 20 * 32],
    ]


def test_flipped_and_missing_records_are_listed_and_repaired(tmp_path, capsys):
    filled(tmp_path)
    drop(tmp_path, 7)
    flip(tmp_path, 1 << 32 | 150)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    report = verify(tmp_path, progress=False)
    assert report.damaged == (("train", int(ids_of(1, 150, 151)[0])),)
    assert report.classes[["damaged", "missing"]].to_numpy().tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    assert not report.sound and not report.problems
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert main(["verify", str(tmp_path)]) == 1
    assert "damaged: record 150 of label 1 (train)" in capsys.readouterr().out
    assert repair(tmp_path) == 438
    assert verify(tmp_path, progress=False).classes["missing"].tolist() == [1, 1, 0, 0]
    storage = opened(tmp_path)
    assert put(storage, np.concatenate([ids_of(0, 0, 200), ids_of(1, 0, 200)])) == 2
    assert len(sound_ids(storage)) == 400
    storage.close()
    assert verify(tmp_path, progress=False).sound


@pytest.mark.parametrize("fingerprint", [PRINT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("records", [1, 30, 400])
def test_a_store_that_lost_its_tail_opens_with_what_is_left(tmp_path, fingerprint, records, capsys):
    filled(tmp_path, fingerprint)
    data, slot = tmp_path / "data.bin", 16 + fingerprint.sample_bytes
    os.truncate(data, data.stat().st_size - records * slot + 5)
    report = verify(tmp_path, progress=False)
    assert not report.sound and f"{records} rows of index.bin" in report.problems[0]
    storage = opened(tmp_path, fingerprint)
    assert len(sound_ids(storage)) == 400 - records
    put(storage, np.concatenate([ids_of(0, 0, 200), ids_of(1, 0, 200)]))  # lost records are written again
    assert len(sound_ids(storage)) == 400
    storage.close()
    assert verify(tmp_path, progress=False).sound


@pytest.mark.parametrize("name", ["data.bin", "index.bin"])
def test_a_store_of_which_nothing_is_left_becomes_a_new_one(tmp_path, name):
    filled(tmp_path)
    (tmp_path / name).write_bytes(b"")
    storage = opened(tmp_path)
    assert not len(sound_ids(storage)) and (tmp_path / "data.bin").stat().st_size == 0
    storage.close()


@pytest.mark.parametrize("name", ["data.bin", "index.bin"])
@pytest.mark.parametrize("sample_bytes", [16, 3000, 0])
def test_no_flipped_bit_goes_undetected_or_costs_more_than_a_record(sample_bytes, name):
    found = flip_bits(20, sample_bytes, name, seed=1)
    assert found.total() == 20 and set(found) == {"named"}


def hold(path: Path, ready) -> None:
    storage = opened(path)
    ready.set()
    signal.pause()
    storage.close()


def test_a_second_process_is_refused_and_a_dead_one_is_no_obstacle(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready), daemon=True)
    other.start()
    assert ready.wait(120)
    for use in (opened, verify):
        with pytest.raises(StorageError, match=f"in use by process {other.pid}; wait"):
            use(tmp_path)
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert (tmp_path / "process.lock").read_text() == str(other.pid)
    (tmp_path / "process.lock").write_text("1")  # its number may belong to a living process by now
    opened(tmp_path).close()


def test_a_budget_keeps_the_classes_even_and_the_validation_samples(tmp_path):
    budget = 60 * 3120
    storage = Storage(tmp_path, LONG, size_budget=budget)
    for label, count in ((0, 40), (1, 10), (2, 80)):
        put(storage, ids_of(label, 0, 4), "validation")
        for start in range(0, count, 8):
            put(storage, ids_of(label, start, min(count, start + 8)))
    counts = storage.counts(3)
    assert storage.counts(3, "validation").tolist() == [4, 4, 4]
    assert counts[1] == 10 and 0 <= counts[0] - counts[2] <= 1 and counts.sum() == 60 - 12
    for label, count in enumerate(counts):
        assert_holds(storage, ids_of(label, 0, count))
    storage.close()
    again = Storage(tmp_path, LONG, size_budget=budget)  # a crash while receiving: the task comes again
    for start in range(0, 80, 8):
        put(again, ids_of(2, start, start + 8))
    assert again.counts(3).tolist() == counts.tolist()
    again.close()
    smaller = Storage(tmp_path, LONG, size_budget=budget // 2)
    assert smaller.counts(3).sum() == 30 - 12
    with pytest.raises(StorageError, match="already open in this process"):
        Storage(tmp_path, LONG)
    smaller.close()


def test_a_budget_that_is_too_small_is_refused_and_changes_nothing(tmp_path):
    storage = Storage(tmp_path, PRINT, size_budget=1300)
    put(storage, ids_of(0, 0, 20), "validation")
    with pytest.raises(ValueError, match="does not hold the validation samples and one training sample of each class"):
        put(storage, ids_of(1, 0, 20), "validation")
    assert storage.counts(3, "validation").tolist() == [20, 0, 0]
    storage.close()


def test_what_is_no_store_is_said_and_left_as_it_is(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "odd" / "store.json").mkdir(parents=True)
    for name in ("nowhere", "file", "empty", "odd"):
        for options in ([], ["--repair"]):
            assert main(["verify", str(tmp_path / name), *options]) == 1
            assert "can't be" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file", "odd", "store.json"]


def test_verifying_leaves_nothing_behind(tmp_path):
    filled(tmp_path)
    (tmp_path / "process.lock").unlink()  # a store that was copied without it
    before = sorted(path.name for path in tmp_path.iterdir())
    assert verify(tmp_path, progress=False).sound and sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_that_can_not_be_locked_is_a_sentence(tmp_path, monkeypatch):
    filled(tmp_path)
    monkeypatch.setattr("mirolib.base.files.PROCESS_LOCK", "no/such/folder")
    with pytest.raises(
        StorageError,
        match="can't be opened: No such file or directory; name the folder of a store, readable and, for repair",
    ):
        repair(tmp_path)

"""Damaged records in the memory: others of their classes take their places, and nothing else changes."""

import numpy as np
import pytest
from arrivals import STREAM, TASKS, check, swapped, trained
from stores import drop

from mirolib import MemoryConfig, Storage, StorageError, TieredMemory
from mirolib.data.stream import labels_of
from mirolib.memory.replace_damaged import read_all


def damage(memory, wanted, part="train") -> set[int]:
    """Flips a bit in the stored records whose ids are wanted: in the sample, or in the key of every second."""
    ids, storage = set(), memory.storage
    data = bytearray((storage.path / "data.bin").read_bytes())
    for at in range(0, len(data), slot := 16 + storage.fingerprint.sample_bytes):
        key = int.from_bytes(data[at : at + 8], "little")
        if key >> 63 == (part == "validation") and wanted(id_ := key & (1 << 63) - 1):
            ids.add(id_)
            data[at + (slot - 1 if len(ids) % 2 else 0)] ^= 1
    with (storage.path / "data.bin").open("r+b") as file:
        file.write(data)
    return ids


def seen_ids(memory, **options) -> list[int]:
    """Trains on all tasks; every id of the episodic memory over time, after a look at all samples."""
    seen = []

    def observe(batch):
        check(memory)
        seen.extend(memory.episodic_memory.array.ids.tolist())

    trained(memory, observe=observe, **options)
    check(memory)
    return seen


def is_even(ids) -> bool:
    counts = np.bincount(labels_of(ids))
    return np.ptp(counts[counts > 0]) <= 1


def test_damaged_records_are_replaced_counted_and_never_taken_in(make_memory, caplog):
    memory = make_memory(STREAM, MemoryConfig(20, 12, 1.0))
    gone: set[int] = set()
    seen = seen_ids(memory, after_receive=lambda: gone.update(damage(memory, lambda id_: id_ % 3 == 0)))
    late = [id_ for id_ in seen if id_ in gone]
    found = memory.storage.damaged["train"]
    assert found and found <= gone and set(memory.episodic_memory.damaged.tolist()) <= found
    assert len(memory.episodic_memory) == 12  # nothing was left out
    assert set(late) <= {int(id_) for task in TASKS for id_ in task.train_ids}  # from RAM, before the damage
    assert all(f"Record {id_ & 0xFFFFFFFF} of label {id_ >> 32} (train)" in caplog.text for id_ in found)
    assert is_even(memory.episodic_memory.array.ids)


def test_a_run_with_damage_is_the_same_twice(make_memory):
    runs = []
    for broken in (False, False, True, True):
        memory = make_memory(STREAM, MemoryConfig(20, 12, 1.0), seed=3)
        hurt = (lambda memory=memory: damage(memory, lambda id_: id_ % 4 == 0)) if broken else (lambda: None)
        runs.append(seen_ids(memory, after_receive=hurt))
    assert runs[0] == runs[1] != runs[2] == runs[3]


def test_larger_buffers_pass_over_damage(make_memory):
    memory = make_memory(STREAM, MemoryConfig(6, 4))
    trained(memory, TASKS[:1])
    memory.receive(TASKS[1])
    arrays = (memory.stream_buffer.array, memory.episodic_memory.array)
    held = {id_ for array in arrays for id_ in array.ids.tolist()}
    gone = damage(memory, lambda id_: id_ % 3 == 0)
    memory.resize(MemoryConfig(20, 20))
    check(memory)
    for array in arrays:
        assert len(array) == 20 and not (set(array.ids.tolist()) - held) & gone and is_even(array.ids)
    assert set(memory.stream_buffer.order[:20].tolist()) == set(memory.stream_buffer.array.ids.tolist())


def test_a_class_without_a_sound_sample_is_named(make_memory):
    memory = make_memory(STREAM, MemoryConfig(6, 1))
    trained(memory, TASKS[:1])
    (kept,) = labels_of(memory.episodic_memory.array.ids)
    damage(memory, lambda id_: id_ >> 32 != kept)
    with pytest.raises(StorageError, match=f"no sound train sample of label {1 - kept} left"):
        memory.resize(MemoryConfig(6, 8))


def test_slots_keep_their_samples_where_nothing_sound_is_left(make_memory):
    memory = make_memory(STREAM, MemoryConfig(20, 12, 1.0))
    trained(memory, TASKS[:1])
    before = memory.episodic_memory.array.ids
    damage(memory, lambda id_: id_ >> 32 < 2)
    memory.receive(TASKS[1])
    swapped(memory)
    memory.settle()
    check(memory)
    np.testing.assert_array_equal(memory.episodic_memory.array.ids, before)


def test_validation_reads_stand_in_for_damaged_records(make_memory):
    memory = make_memory(STREAM, MemoryConfig(6, 4))
    memory.receive(TASKS[0])
    ids = memory.validation_ids()
    sound = memory.storage.read(ids, "validation")
    first = int(ids[0])
    damage(memory, lambda id_: id_ == first, "validation")
    read = read_all(memory.storage, ids, "validation")
    np.testing.assert_array_equal(read[0], sound[1])
    np.testing.assert_array_equal(read[1:], sound[1:])
    damage(memory, lambda id_: id_ >> 32 == 0 and id_ != first, "validation")
    with pytest.raises(StorageError, match="no sound validation sample of label 0 left"):
        read_all(memory.storage, ids, "validation")


def test_receiving_again_writes_what_was_lost(make_memory):
    memory = make_memory(STREAM, MemoryConfig(6, 4))
    memory.receive(TASKS[0])
    memory.close()
    for id_ in TASKS[0].train_ids[::3]:
        drop(memory.storage.path, id_)
    again = Storage(memory.storage.path, memory.storage.fingerprint)
    assert (~again.holds(TASKS[0].train_ids)).sum() == -(-len(TASKS[0].train_ids) // 3)
    memory = TieredMemory(again, memory.config, 6)
    memory.store(TASKS[0])
    np.testing.assert_array_equal(again.read(TASKS[0].train_ids), TASKS[0].train.read(slice(None)))
    assert not again.damaged["train"]
    memory.close()

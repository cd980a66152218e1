"""An epoch of the task: what passes train on, whatever RAM, batches, lag and disk are."""

import time
from collections import Counter

import numpy as np
import pytest
from arrivals import SAMPLE_OF_ID, STREAM, TASKS
from hypothesis import HealthCheck, given, settings, strategies as st

from mirolib import InputError, MemoryConfig, TieredMemory
from mirolib.memory.rotation import replays


@pytest.fixture(params=[1, 4])
def block(request):
    return request.param


@pytest.fixture
def make_memory(make_memory, block):
    return lambda *args, **options: make_memory(*args, **{"block": block} | options)


def seen(memory, batch):
    """The ids of a batch, whose samples and labels are those of these ids."""
    buffers = memory.stream_buffer.array, memory.episodic_memory.array
    new, old = (buffer.ids_at(slots) for buffer, slots in zip(buffers, (batch.streamed, batch.replayed), strict=True))
    ids = np.concatenate([new, old])
    np.testing.assert_array_equal(batch.labels, ids >> 32)
    for id_, sample in zip(ids.tolist(), batch.samples, strict=True):
        np.testing.assert_array_equal(sample, SAMPLE_OF_ID[id_])
    return new.tolist(), old.tolist()


def passed(memory, batch_size=6, ratio=1.0, begin=0.0, end=1.0):
    """Ids of the task and of old samples that a pass trains on."""
    new, old = [], []
    for batch in memory.passes(batch_size, ratio, begin, end):
        assert len(batch.labels) <= batch_size
        for found, more in zip((new, old), seen(memory, batch), strict=True):
            found += more
        memory.swap(batch)
    return new, old


def at_task(make_memory, task, config, **options):
    memory = make_memory(STREAM, config, **options)
    for index in range(task):
        memory.receive(TASKS[index])
        memory.retain(TASKS[index])
    memory.receive(TASKS[task])
    return memory


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(12, 40), st.integers(2, 8), st.integers(1, 2), st.sampled_from([0, 0.5, 1, 3]), st.integers(1, 4))
def test_every_pass_sees_each_sample_of_the_task_once(make_memory, slots, batch_size, lag, ratio, passes):
    memory = at_task(make_memory, 1, MemoryConfig(slots, 7, 1.0), lag=lag)
    ids = sorted(TASKS[1].train_ids.tolist())
    try:
        for _ in range(passes):
            new, old = passed(memory, batch_size, ratio)
            assert sorted(new) == ids and len(old) == round(ratio * len(ids))
            assert {id_ >> 32 for id_ in old} <= set(TASKS[0].classes)
    except InputError as error:
        assert "slots are needed" in str(error) and slots < batch_size * (lag + 1) and slots < len(ids)


def test_a_part_of_a_pass_is_gone_on_with_where_it_ended(make_memory):
    memory = at_task(make_memory, 1, MemoryConfig(20, 7, 1.0))
    parts = [passed(memory, begin=begin, end=end)[0] for begin, end in ((0, 0.3), (0.3, 0.6), (0.6, 1.0))]
    assert [len(part) for part in parts] == [11, 11, 14]
    assert sorted(np.concatenate(parts).tolist()) == sorted(TASKS[1].train_ids.tolist())


def test_without_swapping_a_few_samples_are_seen_again_and_again(make_memory):
    memory = at_task(make_memory, 1, MemoryConfig(18, 7, 0.0))
    times = Counter(passed(memory)[0])
    assert len(times) == 18 and set(times.values()) == {2}


def test_at_half_the_ratio_half_of_the_slots_are_filled_anew(make_memory):
    memory = at_task(make_memory, 1, MemoryConfig(18, 7, 0.5))
    for _ in range(6):
        passed(memory, ratio=0)
    memory.settle()
    assert memory.counts.streamed == 6 * 36 / 2 and memory.rotation.position.fetched == 18 + 6 * 18


def test_fewer_slots_than_old_classes_leave_none_out(make_memory):
    memory = at_task(make_memory, 2, MemoryConfig(20, 2, 1.0))
    classes = Counter()
    for _ in range(12):
        classes += Counter(id_ >> 32 for id_ in passed(memory, ratio=2.0)[1])
    counts = [classes[label] for label in (*TASKS[0].classes, *TASKS[1].classes)]
    assert sum(counts) == 12 * 72 and min(counts) > 0.8 * max(counts)


def test_a_slow_disk_changes_nothing(make_memory):
    def run(wait):
        memory = at_task(make_memory, 1, MemoryConfig(20, 7, 1.0))
        memory.storage.before_read = wait
        return [passed(memory) for _ in range(3)]

    assert run(lambda size_bytes: time.sleep(0.002)) == run(None)


@pytest.mark.parametrize("config", [MemoryConfig(20, 7, 1.0), MemoryConfig(18, 2, 0.5)])
def test_a_restored_memory_goes_on_as_if_nothing_had_been(make_memory, block, config):
    memory = at_task(make_memory, 2, config)
    passed(memory)
    for batch in memory.passes(6, 1.0, end=0.4):  # leaves exchanges under way
        memory.swap(batch)
    state = memory.state()
    again = TieredMemory(memory.storage, config, STREAM.num_classes, block=block)
    again.restore(state)
    assert [passed(again) for _ in range(3)] == [passed(memory) for _ in range(3)]
    again.settle()
    memory.settle()
    np.testing.assert_array_equal(again.episodic_memory.array.ids, memory.episodic_memory.array.ids)


@pytest.mark.parametrize("sizes", [(12, 20, 36), (30, 14), (36, 12)])
def test_a_pass_goes_on_over_a_resize(make_memory, sizes):
    memory = at_task(make_memory, 1, MemoryConfig(16, 7, 1.0))
    passed(memory, batch_size=4)
    for size in sizes:
        memory.resize(MemoryConfig(size, 5, 1.0))
        assert len(memory.rotation.position.queue) == len(memory.stream_buffer) == size
        for _ in range(3):
            counts = Counter(passed(memory, batch_size=4)[0])
        assert sum(counts.values()) == 36 and len(counts) == 36
    memory.retain(TASKS[1])


def test_a_single_level_memory_lets_the_task_through_and_keeps_its_old_samples(make_memory):
    memory = at_task(make_memory, 1, MemoryConfig(20, 7), hierarchical=False)
    before = memory.episodic_memory.array.ids
    assert sorted(passed(memory)[0]) == sorted(TASKS[1].train_ids.tolist())
    np.testing.assert_array_equal(memory.episodic_memory.array.ids, before)


def test_a_loop_of_ones_own_gets_tensors_and_swaps_on_the_way(make_memory):
    memory = at_task(make_memory, 1, MemoryConfig(20, 7, 1.0))
    for _ in range(3):
        batches = list(memory.loader(6, 1.0))
        samples, labels = (np.concatenate([part.numpy() for part in column]) for column in zip(*batches, strict=True))
        known = {sample.tobytes(): id_ for id_, sample in SAMPLE_OF_ID.items()}
        ids = np.array([known[sample.tobytes()] for sample in samples])
        np.testing.assert_array_equal(ids >> 32, labels)
        assert sorted(ids[np.isin(labels, TASKS[1].classes)]) == sorted(TASKS[1].train_ids) and len(ids) == 72
    assert memory.counts.streamed == 3 * 36


def test_ratios_by_hand():
    by_hand = (("sqrt", 8, 2), ("classes", 8, 4), (1.5, 8, 1.5), (3, 0, 0))
    assert [replays("it", ratio, old, 2) for ratio, old, _ in by_hand] == [found for *_, found in by_hand]
    for ratio in (-1, float("nan"), float("inf"), "root", True, None):
        with pytest.raises(InputError, match="replay_ratio is .*give a number from 0 up, or one of sqrt, classes"):
            replays("replay_ratio", ratio, 8, 2)


@pytest.mark.parametrize(("slots", "most"), [(3, 1), (5, 1), (6, 2), (11, 3), (12, 4), (35, 4)])
def test_few_slots_make_small_steps_that_pass_over_everything(make_memory, slots, most):
    memory = at_task(make_memory, 1, MemoryConfig(slots, 7, 1.0))
    for _ in range(2):
        seen = []
        for batch in memory.passes(4, 0):
            assert len(batch.streamed) <= most, "those of two steps before are still on their way"
            seen += memory.stream_buffer.array.ids_at(batch.streamed).tolist()
            memory.swap(batch)
        assert sorted(seen) == sorted(TASKS[1].train_ids.tolist())


def test_slots_that_hold_no_step_are_refused_with_what_is_needed(make_memory):
    memory = at_task(make_memory, 1, MemoryConfig(2, 7, 1.0))
    with pytest.raises(InputError, match="stream_size is 2, but 3 slots are needed for batches of 1"):
        next(memory.passes(4, 0))


def test_a_memory_restored_in_the_first_pass_goes_on_as_if_nothing_had_been(make_memory, block):
    config = MemoryConfig(14, 9, 1.0)
    memory = at_task(make_memory, 1, config)
    for batch in memory.passes(4, 1.0, end=0.3):
        memory.swap(batch)
    again = TieredMemory(memory.storage, config, STREAM.num_classes, block=block)
    again.restore(memory.state())
    parts = [(0.3, 1.0), (0.0, 1.0)]
    assert [passed(again, 4, 1.0, *part) for part in parts] == [passed(memory, 4, 1.0, *part) for part in parts]


def test_neighbours_on_storage_come_together_and_no_sample_twice(make_memory, block, monkeypatch):
    memory, asked = at_task(make_memory, 2, MemoryConfig(24, 12, 1.0)), []
    read = memory.storage.read_sound
    monkeypatch.setattr(memory.storage, "read_sound", lambda ids: asked.append(memory.storage.rows(ids)) or read(ids))
    for _ in range(20):
        for batch in memory.passes(8, 1.0):
            memory.swap(batch)
            ids = memory.episodic_memory.array.ids
            assert len(set(ids.tolist())) == len(ids) == 12
    samples, pieces = (sum(many) for many in zip(*((len(r), 1 + (np.diff(r) != 1).sum()) for r in asked), strict=True))
    assert samples > 1200 and (pieces < samples / 2) == (block == 4)


def test_a_block_of_none_is_refused(make_memory):
    with pytest.raises(InputError, match="block 0; choose 1 or more"):
        make_memory(STREAM, MemoryConfig(8, 7, 1.0), block=0)

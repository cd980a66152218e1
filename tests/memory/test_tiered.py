import shutil
import tempfile
import time

import numpy as np
import pytest
from arrivals import SAMPLE_OF_ID, STREAM, TASKS, check, swapped, trained
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mirolib import Fingerprint, InputError, MemoryConfig, Storage, TieredMemory
from mirolib.data.stream import labels_of
from mirolib.memory.buffers import balanced_quotas

CONFIGS = st.builds(MemoryConfig, st.integers(1, 36), st.integers(1, 108), st.sampled_from([0.0, 0.3, 1.0]))


class Memory(RuleBasedStateMachine):
    """Any sequence of receive, train, resize and retain keeps both buffers sound."""

    @initialize(config=CONFIGS, seed=st.integers(0, 9), lag=st.integers(1, 4))
    def make(self, config, seed, lag):
        self.folder = tempfile.mkdtemp()
        storage = Storage(self.folder, Fingerprint.of(STREAM))
        self.memory = TieredMemory(storage, config, STREAM.num_classes, seed=seed, lag=lag)
        self.task, self.received = 0, False

    @precondition(lambda self: not self.received and self.task < len(TASKS))
    @rule()
    def receive(self):
        self.memory.receive(TASKS[self.task])
        self.received = True
        assert len(self.memory.stream_buffer) == min(self.memory.config.stream_size, 36)

    @precondition(lambda self: self.received)
    @rule(batch_size=st.integers(1, 40), steps=st.integers(1, 8))
    def train(self, batch_size, steps):
        for step, batch in enumerate(self.memory.batches(batch_size)):
            if step == steps:
                break
            assert len(batch.labels) <= batch_size + (batch_size > 1)  # a rest of one joins its neighbour
            self.memory.swap(batch)

    @precondition(lambda self: self.received)
    @rule()
    def a_whole_epoch_shows_every_sample_once(self):
        ids = np.concatenate([self.memory.stream_buffer.array.ids, self.memory.episodic_memory.array.ids])
        batches = list(self.memory.batches(7))
        pairs = (pair for batch in batches for pair in zip(batch.samples, batch.labels.tolist(), strict=True))
        seen = [(label, sample.tobytes()) for sample, label in pairs]
        expected = [(i >> 32, SAMPLE_OF_ID[i].tobytes()) for i in ids.tolist()]
        assert sorted(seen) == sorted(expected)
        assert sorted(np.concatenate([b.replayed for b in batches])) == list(range(len(self.memory.episodic_memory)))
        for batch in batches:
            replayed = labels_of(self.memory.episodic_memory.array.ids_at(batch.replayed))
            np.testing.assert_array_equal(batch.labels[len(batch.labels) - len(replayed) :], replayed)

    @rule(config=CONFIGS)
    def resize(self, config):
        before = set(self.memory.stream_buffer.array.ids.tolist())
        self.memory.resize(config)
        after = set(self.memory.stream_buffer.array.ids.tolist())
        assert before <= after or after <= before
        if self.received:
            assert len(after) == min(config.stream_size, 36)

    @precondition(lambda self: self.received)
    @rule()
    def retain(self):
        self.memory.retain(TASKS[self.task])
        self.task, self.received = self.task + 1, False
        assert len(self.memory.stream_buffer) == 0

    @invariant()
    def sound(self):
        if not hasattr(self, "memory"):
            return
        memory = self.memory
        for buffer, capacity in (
            (memory.stream_buffer, memory.config.stream_size),
            (memory.episodic_memory, memory.config.episodic_size),
        ):
            assert buffer.array.capacity == capacity
        check(memory)
        available = np.array([18] * (2 * self.task) + [0] * (6 - 2 * self.task))
        counts = memory.episodic_memory.class_counts(6)
        np.testing.assert_array_equal(counts, balanced_quotas(memory.config.episodic_size, available))

    def teardown(self):
        if hasattr(self, "memory"):
            self.memory.close()
            shutil.rmtree(self.folder)


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_the_disks_speed_changes_nothing_and_tears_no_sample(make_memory):
    """Every replayed sample is whole and has its own label, while the disk is late and slots change hands."""
    traces = []
    for delay_seed in (None, 1, 2):
        memory = make_memory(STREAM, MemoryConfig(36, 30, 1.0), seed=5, lag=3)
        if delay_seed:
            delays = np.random.default_rng(delay_seed)
            memory.storage.before_read = lambda _, delays=delays: time.sleep(delays.exponential(0.003))
        trace: list[list[int]] = []

        def observe(batch, memory=memory, trace=trace):
            ids = memory.episodic_memory.array.ids_at(batch.replayed).tolist()
            trace.append(ids)
            for sample, label, id_ in zip(batch.samples[::-1], batch.labels[::-1], ids[::-1], strict=False):
                assert label == id_ >> 32
                np.testing.assert_array_equal(sample, SAMPLE_OF_ID[id_])

        trained(memory, epochs=6, observe=observe)
        assert memory.counts.swapped > 200
        traces.append(trace)
    assert traces[0] == traces[1] == traces[2]


@pytest.mark.parametrize("size", [5, 11, 40])
def test_what_is_under_way_is_committed_before_slots_move(make_memory, size):
    memory = make_memory(STREAM, MemoryConfig(36, 16, 1.0), seed=2, lag=50)
    trained(memory, TASKS[:1])
    memory.receive(TASKS[1])
    before = set(memory.episodic_memory.array.ids.tolist())
    swapped(memory)
    assert set(memory.episodic_memory.array.ids.tolist()) == before, "a lag of 50 steps is not over"
    memory.resize(MemoryConfig(36, size, 1.0))
    check(memory)
    ids = set(memory.episodic_memory.array.ids.tolist())
    assert len(ids) == min(size, 36)
    if size < 16:
        assert not before & ids, "every old sample was exchanged before some were dropped"
    swapped(memory)


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_the_swap_ratio_is_met(make_memory, ratio):
    for lag, batch_size in ((1, 7), (2, 28)):
        memory = make_memory(STREAM, MemoryConfig(36, 10, ratio), lag=lag)
        trained(memory, TASKS[:2], epochs=20, batch_size=batch_size)
        counts = memory.counts
        assert counts.replayed == 20 * 10 and counts.unavailable == 0
        assert counts.swapped == pytest.approx(ratio * counts.replayed, abs=1)


def test_nothing_to_swap_in_is_counted_not_invented(make_memory):
    memory = make_memory(STREAM, MemoryConfig(36, 36, 1.0))
    trained(memory, TASKS[:2], epochs=3)
    assert memory.counts.swapped == 0 and memory.counts.unavailable == 3 * 36


def test_a_single_level_memory_never_reads_storage(make_memory):
    memory = make_memory(STREAM, MemoryConfig(12, 30), hierarchical=False)
    trained(memory)
    memory.resize(MemoryConfig(36, 60))
    assert memory.storage.bytes_read == 0
    assert memory.stored == 108
    # each task left at most its stream buffer: 6 of each class, and no class may have come back since
    assert memory.episodic_memory.class_counts(6).max() <= 6


def test_without_replay_batches_hold_the_new_task_only(make_memory):
    memory = make_memory(STREAM, MemoryConfig(36, 20))
    trained(memory, TASKS[:1])
    memory.receive(TASKS[1])
    labels = np.concatenate([batch.labels for batch in memory.batches(8, replay=False)])
    assert set(labels) == set(TASKS[1].classes) and len(labels) == 36


def test_a_resize_during_an_epoch_is_said_not_trained_on(make_memory):
    memory = make_memory(STREAM, MemoryConfig(36, 20))
    memory.receive(TASKS[0])
    epoch = memory.batches(8)
    next(epoch)
    memory.resize(MemoryConfig(5, 4))
    with pytest.raises(InputError, match="call batches again"):
        next(epoch)


def test_a_stream_buffer_made_larger_is_filled_in_a_single_level_memory_too(make_memory):
    memory = make_memory(STREAM, MemoryConfig(5, 20), hierarchical=False)
    memory.receive(TASKS[0])
    memory.resize(MemoryConfig(36, 20))
    assert len(memory.stream_buffer) == 36


def test_batches_are_even(make_memory):
    memory = make_memory(STREAM, MemoryConfig(33, 20))
    memory.receive(TASKS[0])
    assert [len(batch.labels) for batch in memory.batches(32)] == [17, 16]
    memory.resize(MemoryConfig(3, 1))
    assert [len(batch.labels) for batch in memory.batches(2)] == [3], "a rest of one joins its neighbour"
    assert [len(batch.labels) for batch in memory.batches(1)] == [1, 1, 1]


def test_fill_by_tier(make_memory):
    memory = make_memory(STREAM, MemoryConfig(10, 8))
    trained(memory, TASKS[:1])
    memory.receive(TASKS[1])
    rows = {(row["tier"], row["label"]): row["samples"] for row in memory.fill()}
    assert [rows["stream buffer", k] for k in range(6)] == [0, 0, 5, 5, 0, 0]
    assert [rows["episodic memory", k] for k in range(6)] == [4, 4, 0, 0, 0, 0]
    assert [rows["storage", k] for k in range(6)] == [18, 18, 18, 18, 0, 0]
    assert all(row["size_bytes"] == 16 * row["samples"] for row in memory.fill())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0, 5, 0.1), "stream_size is 0"),
        ((5, -1, 0.1), "episodic_size is -1"),
        ((5.5, 5, 0.1), "whole number"),
        ((5, 5, 1.01), "swap_ratio is 1.01"),
        ((5, 5, -0.1), "swap_ratio is -0.1"),
        ((5, 5, float("nan")), "swap_ratio is nan"),
        ((5, 5, "0.5"), "swap_ratio is '0.5'"),
        ((5, True, 0.5), "episodic_size is True"),
    ],
)
def test_bad_configurations_are_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        MemoryConfig(*values)


def test_contradictions_are_refused(make_memory):
    memory = make_memory(STREAM, MemoryConfig(5, 5), hierarchical=False)
    with pytest.raises(InputError, match="single-level memory can't swap"):
        memory.resize(MemoryConfig(5, 5, 1.0))
    for options, sentence in (({"hierarchical": False}, "single-level memory can't swap"), ({"lag": 0}, "lag is 0")):
        with pytest.raises(InputError, match=sentence):
            TieredMemory(memory.storage, MemoryConfig(5, 5, 0.5), 6, **options)


def test_the_index_takes_five_bytes_a_stored_sample(make_memory):
    memory = make_memory(STREAM, MemoryConfig(10, 10))
    memory.receive(TASKS[0])
    before, stored = memory.index_bytes, memory.stored
    memory.receive(TASKS[1])
    held_out = len(TASKS[1].validation)
    assert memory.index_bytes - before == 5 * (memory.stored - stored) + 4 * held_out > 0

import numpy as np
import pytest
from hypothesis import given, strategies as st
from samples import SHAPE, tagged

from mirolib.data.stream import labels_of, make_ids
from mirolib.memory.buffers import EpisodicMemory, SampleArray, StreamBuffer, balanced_order, balanced_quotas


@pytest.mark.parametrize(
    ("capacity", "available", "quotas"),
    [
        (10, [5, 5, 5], [4, 3, 3]),
        (10, [1, 9, 9], [1, 5, 4]),
        (10, [1, 2, 9], [1, 2, 7]),
        (100, [3, 4], [3, 4]),
        (2, [5, 5, 5], [1, 1, 0]),
        (7, [0, 9, 0], [0, 7, 0]),
        (0, [3], [0]),
    ],
)
def test_quotas_by_hand(capacity, available, quotas):
    np.testing.assert_array_equal(balanced_quotas(capacity, np.array(available)), quotas)


@given(st.integers(0, 60), st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_quotas_are_max_min_fair(capacity, available):
    available = np.array(available)
    quotas = balanced_quotas(capacity, available)
    assert quotas.sum() == min(capacity, available.sum())
    assert (quotas <= available).all() and (quotas >= 0).all()
    short = quotas < available  # a class that wants more has at most one less than any other
    if short.any():
        assert quotas[short].min() >= quotas.max() - 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 99))
def test_every_prefix_of_a_balanced_order_is_balanced(labels, seed):
    labels = np.array(labels)
    order = balanced_order(labels, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    available = np.bincount(labels)
    for k in range(len(labels)):
        counts = np.bincount(labels[order[:k]], minlength=len(available))
        wanting = counts[counts < available]
        assert not len(wanting) or wanting.min() >= counts.max() - 1


@given(st.data())
def test_sample_array_keeps_samples_ids_and_labels_together(data):
    array = SampleArray(8, SHAPE, "uint8")
    expected: set[int] = set()
    next_ordinal = 0
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["append", "discard", "write", "resize"]))
        if action == "append" and len(array) < array.capacity:
            count = data.draw(st.integers(1, array.capacity - len(array)))
            ids = make_ids(np.arange(count) % 3, np.arange(next_ordinal, next_ordinal + count))
            next_ordinal += count
            array.append(tagged(ids), ids)
            expected |= set(ids.tolist())
        elif action == "discard" and len(array):
            slots = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), unique=True)), dtype=int)
            expected -= set(array.ids[slots].tolist())
            array.discard(slots)
        elif action == "write" and len(array):
            slots = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), unique=True)), dtype=int)
            ids = make_ids(np.full(len(slots), 5), np.arange(next_ordinal, next_ordinal + len(slots)))
            next_ordinal += len(slots)
            expected = (expected - set(array.ids[slots].tolist())) | set(ids.tolist())
            array.write(slots, tagged(ids), ids)
        elif action == "resize":
            array.resize(data.draw(st.integers(max(1, len(array)), 16)))
        assert set(array.ids.tolist()) == expected and len(array) == len(expected) <= array.capacity
        samples, labels = np.empty((len(array), *SHAPE), np.uint8), np.empty(len(array), np.int64)
        array.gather(np.arange(len(array)), samples, labels)
        np.testing.assert_array_equal(samples, tagged(array.ids))
        np.testing.assert_array_equal(labels, labels_of(array.ids))


def test_discarding_more_than_a_chunk_moves_every_sample(monkeypatch):
    monkeypatch.setattr("mirolib.memory.buffers.CHUNK", 3)
    array = SampleArray(20, SHAPE, "uint8")
    ids = make_ids(np.zeros(20), np.arange(20))
    array.append(tagged(ids), ids)
    array.discard(np.arange(9))
    samples, labels = np.empty((11, *SHAPE), np.uint8), np.empty(11, np.int64)
    array.gather(np.arange(11), samples, labels)
    assert set(array.ids.tolist()) == set(ids[9:].tolist())
    np.testing.assert_array_equal(samples, tagged(array.ids))


def test_a_smaller_stream_buffer_holds_a_subset_of_a_larger_one():
    ids = make_ids(np.repeat([0, 1], 10), np.tile(np.arange(10), 2))
    held = {}
    for size in (4, 9, 20):
        buffer = StreamBuffer(SampleArray(size, SHAPE, "uint8"))
        buffer.begin(ids, np.random.default_rng(0))
        wanted = buffer.missing()
        buffer.array.append(tagged(wanted), wanted)
        held[size] = set(buffer.array.ids.tolist())
        assert abs(np.diff(np.bincount(buffer.array.labels))[0]) <= 1
    assert held[4] < held[9] < held[20] == set(ids.tolist())


def test_drawn_samples_are_absent_distinct_and_uniform():
    memory = EpisodicMemory(SampleArray(10, SHAPE, "uint8"))
    held = make_ids(np.zeros(8), np.arange(8))
    memory.extend(np.array([16]))
    memory.add(tagged(held), held)
    rng = np.random.default_rng(0)
    counts = np.zeros(16)
    for _ in range(3000):
        drawn = memory.draw_absent(np.array([0, 0]), rng)
        assert len(set(drawn.tolist())) == 2
        counts[drawn & 0xFFFFFFFF] += 1
    assert (counts[:8] == 0).all()
    # 6,000 draws over 8 samples: 750 each, standard deviation 25.6
    assert abs(counts[8:] - 750).max() < 110


def test_when_a_class_is_used_up_the_draw_says_so():
    memory = EpisodicMemory(SampleArray(10, SHAPE, "uint8"))
    held = make_ids(np.array([0, 0, 1]), np.array([0, 1, 0]))
    memory.extend(np.array([3, 1]))
    memory.add(tagged(held), held)
    drawn = memory.draw_absent(np.array([0, 0, 1]), np.random.default_rng(0))
    assert sorted(drawn.tolist()) == [-1, -1, 2]


def test_a_sample_is_never_held_twice():
    memory = EpisodicMemory(SampleArray(4, SHAPE, "uint8"))
    ids = make_ids(np.array([0]), np.array([0]))
    memory.extend(np.array([1]))
    memory.add(tagged(ids), ids)
    with pytest.raises(AssertionError, match="twice"):
        memory.add(tagged(ids), ids)

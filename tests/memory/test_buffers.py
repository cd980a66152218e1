import numpy as np
import pytest
from hypothesis import given, strategies as st
from samples import SHAPE, tagged

from mirolib.data.stream import labels_of, make_ids
from mirolib.memory.buffers import EpisodicMemory, SampleArray, balanced_order, balanced_quotas


@given(st.integers(0, 60), st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_quotas_are_max_min_fair(capacity, available):
    available = np.array(available)
    quotas = balanced_quotas(capacity, available)
    assert quotas.sum() == min(capacity, available.sum())
    assert (quotas <= available).all() and (quotas >= 0).all()
    short = quotas < available  # a class that wants more has at most one less than any other
    if short.any():
        assert quotas[short].min() >= quotas.max() - 1
        assert (np.diff(quotas[short]) <= 0).all(), "single places left over go to the earlier classes"


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
        some_slots = st.lists(st.integers(0, max(0, len(array) - 1)), unique=True)
        if action == "append" and len(array) < array.capacity:
            count = data.draw(st.integers(1, array.capacity - len(array)))
            ids = make_ids(np.arange(count) % 3, np.arange(next_ordinal, next_ordinal + count))
            next_ordinal += count
            array.append(tagged(ids), ids)
            expected |= set(ids.tolist())
        elif action == "discard" and len(array):
            slots = np.array(data.draw(some_slots), dtype=int)
            expected -= set(array.ids[slots].tolist())
            array.discard(slots)
        elif action == "write" and len(array):
            slots = np.array(data.draw(some_slots), dtype=int)
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
    array, ids = SampleArray(20, SHAPE, "uint8"), make_ids(np.zeros(20), np.arange(20))
    array.append(tagged(ids), ids)
    array.discard(np.arange(9))
    samples, left = array.copy_of(np.arange(11))
    assert set(left.tolist()) == set(ids[9:].tolist())
    np.testing.assert_array_equal(samples, tagged(left))


def episodic(capacity, labels, ordinals, stored):
    """An episodic memory that holds some of what is stored, by label."""
    memory = EpisodicMemory(SampleArray(capacity, SHAPE, "uint8"))
    memory.extend(np.array(stored))
    held = make_ids(np.array(labels), np.array(ordinals))
    memory.reserve(held)
    memory.array.append(tagged(held), held)
    return memory


def test_drawn_samples_are_absent_distinct_and_uniform():
    memory = episodic(10, [0] * 8, range(8), stored=[16])
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
    memory = episodic(10, [0, 0, 1], [0, 1, 0], stored=[3, 1])
    drawn = memory.draw_absent(np.array([0, 0, 1]), np.random.default_rng(0))
    assert sorted(drawn.tolist()) == [-1, -1, 2]


def test_a_sample_is_never_held_twice():
    memory = episodic(4, [0], [0], stored=[1])
    with pytest.raises(AssertionError, match="twice"):
        memory.reserve(make_ids(np.array([0]), np.array([0])))
